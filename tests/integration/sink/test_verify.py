from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from runtime.settings import Settings
from sink.completeness import Key
from sink.db.connection import Connection
from sink.metrics import Metrics
from sink.verify import Difference, verify
from sink.writer import LogEnds, Writer
from tests.integration.sink.flow import Flow, value
from tests.unit.sink.candles import MINUTE, frame

MINUTE_UTC = datetime(2019, 2, 4, tzinfo=UTC)


@pytest.fixture
async def stored_minutes(settings: Settings, connection: Connection, flow: Flow) -> int:
    """Stores five minutes of twelve ticks each and returns their number."""
    logged = await flow.log_frames([frame(MINUTE + i * 15_000, 1.2 + i / 1000, count=3) for i in range(20)])
    writer = Writer(LogEnds(settings, flow.own_log), Metrics(CollectorRegistry()))
    await writer.write(connection, flow.candles(logged))
    return 5


async def test_what_was_folded_is_proven(settings: Settings, stored_minutes: int) -> None:
    totals: list[int] = []
    progress: list[int] = []
    report = await verify(settings, on_total=totals.append, on_progress=progress.append)
    assert (report.checked, report.equal, report.differences, report.unprovable, report.pending) == (5, 5, [], [], [])
    assert totals == [stored_minutes]
    assert sum(progress) == stored_minutes


@pytest.mark.usefixtures("stored_minutes")
async def test_a_tampered_row_is_found_and_mended(settings: Settings, connection: Connection) -> None:
    # Arrange
    high = await value(connection, "SELECT high FROM market_data WHERE ts = %s", MINUTE_UTC)
    await connection.execute(
        b"UPDATE market_data SET high = 9.5, first_tick = NULL, offsets = offsets WHERE ts = %s", [MINUTE_UTC]
    )

    # Act
    found = await verify(settings)
    repaired = await verify(settings, repair=True)
    after = await verify(settings)

    # Assert
    assert found.differences == [
        Difference("S", "EURUSD", MINUTE_UTC, "M1", "high", 9.5, high),
        Difference("S", "EURUSD", MINUTE_UTC, "M1", "first_tick", -1, MINUTE),
    ]
    assert (found.equal, found.repaired, repaired.repaired) == (4, 0, 1)
    assert (after.equal, after.differences) == (5, [])
    assert await value(connection, "SELECT high FROM market_data WHERE ts = %s", MINUTE_UTC) == high


@pytest.mark.usefixtures("stored_minutes")
async def test_a_selection_is_all_that_is_read(settings: Settings) -> None:
    of_time = await verify(settings, from_=MINUTE_UTC.replace(minute=1), to=MINUTE_UTC.replace(minute=3))
    assert of_time.checked == 2
    assert (await verify(settings, symbol="USDJPY")).checked == 0
    assert (await verify(settings, source="S", symbol="EURUSD")).checked == 5


@pytest.mark.usefixtures("stored_minutes")
async def test_unprovable_and_pending_candles_are_no_differences(settings: Settings, connection: Connection) -> None:
    # Arrange
    await connection.execute(
        b"UPDATE market_data SET log = 'elsewhere/ticks', high = 9 WHERE ts = %s", [MINUTE_UTC.replace(minute=1)]
    )
    await connection.execute(
        b"UPDATE market_data SET offsets = '{[0,1000000)}', high = 9 WHERE ts = %s", [MINUTE_UTC.replace(minute=2)]
    )
    await connection.execute(
        b"UPDATE market_data SET offsets = offsets + "
        b"int8multirange(int8range(log_position(500, 0), log_position(500, 1))) WHERE ts = %s",
        [MINUTE_UTC.replace(minute=3)],
    )
    await connection.execute(
        b"INSERT INTO pending_refolds SELECT source, symbol, timeframe, ts, log, offsets, closed "
        b"FROM market_data WHERE ts = %s",
        [MINUTE_UTC],
    )

    # Act
    report = await verify(settings)

    # Assert
    assert report.differences == []
    assert (report.checked, report.equal) == (1, 1)
    assert report.pending == [Key("S", "EURUSD", MINUTE_UTC, "M1")]
    assert sorted(key.ts.minute for key in report.unprovable) == [1, 2, 3]


async def test_offsets_without_a_tick_of_the_minute_are_a_difference(
    settings: Settings, connection: Connection, stored_minutes: int
) -> None:
    await connection.execute(
        b"UPDATE market_data SET offsets = '{[0,1)}' WHERE ts = %s", [MINUTE_UTC.replace(minute=3)]
    )
    report = await verify(settings)
    assert [(d.field, d.stored, d.folded) for d in report.differences] == [("candle", 12, None)]
    assert report.checked == stored_minutes


@pytest.mark.usefixtures("stored_minutes")
async def test_repair_folds_from_the_log_whatever_a_row_claims(settings: Settings, connection: Connection) -> None:
    # Arrange
    query = "SELECT array_agg((high, volume, log, offsets)::text ORDER BY ts) FROM market_data"
    before = await value(connection, query)
    claims = [
        "offsets = '{[0,1000000000)}'",  # far beyond the end of the log
        "offsets = int8multirange(int8range(log_position(900, 0), log_position(900, 5)))",  # a partition that is not
        "offsets = '{[19,20)}'",  # a record that is none of this minute
        "log = 'elsewhere/ticks'",
    ]
    for minute, claim in enumerate(claims):
        await connection.execute(
            f"UPDATE market_data SET high = 9, volume = 9000000000, {claim} WHERE ts = %s".encode(),  # noqa: S608
            [MINUTE_UTC.replace(minute=minute)],
        )

    # Act
    repaired = (await verify(settings, repair=True)).repaired
    distrusted = (await verify(settings, repair=True, distrust=True)).repaired

    # Assert: a fold of another log may hold what this one has never had, so it is replaced only when that is asked for.
    assert (repaired, distrusted) == (3, 1)
    after = await verify(settings)
    assert (after.equal, after.differences, after.unprovable) == (5, [], [])
    assert await value(connection, query) == before
