"""What operators do to PostgreSQL: settings, locks, rows and roles."""

import asyncio
import time
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.faults.acts import act
from tests.faults.operator_at_work import Operator


def _setting(name: str, change: str, undo: str) -> None:
    async def do(op: Operator) -> None:
        await op.with_setting(change, undo)

    act(name)(do)


_setting("statement_timeout of 1 ms on the role", "ALTER ROLE tickpipe SET statement_timeout = '1ms'",
         "ALTER ROLE tickpipe RESET statement_timeout")  # fmt: skip
_setting("lock_timeout of 1 ms on the role", "ALTER ROLE tickpipe SET lock_timeout = '1ms'",
         "ALTER ROLE tickpipe RESET lock_timeout")  # fmt: skip
_setting("German dates, Tokyo's time, float digits 0", "ALTER ROLE tickpipe SET DateStyle = 'German, DMY'; "
         "ALTER ROLE tickpipe SET timezone = 'Asia/Tokyo'; ALTER ROLE tickpipe SET extra_float_digits = 0",
         "ALTER ROLE tickpipe RESET ALL")  # fmt: skip
_setting("read-only by default on the role", "ALTER ROLE tickpipe SET default_transaction_read_only = on",
         "ALTER ROLE tickpipe RESET ALL")  # fmt: skip
_setting("read-only by ALTER SYSTEM", "ALTER SYSTEM SET default_transaction_read_only = on",
         "ALTER SYSTEM RESET default_transaction_read_only")  # fmt: skip
_setting("read-only by default on the database", "ALTER DATABASE market SET default_transaction_read_only = on",
         "ALTER DATABASE market RESET default_transaction_read_only")  # fmt: skip
_setting("statement_timeout of 1 ms on the database", "ALTER DATABASE market SET statement_timeout = '1ms'",
         "ALTER DATABASE market RESET statement_timeout")  # fmt: skip
_setting("the services' role may not log in", "ALTER ROLE tickpipe NOLOGIN", "ALTER ROLE tickpipe LOGIN")
_setting("one connection for the services' role", "ALTER ROLE tickpipe CONNECTION LIMIT 1",
         "ALTER ROLE tickpipe CONNECTION LIMIT -1")  # fmt: skip
_setting("the services' role renamed and renamed back", "ALTER ROLE tickpipe RENAME TO elsewhere",
         "ALTER ROLE elsewhere RENAME TO tickpipe")  # fmt: skip
_setting("rights on the table taken and given", "REVOKE ALL ON market_data FROM tickpipe",
         "GRANT ALL ON market_data TO tickpipe")  # fmt: skip
_setting("another search_path on the database", "ALTER DATABASE market SET search_path = nowhere",
         "ALTER DATABASE market RESET search_path")  # fmt: skip
_setting("serializable by default", "ALTER DATABASE market SET default_transaction_isolation = 'serializable'",
         "ALTER DATABASE market RESET default_transaction_isolation")  # fmt: skip
_setting("idle_in_transaction_session_timeout of 1 ms", "ALTER ROLE tickpipe SET "
         "idle_in_transaction_session_timeout = '1ms'", "ALTER ROLE tickpipe RESET ALL")  # fmt: skip
_setting("standard_conforming_strings off, bytea escape", "ALTER ROLE tickpipe SET bytea_output = 'escape'; "
         "ALTER ROLE tickpipe SET quote_all_identifiers = on", "ALTER ROLE tickpipe RESET ALL")  # fmt: skip
_setting("sessions ended by the administrator", "SELECT 1", "SELECT 1")


@act("the role's password changed and changed back")
async def _(op: Operator) -> None:
    password = conninfo_to_dict(op.settings.database_url.get_secret_value())["password"]
    with op.connection() as connection:
        connection.execute(b"ALTER ROLE tickpipe PASSWORD 'another'")
        connection.execute(
            b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            b" WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        await asyncio.sleep(5)
        connection.execute(f"ALTER ROLE tickpipe PASSWORD '{password}'".encode())


@act("the database renamed and renamed back")
async def _(op: Operator) -> None:
    with op.connection("postgres") as connection:
        for old, new in (("market", "elsewhere"), ("elsewhere", "market")):
            connection.execute(f"ALTER DATABASE {old} ALLOW_CONNECTIONS false".encode())
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [old])
            connection.execute(f"ALTER DATABASE {old} RENAME TO {new}".encode())
            connection.execute(f"ALTER DATABASE {new} ALLOW_CONNECTIONS true".encode())
            await asyncio.sleep(4)


@act("all connections taken for 8 s")
async def _(op: Operator) -> None:
    held: list[Any] = []
    until = time.monotonic() + 8
    while time.monotonic() < until:
        try:
            held.append(op.connection())
        except psycopg.OperationalError:
            await op_end_one(held)
            await asyncio.sleep(0.5)
    for connection in held:
        connection.close()


async def op_end_one(held: list[Any]) -> None:
    """Have a session of the sink ended, whose place is then taken."""
    with suppress(psycopg.Error):
        held[0].execute(
            b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tickpipe%' LIMIT 1"
        )


def _statements(name: str, *statements: str, repair: bool = False) -> None:
    async def do(op: Operator) -> None:
        for statement in statements:
            await asyncio.to_thread(op.sql, statement)
            await asyncio.sleep(1)

    act(name, repair=repair)(do)


_statements("VACUUM FULL", "VACUUM FULL market_data")
_statements("CLUSTER and REINDEX", "CLUSTER market_data USING market_data_pkey", "REINDEX TABLE market_data",
            "REINDEX DATABASE CONCURRENTLY market", "VACUUM FULL")  # fmt: skip
_statements("the candles copied into partitions of the user's own",
            "CREATE TABLE own_parts (LIKE market_data) PARTITION BY RANGE (ts)",
            "CREATE TABLE own_part PARTITION OF own_parts DEFAULT", "INSERT INTO own_parts SELECT * FROM market_data",
            "DROP TABLE own_parts")  # fmt: skip
_statements("a column's type and a check changed", "ALTER TABLE market_data ADD CONSTRAINT own CHECK (high >= low)",
            "ALTER TABLE market_data ALTER COLUMN symbol SET STORAGE EXTERNAL, ALTER COLUMN symbol SET STATISTICS 500",
            "ALTER TABLE market_data SET (fillfactor = 70, autovacuum_enabled = off)",
            "ALTER TABLE market_data CLUSTER ON market_data_pkey", "ALTER TABLE market_data REPLICA IDENTITY FULL",
            "ALTER TABLE market_data DROP CONSTRAINT own")  # fmt: skip
_statements("a column that must not be null added, and dropped",
            "BEGIN; ALTER TABLE market_data ADD COLUMN own_desk int; UPDATE market_data SET own_desk = 1; "
            "ALTER TABLE market_data ALTER COLUMN own_desk SET NOT NULL; COMMIT",
            "SELECT pg_sleep(6)", "ALTER TABLE market_data DROP COLUMN own_desk")  # fmt: skip
_statements("a check added that nothing new passes, and dropped",
            "ALTER TABLE market_data ADD CONSTRAINT own CHECK (spread < 0) NOT VALID",
            "SELECT pg_sleep(6)", "ALTER TABLE market_data DROP CONSTRAINT own", repair=True)  # fmt: skip
_statements("a name on top of a function of ours", "CREATE SCHEMA own_first",
            "CREATE FUNCTION own_first.candle_verdict() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "ALTER ROLE tickpipe SET search_path = own_first, public", "SELECT pg_sleep(3)",
            "ALTER ROLE tickpipe RESET search_path", "DROP SCHEMA own_first CASCADE")  # fmt: skip
_statements("row security switched on", "ALTER TABLE market_data ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "SELECT pg_sleep(5)", "ALTER TABLE market_data DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
            )  # fmt: skip
_statements("the table locked for 12 s", "BEGIN; LOCK TABLE market_data; SELECT pg_sleep(12); COMMIT")
_statements("the table locked for 90 s", "BEGIN; LOCK TABLE market_data; SELECT pg_sleep(90); COMMIT")
_statements("a column added and dropped", "ALTER TABLE market_data ADD COLUMN note text",
            "ALTER TABLE market_data DROP COLUMN note")  # fmt: skip
_statements("a column with a default added", "ALTER TABLE market_data ADD COLUMN desk int NOT NULL DEFAULT 7")
_statements("the table renamed and renamed back", "ALTER TABLE market_data RENAME TO elsewhere", "SELECT pg_sleep(4)",
            "ALTER TABLE elsewhere RENAME TO market_data")  # fmt: skip
_statements("triggers disabled and enabled", "ALTER TABLE market_data DISABLE TRIGGER USER", "SELECT pg_sleep(2)",
            "ALTER TABLE market_data ENABLE TRIGGER USER")  # fmt: skip
_statements("TRUNCATE market_data", "TRUNCATE market_data", repair=True)
_statements("DELETE of a range", "DELETE FROM market_data WHERE symbol = 'EURUSD'", repair=True)
_statements("rows changed by hand", "UPDATE market_data SET close = low WHERE symbol = 'GBPUSD'", repair=True)
_statements("TRUNCATE sink_progress", "TRUNCATE sink_progress")
_statements("progress of a partition deleted", "DELETE FROM sink_progress WHERE partition = 1")
_statements("progress moved ahead by hand", "UPDATE sink_progress SET next_offset = next_offset + 1000000")


@act("indexes dropped and made again")
async def _(op: Operator) -> None:
    rows = op.sql(
        "SELECT c.relname, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE i.indrelid = 'market_data'::regclass"
        " AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)"
    )
    for name, _definition in rows:
        await asyncio.to_thread(op.sql, f"DROP INDEX {name}")
    await asyncio.sleep(3)
    for _name, definition in rows:
        await asyncio.to_thread(op.sql, definition)


@act("the primary key dropped and made again")
async def _(op: Operator) -> None:
    [(name, definition)] = op.sql(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'market_data'::regclass AND contype = 'p'"
    )
    await asyncio.to_thread(op.sql, f"ALTER TABLE market_data DROP CONSTRAINT {name} CASCADE")
    await asyncio.sleep(4)
    await asyncio.to_thread(op.sql, f"ALTER TABLE market_data ADD CONSTRAINT {name} {definition}")


@act("all sessions ended every two seconds")
async def _(op: Operator) -> None:
    for _ in range(15):
        await op.reconnect()
        await asyncio.sleep(2)


async def _with_trigger(op: Operator, when: str, body: str) -> None:
    """A trigger of the user's own on the table of the candles, for a while."""
    op.sql(
        "CREATE TABLE IF NOT EXISTS own_notes (note text)",
        "GRANT ALL ON own_notes TO tickpipe",
        f"CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
        f"CREATE TRIGGER own {when} INSERT OR UPDATE ON market_data FOR EACH ROW EXECUTE FUNCTION own()",
    )
    await asyncio.sleep(8)
    op.sql("DROP TRIGGER own ON market_data", "DROP FUNCTION own()", "DROP TABLE own_notes")


@act("a trigger of the user's own that takes notes")
async def _(op: Operator) -> None:
    await _with_trigger(op, "AFTER", "INSERT INTO own_notes VALUES (NEW.symbol); RETURN NEW;")


@act("a trigger of the user's own that fails")
async def _(op: Operator) -> None:
    await _with_trigger(op, "BEFORE", "RAISE EXCEPTION 'not today';")


@act("a trigger of the user's own that drops rows", repair=True)
async def _(op: Operator) -> None:
    await _with_trigger(op, "BEFORE", "RETURN NULL;")


_statements("indexes of the user's own", "CREATE INDEX own_index ON market_data (symbol, close)",
            "CREATE UNIQUE INDEX own_unique ON market_data (source, symbol, ts) WHERE origin = 'ticks'",
            "DROP INDEX own_index, own_unique")  # fmt: skip
_statements("a table that inherits from the candles", "CREATE TABLE own_child () INHERITS (market_data)",
            "SELECT pg_sleep(3)", "DROP TABLE own_child")  # fmt: skip
