"""The ticks that are read from the log fold to the stored candles, minute by minute."""

import random
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from marketdata.candle import Candle
from marketdata.offsets import normalized, position
from marketdata.refold import Proof, Refold
from marketdata.tick import Frame, Tick
from marketdata.wire import encode, frame_key
from runtime.kafka import admin_client
from runtime.settings import Settings
from sink.db.connection import Connection
from sink.metrics import Metrics
from sink.refolds import proven_candle
from sink.ticks import TickBatch, TickRange, TickReader, missing_spans
from sink.writer import LogEnds, Writer
from tests import oracle
from tests.integration.sink.flow import Flow
from tests.unit.marketdata.test_ticks import naive_candle
from tests.unit.sink.candles import MINUTE, frame
from tickpipe.replay.engine import set_offsets

WANTED = TickRange("S", "EURUSD", MINUTE, MINUTE + 10 * 60_000)

Log = list[tuple[int, Frame]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Topics of two partitions."""
    return settings.model_copy(update={"kafka_partitions": 2})


async def log_to(flow: Flow, partition: int, frames: list[Frame]) -> Log:
    sent = [
        await flow.producer.send(
            flow.settings.ticks_topic, encode(one), key=frame_key(one.source, one.symbol), partition=partition
        )
        for one in frames
    ]
    return [(position(partition, (await each).offset), one) for each, one in zip(sent, frames, strict=True)]


async def store(settings: Settings, connection: Connection, flow: Flow, log: Log) -> dict[int, Candle]:
    """Write the candles of this log as the sink does once it has folded all of it; those of EURUSD by minute."""
    proofs = [Proof(*key, normalized(ranges)) for key, ranges in oracle.minutes_in(log).items()]
    refold = Refold(proofs)
    refold.feed(log)
    made = [proven_candle(fold, p.ranges, flow.own_log, closed=True) for p, fold in refold.results().items()]
    candles = [candle for candle in made if candle is not None]
    await Writer(LogEnds(settings, flow.own_log), Metrics(CollectorRegistry())).write(connection, candles)
    return {candle.ts: candle for candle in candles if candle.symbol == "EURUSD"}


async def commit(settings: Settings, *offsets: int) -> None:
    """Let the workers have folded the partitions up to these offsets."""
    tps = [TopicPartition(settings.ticks_topic, partition) for partition in range(len(offsets))]
    await set_offsets(settings, settings.stream_group, dict(zip(tps, offsets, strict=True)))


async def read(
    settings: Settings, connection: Connection, wanted: TickRange = WANTED, **options: Any
) -> list[TickBatch]:
    @asynccontextmanager
    async def reading() -> Any:
        yield connection

    async with TickReader(settings, reading, wanted, **options) as reader:
        return [minute async for minute in reader.batches()]


def minutes_of_frames(*numbers: int, count: int = 5) -> list[Frame]:
    return [frame(MINUTE + n * 30_000, 1.1 + n / 1000, count=count) for n in numbers]


def unpriced(time_msc: int) -> Frame:
    return Frame(
        v=1, source="S", symbol="EURUSD", mode="bid", point=None, request="r", received=time_msc,
        ticks=[Tick(time_msc + n, 0.0, 0.0, 0.0, 0.0, 6) for n in range(2)],
    )  # fmt: skip


def naive(minute: TickBatch) -> tuple[Any, ...] | None:
    return naive_candle(list(minute.rows), "bid")


def values(candle: Candle) -> tuple[Any, ...]:
    return candle.open, candle.high, candle.low, candle.close, candle.volume, candle.real_volume


async def test_each_tick_once_as_the_candles_count_them(settings: Settings, connection: Connection, flow: Flow) -> None:
    """Two producers that partition differently, requests sent again, late ticks, another symbol in between."""
    # Arrange
    other = [replace(one, symbol="USDJPY") for one in minutes_of_frames(0, 3, 6)]
    early, late = minutes_of_frames(*range(8)), minutes_of_frames(8, 9, 10, 11)
    behind = [frame(MINUTE + 45_000, 1.05, count=2)]
    log = [
        *await log_to(flow, 0, [*early[:5], *early[2:5], other[0], *early[5:], other[1], *behind]),
        *await log_to(flow, 1, [*late, other[2], *late[1:3]]),
    ]
    stored = await store(settings, connection, flow, log)
    await commit(settings, len(log), len(log))

    # Act
    whole = await read(settings, connection)
    in_small_passes = await read(settings, connection, pass_ticks=7)
    raw = await read(settings, connection, raw=True)
    part = TickRange("S", "EURUSD", MINUTE + 30_002, MINUTE + 60_001)
    parts = [row for minute in await read(settings, connection, part) for row in minute.rows]

    # Assert
    assert {minute.ts: naive(minute) for minute in whole} == {ts: values(c) for ts, c in sorted(stored.items())}
    assert len(stored) == 6
    assert in_small_passes == whole
    expected = [(at, n) for at, one in log if one.symbol == "EURUSD" for n in range(len(one.ticks))]
    assert sorted((position(*row[6:8]), row[8]) for minute in raw for row in minute.rows) == sorted(expected)
    assert parts == [row for minute in whole for row in minute.rows if part.first_ms <= row[0] < part.end_ms]
    assert len(parts) == 3 + 2 + 1


@pytest.mark.parametrize("is_committed", [True, False])
async def test_what_is_not_stored_yet_comes_from_the_end_of_the_log(
    settings: Settings, connection: Connection, flow: Flow, is_committed: bool
) -> None:
    """Also where no worker has ever committed, and ticks without any price, which have no candle."""
    # Arrange: the third minute is half stored
    log = await log_to(flow, 0, minutes_of_frames(0, 1, 2, 3, 4))
    await store(settings, connection, flow, log)
    if is_committed:
        await commit(settings, 4, 0)
    log += await log_to(flow, 0, [*minutes_of_frames(4, 5, 6), unpriced(MINUTE + 5 * 60_000)])

    # Act
    found = await read(settings, connection)

    # Assert
    assert [(minute.ts - MINUTE) // 60_000 for minute in found] == [0, 1, 2, 3, 5]
    assert [len(minute.rows) for minute in found] == [10, 10, 10, 5, 2]


async def test_minutes_that_the_log_lost_are_said(settings: Settings, connection: Connection, flow: Flow) -> None:
    # Arrange: the first two minutes lose records, the last one is of another log
    log = await log_to(flow, 0, minutes_of_frames(*range(8)))
    await store(settings, connection, flow, log)
    await commit(settings, len(log), 0)
    await connection.execute(
        b"UPDATE market_data SET log = 'elsewhere' WHERE ts = to_timestamp(%s)", [MINUTE // 1000 + 180]
    )
    async with admin_client(settings) as client:
        await client.delete_records({TopicPartition(settings.ticks_topic, 0): RecordsToDelete(before_offset=3)})

    # Act
    found = await read(settings, connection)

    # Assert
    assert [(len(minute.rows), minute.is_gone) for minute in found] == [(0, True), (0, True), (10, False), (0, True)]
    assert missing_spans(minute.ts for minute in found if minute.is_gone) == [
        (MINUTE, MINUTE + 2 * 60_000), (MINUTE + 3 * 60_000, MINUTE + 4 * 60_000),
    ]  # fmt: skip


async def test_any_flow_of_resends_folds_to_what_is_stored(
    settings: Settings, connection: Connection, flow: Flow
) -> None:
    """As above, by chance: which requests are sent again, when, and by which producer."""
    rng = random.Random(20190204)
    frames = minutes_of_frames(*range(16), count=7)
    again = sorted([*frames, *rng.choices(frames, k=20)], key=lambda one: one.ticks[0].time_msc + rng.randrange(90_000))
    log: Log = []
    for partition in (0, 1):
        log += await log_to(flow, partition, [one for one in again if rng.random() < 0.7])
    stored = await store(settings, connection, flow, log)
    await commit(settings, len(log), len(log))

    found = await read(settings, connection)

    assert {minute.ts: naive(minute) for minute in found} == {ts: values(c) for ts, c in sorted(stored.items())}
