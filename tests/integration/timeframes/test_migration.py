import random
from itertools import takewhile

import pytest

from sink.database import Connection, connect
from sink.edition import edition
from sink.migrations import migrate, migration_files
from sink.statements import SQL
from sink.storage import set_compression
from tests.integration.sink.fixed import new_writer
from tests.integration.sink.flow import value
from tests.integration.timeframes.history import assert_exact, insert, keep_step, refresh, some_minutes
from tests.integration.timeframes.oracle import Day
from tests.unit.sink.candles import MINUTE, candle

KEPT = ("H1", "H4", "D1", "W1", "MN1")


async def test_rows_from_before_are_folded_at_once_and_kept_by_and_by(empty_database: str) -> None:
    # Arrange: a database of the first version, with a history
    dice = random.Random(3)
    stored = [bar for source in ("S", "T") for bar in some_minutes(dice, "EURUSD", source)]
    async with await connect(empty_database) as connection:
        await migrate_before(connection, "0002_timeframes.sql")
        await insert(connection, stored)

    # Act
    assert "0001_market_data.sql" not in await migrate(empty_database)

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


async def migrate_before(connection: Connection, name: str) -> None:
    """The schema as it was before the migration `name`."""
    await connection.execute(SQL["create_schema_migrations"])
    for earlier in takewhile(lambda each: each != name, migration_files()):
        await connection.execute(migration_files()[earlier])
        await connection.execute(SQL["record_migration"], {"name": earlier})


async def test_a_column_comes_to_chunks_that_are_compressed(empty_database: str) -> None:
    # Arrange
    async with await connect(empty_database) as connection:
        if not (await edition(connection)).startswith("timescaledb community"):
            pytest.skip("only TimescaleDB's community edition compresses")
        await connection.execute(b"DEALLOCATE ALL")
        await migrate_before(connection, "0007_folded_at.sql")
        await insert(connection, list(some_minutes(random.Random(3), "EURUSD", "T")))
        await set_compression(connection, 30)
        await connection.execute(b"SELECT compress_chunk(c) FROM show_chunks('market_data') AS c")

    # Act
    await migrate(empty_database)

    # Assert
    async with await connect(empty_database) as connection:
        await connection.execute(b"DEALLOCATE ALL")
        assert await value(connection, "SELECT count(folded_at) FROM market_data") == 0
        writer = new_writer(use_copy=False)
        await writer.write(connection, [candle(((10, 19),), ts=MINUTE + n * 60_000) for n in range(3)])
        await writer.write(connection, [candle(((10, 29),), ts=MINUTE)])
        assert await value(connection, "SELECT count(folded_at) FROM market_data") == 3


async def test_a_database_without_rows_has_nothing_to_catch_up(empty_database: str) -> None:
    await migrate(empty_database)
    async with await connect(empty_database) as connection:
        assert await value(connection, "SELECT kept_from::text FROM candle_settings") == "-infinity"
