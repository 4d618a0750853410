import random

import pytest

from sink.db.connection import Connection
from sink.db.schema import edition, set_compression, storage
from sink.writer import Writer
from tests.integration.sink.db.editions import every_edition
from tests.integration.sink.db.history import assert_exact, delete, insert, refresh, some_minutes, stale_hours
from tests.integration.sink.db.oracle import Day
from tests.integration.sink.fixed import new_writer
from tests.integration.sink.flow import value
from tests.unit.sink.candles import MINUTE, candle


@every_edition
async def test_sizes_are_told_on_every_edition(connection: Connection) -> None:
    dice = random.Random(3)
    await insert(connection, list(some_minutes(dice, "EURUSD", "S")))
    found = await storage(connection)
    assert min(found.market_data_bytes, found.candle_bytes, found.broker_bars_bytes) > 8_000
    if (await edition(connection)).startswith("timescaledb"):
        assert (found.chunks or 0) > 3
        assert found.compressed_chunks == 0
    else:
        assert (found.chunks, found.compressed_chunks, found.policies) == (None, None, [])


@every_edition
async def test_compression_is_set_changed_and_taken_back(connection: Connection) -> None:
    community = (await edition(connection)).startswith("timescaledb community")
    for days in (90, 90, 30, 0, 0, 7):
        await set_compression(connection, days)
        found = (await storage(connection)).policies
        if not community or days == 0:
            assert found == []
        else:
            assert len(found) == 1
            assert f'"compress_after": "{days} days"' in found[0][2]


@every_edition
async def test_compressed_candles_can_still_change(connection: Connection) -> None:
    """Late ticks, a minute that closes, a repair and deletes, in chunks that are compressed."""
    if not (await edition(connection)).startswith("timescaledb community"):
        pytest.skip("only TimescaleDB's community edition compresses")
    # Arrange
    dice = random.Random(3)
    stored = {bar[:3]: bar for bar in some_minutes(dice, "EURUSD", "T")}
    await insert(connection, list(stored.values()))
    writer: Writer = new_writer(appends=False)
    await writer.write(connection, [candle(((10, 19),), ts=MINUTE + n * 60_000) for n in range(30)])
    await set_compression(connection, 30)
    await connection.execute(b"SELECT compress_chunk(c) FROM show_chunks('market_data') AS c")
    await refresh(connection)
    assert (await storage(connection)).compressed_chunks == (await storage(connection)).chunks

    # Act: what the sink does
    actions = await writer.write(
        connection,
        [
            candle(((10, 25),), ts=MINUTE, volume=16, high=1.5),  # contains the stored
            candle(((12, 15),), ts=MINUTE + 60_000, closed=True),  # is contained, and knows the minute is over
            candle(((30, 31),), ts=MINUTE + 120_000),  # lies elsewhere
            candle(((10, 19),), ts=MINUTE + 180_000),  # equal
            candle(((10, 19),), ts=MINUTE + 30 * 60_000),  # new
        ],
    )
    # and people do
    for key in dice.sample(sorted(stored), 10):
        await delete(connection, key)
        stored.pop(key)
    changed = [bar._replace(high=3_000.5) for bar in dice.sample(sorted(stored.values()), 10)]
    await insert(connection, changed)
    stored |= {bar[:3]: bar for bar in changed}

    # Assert
    assert {verdict: count for verdict, count in actions.items() if count} == {
        "replaced": 1, "closed": 1, "refold": 1, "ignored": 1, "inserted": 1,
    }  # fmt: skip
    assert await stale_hours(connection) > 10
    query = "SELECT (high, volume) = (1.5, 16 + 10 * 30) FROM candles_h1 WHERE source = 'S'"
    assert await value(connection, query) is True
    second = "SELECT closed FROM market_data WHERE source = 'S' AND ts = '2019-02-04 00:01+00'"
    assert await value(connection, second) is True
    for _ in ("marked", "materialised"):
        await connection.execute(b"DELETE FROM market_data WHERE source = 'S'")
        await assert_exact(connection, stored.values(), Day(), ("M30", "H1", "D1"), dice)
        await refresh(connection)
