import random

from runtime.settings import load_settings
from sink.db.connection import connect
from sink.db.migrations import migrate
from sink.db.session import database_conninfo
from tests.integration.sink.db.history import assert_exact, insert, materialise_step, refresh, some_minutes
from tests.integration.sink.db.oracle import Day
from tests.integration.sink.flow import value

MATERIALISED = ("H1", "H4", "D1", "W1", "MN1")


async def test_what_is_not_materialised_is_read_at_once_and_materialised_step_by_step(empty_database: str) -> None:
    # Arrange: a history of which no hour is materialised
    dice = random.Random(3)
    stored = [bar for source in ("S", "T") for bar in some_minutes(dice, "EURUSD", source)]
    await migrate(empty_database)
    async with await connect(empty_database) as connection:
        await connection.execute(b"DEALLOCATE ALL")
        await insert(connection, stored)
        await connection.execute(b"DELETE FROM stale_hours")
        await connection.execute(b"UPDATE candle_settings SET materialised_from = 'infinity'")

        # Act and Assert
        await assert_exact(connection, stored, Day(), ("H1", "D1", "MN1"), dice)
        assert await refresh(connection) == 0
        steps = 1
        while await materialise_step(connection, days=3) != "-infinity":
            steps += 1
        assert steps > 5
        assert await value(connection, "SELECT count(*) FROM stale_hours") == 0
        assert await value(connection, "SELECT count(*) FROM candle_hours") > 1_000
        await assert_exact(connection, stored, Day(), MATERIALISED, dice)


async def test_a_database_without_rows_has_nothing_to_catch_up(empty_database: str) -> None:
    await migrate(empty_database)
    async with await connect(empty_database) as connection:
        assert await value(connection, "SELECT materialised_from::text FROM candle_settings") == "-infinity"


async def test_a_schema_of_our_own_though_the_extension_is_in_another(empty_database: str) -> None:
    async with await connect(empty_database) as connection:
        if await value(connection, "SELECT count(*) FROM pg_available_extensions WHERE name = 'timescaledb'"):
            await connection.execute(b"CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA public")
    own = database_conninfo(load_settings(database_schema="tickpipe"), empty_database)

    await migrate(own)

    async with await connect(own) as connection:
        assert await value(connection, "SELECT 'market_data'::regclass = 'tickpipe.market_data'::regclass")
        assert await value(connection, "SELECT to_regclass('public.market_data') IS NULL")
