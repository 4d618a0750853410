import random

from sink.database import connect
from sink.migrations import migrate, migration_files
from sink.statements import SQL
from tests.integration.sink.flow import value
from tests.integration.timeframes.history import assert_exact, insert, keep_step, refresh, some_minutes
from tests.integration.timeframes.oracle import Day

KEPT = ("H1", "H4", "D1", "W1", "MN1")


async def test_rows_from_before_are_folded_at_once_and_kept_by_and_by(empty_database: str) -> None:
    # Arrange: a database of the first version, with a history
    dice = random.Random(3)
    stored = [bar for source in ("S", "T") for bar in some_minutes(dice, "EURUSD", source)]
    async with await connect(empty_database) as connection:
        await connection.execute(SQL["create_schema_migrations"])
        name, sql = next(iter(migration_files().items()))
        await connection.execute(sql)
        await connection.execute(SQL["record_migration"], {"name": name})
        await insert(connection, stored)

    # Act
    assert name not in await migrate(empty_database)

    # Assert
    async with await connect(empty_database) as connection:
        await connection.execute(b"DEALLOCATE ALL")
        assert await value(connection, "SELECT kept_from::text FROM candle_settings") == "infinity"
        await assert_exact(connection, stored, Day(), ("H1", "D1", "MN1"), dice)
        assert await refresh(connection) == 0
        steps = 1
        while await keep_step(connection, days=3) != "-infinity":
            steps += 1
        assert steps > 5
        assert await value(connection, "SELECT count(*) FROM candle_marks") == 0
        assert await value(connection, "SELECT count(*) FROM candle_hours") > 1_000
        await assert_exact(connection, stored, Day(), KEPT, dice)


async def test_a_database_without_rows_has_nothing_to_catch_up(empty_database: str) -> None:
    await migrate(empty_database)
    async with await connect(empty_database) as connection:
        assert await value(connection, "SELECT kept_from::text FROM candle_settings") == "-infinity"
