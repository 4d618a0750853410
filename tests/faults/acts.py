"""What operators do to a running stack by hand."""

import asyncio
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from sink.progress import with_sink_group
from tests.faults.operator_at_work import Operator
from tests.integration.stack import Stack
from tests.kafka_log import delete_topic
from tickpipe.embedded.stack import stop_stack
from tickpipe.replay.engine import wait_until_empty

Act = Callable[[Operator], Awaitable[None]]

ACTS: dict[str, Act] = {}

#: Acts after which the table lacks something, until `tickpipe verify --complete --repair`.
TO_REPAIR: set[str] = set()


def act(name: str, *, repair: bool = False) -> Callable[[Act], Act]:
    def register(function: Act) -> Act:
        ACTS[name] = function
        if repair:
            TO_REPAIR.add(name)
        return function

    return register


@act("services restarted, the sink first")
async def _(op: Operator) -> None:
    for name in (*op.named("sink"), *op.named("stream"), "producer"):
        await op.stop(name)
        await op.start(name)


@act("Kafka restarted under all")
async def _(op: Operator) -> None:
    await op.stop("kafka")
    await asyncio.sleep(2)
    await op.start("kafka")


@act("Kafka away while workers and sink are restarted")
async def _(op: Operator) -> None:
    await op.stop("kafka", *op.named("sink"), *op.named("stream"))
    starting = [asyncio.create_task(op.start(name)) for name in (*op.named("sink"), *op.named("stream"))]
    await asyncio.sleep(3)
    await op.start("kafka")
    await asyncio.gather(*starting)


@act("PostgreSQL away while the sink is restarted")
async def _(op: Operator) -> None:
    await op.stop("postgres", *op.named("sink"))
    starting = [asyncio.create_task(op.start(name)) for name in op.named("sink")]
    await asyncio.sleep(3)
    await op.start("postgres")
    await asyncio.gather(*starting)


@act("kill -9 of both servers at once")
async def _(op: Operator) -> None:
    await asyncio.to_thread(op.stack.kill, "kafka", "postgres")


@act("the sink stopped with SIGSTOP for 15 s")
async def _(op: Operator) -> None:
    for name in op.named("sink"):
        await op.signal(name, signal.SIGSTOP)
    await asyncio.sleep(15)
    for name in op.named("sink"):
        await op.signal(name, signal.SIGCONT)


@act("a worker stopped with SIGSTOP for 15 s")
async def _(op: Operator) -> None:
    name = op.named("stream")[0]
    await op.signal(name, signal.SIGSTOP)
    await asyncio.sleep(15)
    with suppress(ProcessLookupError):
        await op.signal(name, signal.SIGCONT)


@act("PostgreSQL's data folder put back to a copy of before")
async def _(op: Operator) -> None:
    folder, copy = op.data_dir / "postgres", op.data_dir.parent / "copy-of-postgres"
    await op.stop("postgres")
    await op.copy(folder, copy)
    await op.start("postgres")
    # What is stored meanwhile the copy does not have, and its progress neither.
    await asyncio.sleep(8)
    await op.stop("postgres")
    shutil.rmtree(folder)
    copy.rename(folder)
    await op.start("postgres")


async def _freeze(op: Operator, name: str) -> None:
    await op.signal(name, signal.SIGSTOP)
    try:
        await asyncio.sleep(120)
    finally:
        with suppress(ProcessLookupError):
            await op.signal(name, signal.SIGCONT)


for _service in ("kafka", "postgres", "producer"):
    act(f"{_service} stopped with SIGSTOP for two minutes")(partial(_freeze, name=_service))


@act("a second sink and a second worker by hand, under the names of the first")
async def _(op: Operator) -> None:
    for name, module in (("sink", "sink"), ("stream", "stream_app")):
        code, said = await op.run_again(name, module)
        assert (code, "Traceback" in said) == (1, False), said


@act("a second stack on the same machine")
async def _(op: Operator) -> None:
    other = Stack(op.data_dir.parent / "other")
    try:
        await asyncio.to_thread(other.up)
    finally:
        await asyncio.to_thread(stop_stack, other.data_dir)


@act("`tickpipe up` once more on the same data directory")
async def _(op: Operator) -> None:
    again = Stack(op.data_dir)
    await asyncio.to_thread(lambda: again.run("up", "--detach", "--producer-port", "0", expect=2))


def _setting(name: str, change: str, undo: str) -> None:
    async def do(op: Operator) -> None:
        await op.with_setting(change, undo)

    act(name)(do)


_setting("statement_timeout of 1 ms on the role", "ALTER ROLE postgres SET statement_timeout = '1ms'",
         "ALTER ROLE postgres RESET statement_timeout")  # fmt: skip
_setting("lock_timeout of 1 ms on the role", "ALTER ROLE postgres SET lock_timeout = '1ms'",
         "ALTER ROLE postgres RESET lock_timeout")  # fmt: skip
_setting("German dates, Tokyo's time, float digits 0", "ALTER ROLE postgres SET DateStyle = 'German, DMY'; "
         "ALTER ROLE postgres SET timezone = 'Asia/Tokyo'; ALTER ROLE postgres SET extra_float_digits = 0",
         "ALTER ROLE postgres RESET ALL")  # fmt: skip
_setting("read-only by default on the role", "ALTER ROLE postgres SET default_transaction_read_only = on",
         "ALTER ROLE postgres RESET ALL")  # fmt: skip
_setting("read-only by ALTER SYSTEM", "ALTER SYSTEM SET default_transaction_read_only = on",
         "ALTER SYSTEM RESET default_transaction_read_only")  # fmt: skip
_setting("another search_path on the database", "ALTER DATABASE market SET search_path = nowhere",
         "ALTER DATABASE market RESET search_path")  # fmt: skip
_setting("serializable by default", "ALTER DATABASE market SET default_transaction_isolation = 'serializable'",
         "ALTER DATABASE market RESET default_transaction_isolation")  # fmt: skip
_setting("idle_in_transaction_session_timeout of 1 ms", "ALTER ROLE postgres SET "
         "idle_in_transaction_session_timeout = '1ms'", "ALTER ROLE postgres RESET ALL")  # fmt: skip
_setting("standard_conforming_strings off, bytea escape", "ALTER ROLE postgres SET bytea_output = 'escape'; "
         "ALTER ROLE postgres SET quote_all_identifiers = on", "ALTER ROLE postgres RESET ALL")  # fmt: skip
_setting("sessions ended by the administrator", "SELECT 1", "SELECT 1")


@act("the role's password changed and changed back")
async def _(op: Operator) -> None:
    password = conninfo_to_dict(op.settings.database_url.get_secret_value())["password"]
    with op.connection() as connection:
        connection.execute(b"ALTER ROLE postgres PASSWORD 'another'")
        connection.execute(
            b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            b" WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        await asyncio.sleep(5)
        connection.execute(f"ALTER ROLE postgres PASSWORD '{password}'".encode())


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
_statements("CLUSTER and REINDEX", "REINDEX TABLE market_data")
_statements("the table locked for 12 s", "BEGIN; LOCK TABLE market_data; SELECT pg_sleep(12); COMMIT")
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


@act("retention set by hand, then `topics fix`")
async def _(op: Operator) -> None:
    await op.configure("ticks", "--add-config", "retention.ms=604800000")
    name = op.named("stream")[0]
    await op.stop(name)
    await asyncio.to_thread(lambda: op.stack.run("topics", "fix", "--yes"))
    await op.start(name)


@act("compaction asked of candles.m1, then `topics fix`")
async def _(op: Operator) -> None:
    await op.configure("candles.m1", "--add-config", "cleanup.policy=compact")
    await asyncio.to_thread(lambda: op.stack.run("topics", "fix", "--yes"))


@act("max.message.bytes of candles.m1 lowered for a while")
async def _(op: Operator) -> None:
    await op.configure("candles.m1", "--add-config", "max.message.bytes=10")
    await asyncio.sleep(3)
    await op.configure("candles.m1", "--delete-config", "max.message.bytes")


@act("max.message.bytes of ticks lowered for a while")
async def _(op: Operator) -> None:
    await op.configure("ticks", "--add-config", "max.message.bytes=1000000")
    await asyncio.sleep(2)
    await op.configure("ticks", "--add-config", "max.message.bytes=8388608")


@act("group of the sink deleted while it runs")
async def _(op: Operator) -> None:
    group = (await with_sink_group(op.settings)).sink_group
    said = await op.group("--group", group, "--delete", expect=None)
    assert "GroupNotEmpty" in said, said


async def _offsets_to(op: Operator, kind: str, *where: str) -> None:
    group = op.settings.stream_group if kind == "stream" else (await with_sink_group(op.settings)).sink_group
    topic = "ticks" if kind == "stream" else "candles.m1"
    names = op.named(kind)
    await op.stop(*names)
    await wait_until_empty(op.settings, lambda members, waited: None, group=group)
    await op.group("--group", group, "--topic", topic, "--reset-offsets", *where, "--execute")
    await op.start(*names)


@act("the sink's offsets moved to the end")
async def _(op: Operator) -> None:
    await _offsets_to(op, "sink", "--to-latest")


@act("the sink's offsets moved to the beginning")
async def _(op: Operator) -> None:
    await _offsets_to(op, "sink", "--to-earliest")


@act("the workers' offsets moved to the beginning")
async def _(op: Operator) -> None:
    await _offsets_to(op, "stream", "--to-earliest")


@act("the workers' offsets moved to the end", repair=True)
async def _(op: Operator) -> None:
    await _offsets_to(op, "stream", "--to-latest")


@act("the sink's offsets deleted while it is away")
async def _(op: Operator) -> None:
    group = (await with_sink_group(op.settings)).sink_group
    names = op.named("sink")
    await op.stop(*names)
    await wait_until_empty(op.settings, lambda members, waited: None, group=group)
    await op.group("--group", group, "--delete")
    await op.start(*names)


@act("partitions added to ticks, twice")
async def _(op: Operator) -> None:
    await op.topic("ticks", "--alter", "--partitions", "5")
    await asyncio.sleep(1)
    await op.topic("ticks", "--alter", "--partitions", "7")
    await asyncio.sleep(12)


@act("partitions added to candles.m1")
async def _(op: Operator) -> None:
    await op.topic("candles.m1", "--alter", "--partitions", "6")


@act("a leader elected, a reassignment to where it is")
async def _(op: Operator) -> None:
    about = ("--election-type", "preferred", "--all-topic-partitions")
    await op.tool("org.apache.kafka.tools.LeaderElectionCommand", *about)


@act("lines of text written to ticks, with and without a key")
async def _(op: Operator) -> None:
    await op.write_by_hand("ticks", "hello\nworld\n\n")
    await op.write_by_hand("ticks", "EURUSD:hello\n", "parse.key=true", "key.separator=:")


@act("a frame written to ticks by hand, without a key")
async def _(op: Operator) -> None:
    tick = (
        '{"v":1,"source":"Hand","symbol":"XAUUSD","mode":"bid","point":0.01,"request":"hand","received":1709510400000,'
    )
    await op.write_by_hand("ticks", tick + '"ticks":[[1709510400000,2000.5,2000.6,0.0,0.0,6]]}\n')


@act("lines of text written to candles.m1")
async def _(op: Operator) -> None:
    await op.write_by_hand("candles.m1", "hello\n{}\n")


@act("candles.m1 deleted")
async def _(op: Operator) -> None:
    await delete_topic(op.settings, "candles.m1")


@act("ticks.rejected and reference deleted")
async def _(op: Operator) -> None:
    await delete_topic(op.settings, "ticks.rejected")
    await delete_topic(op.settings, "reference")
