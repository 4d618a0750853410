"""`verify --complete` finds what the log holds and the table does not, wherever the records lie."""

from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from marketdata.coverage import Coverage
from marketdata.offsets import position
from marketdata.refold import BRIDGE_RECORDS
from marketdata.tick import Frame
from marketdata.wire import encode, frame_key
from runtime.logreader import wait_for_log
from runtime.settings import Settings
from sink.completeness import Key
from sink.db.connection import Connection
from sink.metrics import Metrics
from sink.verify import verify
from sink.writer import LogEnds, Writer
from tests.integration.sink.flow import Flow, value
from tests.unit.sink.candles import MINUTE, bar_of_minute, frame
from tickpipe.replay.engine import set_offsets

MINUTE_UTC = datetime.fromtimestamp(MINUTE / 1000, UTC)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Topics of two partitions."""
    return settings.model_copy(update={"kafka_partitions": 2})


@pytest.fixture
def writer(settings: Settings, url: str, flow: Flow) -> Writer:
    assert url
    return Writer(LogEnds(settings, flow.own_log), Metrics(CollectorRegistry()))


async def log_to(flow: Flow, partition: int, *frames: Frame) -> None:
    for one in frames:
        await flow.producer.send_and_wait(
            flow.settings.ticks_topic, encode(one), key=frame_key(one.source, one.symbol), partition=partition
        )


def key(minute: int) -> Key:
    return Key("S", "EURUSD", MINUTE_UTC + timedelta(minutes=minute), "M1")


async def test_missing_minutes_are_found_and_stored(
    settings: Settings, connection: Connection, flow: Flow, writer: Writer
) -> None:
    # Arrange: of five minutes the second has no row, the third only the broker's bar, the fifth no price
    frames = [frame(MINUTE + n * 60_000, 1.1 + n / 10, count=3) for n in range(4)]
    logged = await flow.log_frames([*frames, frame(MINUTE + 4 * 60_000, 0.0)])
    candles = flow.candles(logged[:4])
    await writer.write(connection, [candles[0], candles[3]], [bar_of_minute(MINUTE + 2 * 60_000)])

    # Act
    found = await verify(settings, complete=True)
    some = await verify(settings, complete=True, from_=key(2).ts, to=key(3).ts)
    repaired = await verify(settings, complete=True, repair=True)
    after = await verify(settings, complete=True)

    # Assert
    assert (found.missing, found.differences, found.repaired) == ([key(1), key(2)], [], 0)
    assert some.missing == [key(2)]
    assert (repaired.missing, repaired.repaired) == (found.missing, 2)
    assert (after.missing, after.equal) == ([], 4)
    assert await value(connection, "SELECT count(*) FROM market_data WHERE origin = 'ticks' AND closed") == 4


async def test_a_frame_that_began_hours_before_what_is_asked_for_is_found(
    settings: Settings, flow: Flow, writer: Writer
) -> None:
    """The time index names a frame's first tick, or its arrival when its source's clock is ahead."""
    # Arrange: two frames whose times in the index are long before minute 300, behind one that is over by then
    hours_long, from_ahead = frame(MINUTE, 1.1), frame(MINUTE + 300 * 60_000, 1.3)
    hours_long.ticks = [*hours_long.ticks, *from_ahead.ticks]
    for one, time_ms in ((frame(MINUTE, 1.2), MINUTE), (hours_long, MINUTE), (from_ahead, MINUTE + 60_000)):
        await flow.producer.send_and_wait(
            settings.ticks_topic, encode(one), key=frame_key(one.source, one.symbol), partition=0, timestamp_ms=time_ms
        )

    # Act
    found = await verify(settings, complete=True, from_=key(300).ts)

    # Assert
    assert writer is not None
    assert found.missing == [key(300)]


async def test_a_minute_in_two_partitions_of_which_the_row_holds_one(
    settings: Settings, connection: Connection, flow: Flow, writer: Writer
) -> None:
    # Arrange: three ticks in one partition, two in the other; the row is the fold of the first
    logged = await flow.log_frames([frame(MINUTE, 1.1, count=3)])
    await log_to(flow, 1, frame(MINUTE + 500, 1.0), frame(MINUTE + 600, 1.3))
    (half,) = flow.candles(logged)
    await writer.write(connection, [half])

    # Act
    stored_alone = await verify(settings)
    found = await verify(settings, complete=True, repair=True)
    after = await verify(settings, complete=True)

    # Assert: what is stored equals its proof, yet lacks records
    assert (stored_alone.equal, stored_alone.differences) == (1, [])
    assert (found.missing, found.repaired) == ([key(0)], 1)
    assert (after.missing, after.equal) == ([], 1)
    assert await value(connection, "SELECT volume FROM market_data") == 5
    assert await value(connection, "SELECT count(*) FROM market_data, proof_ranges(offsets)") == 2


async def test_what_is_on_its_way_is_not_missing(
    settings: Settings, connection: Connection, flow: Flow, writer: Writer
) -> None:
    # Arrange: the workers have committed the first record; of the second a refold is waited for
    logged = await flow.log_frames([frame(MINUTE, 1.1), frame(MINUTE + 60_000, 1.2), frame(MINUTE + 120_000, 1.2)])
    await writer.write(connection, flow.candles(logged[:1]))
    await connection.execute(
        b"INSERT INTO pending_refolds SELECT source, symbol, timeframe, ts + interval '1 minute', log, '{[1,2)}', true"
        b" FROM market_data"
    )
    await set_offsets(settings, settings.stream_group, {TopicPartition(settings.ticks_topic, 0): 2})

    # Act and Assert
    assert (await verify(settings, complete=True)).missing == []
    await set_offsets(settings, settings.stream_group, {TopicPartition(settings.ticks_topic, 0): 3})
    assert (await verify(settings, complete=True)).missing == [key(2)]


async def test_rows_of_a_log_that_is_gone_are_no_holes(
    settings: Settings, connection: Connection, flow: Flow, writer: Writer
) -> None:
    logged = await flow.log_frames([frame(MINUTE, 1.1)])
    await writer.write(connection, flow.candles(logged))
    await connection.execute(b"UPDATE market_data SET log = 'gone/ticks'")

    report = await verify(settings, complete=True)

    assert (report.missing, report.unprovable) == ([], [key(0)])
    assert await wait_for_log(settings) == flow.own_log


def test_coverage_names_every_record_and_keeps_what_may_be_touched_again() -> None:
    coverage = Coverage(60_000)
    early = [(position(1, offset), frame(MINUTE + offset * 10_000, 1.1)) for offset in (0, 1, 4)]
    coverage.feed(early)
    assert coverage.settled() == {}

    coverage.feed([(position(1, BRIDGE_RECORDS + 5), frame(MINUTE + 60_000, 1.1))])
    assert coverage.settled() == {("S", "EURUSD", MINUTE): ((1, 0, 1), (1, 4, 4))}
    assert coverage.rest() == {("S", "EURUSD", MINUTE + 60_000): ((1, BRIDGE_RECORDS + 5, BRIDGE_RECORDS + 5),)}
    assert len(coverage) == 0
