"""The guard of the sink against a consumer that skips records: committed over they would be lost without a sign."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError
from prometheus_client import CollectorRegistry

from marketdata.errors import MissedRecords
from marketdata.runs import Record
from marketdata.wire import candle_key, encode
from runtime.aiokafka_internals import rejoin_group
from runtime.kafka import log_ends, new_consumer, new_producer
from runtime.settings import Settings
from sink.commits import Revocations
from sink.db.connection import Connection, Database
from sink.metrics import Metrics
from sink.progress import Positions, advance
from sink.service import Sink
from tests.integration.sink.flow import Flow, RunningSink, value
from tests.kafka_log import group_lag
from tests.unit.sink.candles import MINUTE, candle
from tests.waiting import PATIENCE_SECONDS, eventually

Polled = tuple[AIOKafkaConsumer, TopicPartition, list[Record]]


@asynccontextmanager
async def polled(
    settings: Settings, flow: Flow
) -> AsyncIterator[tuple[AIOKafkaConsumer, TopicPartition, list[Record]]]:
    """A consumer of the group, and what it read: offsets 0 to 2 and 4 to 6, with a transaction's marker at 3."""
    candles = [candle(ts=MINUTE + i * 60_000, log=flow.own_log) for i in range(6)]
    await flow.send_candles(candles[:2])
    tp = TopicPartition(settings.candles_topic, 0)
    foreign = new_producer(settings, transactional_id=uuid.uuid4().hex)
    await foreign.start()
    async with foreign.transaction():
        await foreign.send_and_wait(tp.topic, encode(candles[2]), key=candle_key(candles[2]), partition=0)
    await foreign.stop()
    # The broker says that a transaction is over before its marker is in the log.
    while (await log_ends(settings, tp.topic))[0][1] < 4:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.05)
    await flow.send_candles(candles[3:])
    consumer = new_consumer(settings, group_id=settings.sink_group, auto_offset_reset="earliest")
    consumer.subscribe([tp.topic])
    await consumer.start()
    try:
        records: list[Record] = []
        while len(records) < 6:
            records += (await consumer.getmany(timeout_ms=1000)).get(tp, [])
        assert [record.offset for record in records] == [0, 1, 2, 4, 5, 6]
        yield consumer, tp, records
    finally:
        await consumer.stop()


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    opened = Database(url, asyncio.Event())
    yield opened
    await opened.close()


async def begun(settings: Settings, consumer: AIOKafkaConsumer, database: Database) -> Positions:
    positions = Positions(settings, Metrics(CollectorRegistry()), asyncio.Event())
    await positions.begin(consumer, database)
    assert not positions.unknown(consumer)
    return positions


async def test_a_poll_that_skips_a_record_is_refused(settings: Settings, flow: Flow, database: Database) -> None:
    async with polled(settings, flow) as (consumer, tp, records):
        positions = await begun(settings, consumer, database)
        span = await positions.take(tp, records[:2])
        assert span is not None
        assert span[1:] == (0, 0, 2)
        with pytest.raises(MissedRecords, match="offsets 2 to 3"):
            await positions.take(tp, records[3:])


async def test_a_first_poll_that_begins_after_the_progress_is_refused(
    settings: Settings, flow: Flow, database: Database
) -> None:
    async with polled(settings, flow) as (consumer, tp, records):
        positions = await begun(settings, consumer, database)
        with pytest.raises(MissedRecords, match="offsets 0 to 1"):
            await positions.take(tp, records[2:])


async def test_a_marker_is_no_missed_record(settings: Settings, flow: Flow, database: Database) -> None:
    async with polled(settings, flow) as (consumer, tp, records):
        positions = await begun(settings, consumer, database)
        for part, offsets in ((records[:3], (0, 3)), (records[3:], (3, 7))):
            span = await positions.take(tp, part)
            assert span is not None
            assert (span.first, span.next) == offsets


async def test_records_from_before_the_position_begin_the_partition_again(
    settings: Settings, flow: Flow, database: Database
) -> None:
    async with polled(settings, flow) as (consumer, tp, records):
        positions = await begun(settings, consumer, database)
        await positions.take(tp, records[:3])
        assert await positions.take(tp, records[1:]) is None
        assert positions.unknown(consumer) == {tp}


async def test_after_a_rebalance_reading_begins_at_the_smaller_of_progress_and_commit(
    settings: Settings, flow: Flow, database: Database
) -> None:
    async with polled(settings, flow) as (consumer, tp, records):
        positions = await begun(settings, consumer, database)
        span = await positions.take(tp, records[:4])
        assert span is not None
        await database.run(partial(advance, spans=[span]))
        for committed, expected in ((2, 2), (7, span.next)):
            positions.forget()
            assert await positions.take(tp, records) is None
            await consumer.commit({tp: committed})
            await positions.begin(consumer, database)
            assert await consumer.position(tp) == expected


@pytest.fixture
def committed(settings: Settings) -> Callable[[], Awaitable[bool]]:
    """Whether the sinks have committed all candles."""

    async def ask() -> bool:
        return await group_lag(settings, settings.sink_group, settings.candles_topic) == 0

    return ask


async def test_an_idle_sink_commits_what_another_has_stored(
    settings: Settings,
    flow: Flow,
    connection: Connection,
    committed: Callable[[], Awaitable[bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kafka forgets the offsets of a group that was away for a week, and no tick may come to commit another."""

    async def refuse(*_: object) -> None:
        raise CommitFailedError

    async def stored() -> bool:
        return bool(await value(connection, "SELECT count(*) FROM market_data") == 4)

    with monkeypatch.context() as patched:
        patched.setattr(AIOKafkaConsumer, "commit", refuse)
        async with RunningSink(settings):
            await flow.send_candles(candle(ts=MINUTE + i * 60_000, log=flow.own_log) for i in range(4))
            await eventually(stored)

    async with RunningSink(settings):
        await eventually(committed, within_seconds=30)


async def test_a_commit_that_a_rebalance_overtakes_leaves_none_out(
    settings: Settings, flow: Flow, committed: Callable[[], Awaitable[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer came when the same records had been read and stored again, and was taken for theirs."""
    # Arrange: a commit that is under way while its consumer joins the group again
    commit, assigned = AIOKafkaConsumer.commit, Revocations.on_partitions_assigned
    overtaken, joined = asyncio.Event(), asyncio.Event()

    async def overtaking(consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
        if overtaken.is_set() or offsets.get(TopicPartition(settings.candles_topic, 0)) != 4:
            await commit(consumer, offsets)
            return
        overtaken.set()
        await rejoin_group(consumer)
        await asyncio.wait_for(joined.wait(), PATIENCE_SECONDS)
        await asyncio.sleep(2)
        raise CommitFailedError

    def noted(listener: Revocations, partitions: set[TopicPartition]) -> None:
        assigned(listener, partitions)
        if overtaken.is_set():
            joined.set()

    monkeypatch.setattr(AIOKafkaConsumer, "commit", overtaking)
    monkeypatch.setattr(Revocations, "on_partitions_assigned", noted)
    candles = [candle(ts=MINUTE + i * 60_000, log=flow.own_log) for i in range(4)]

    async with RunningSink(settings):
        await flow.send_candles(candles[:1])
        await eventually(committed)

        # Act
        await flow.send_candles(candles[1:])
        await asyncio.wait_for(joined.wait(), PATIENCE_SECONDS)

        # Assert
        await eventually(committed, within_seconds=30)


async def test_a_sink_that_skipped_records_ends_before_it_commits_over_them(
    settings: Settings,
    connection: Connection,
    flow: Flow,
    committed: Callable[[], Awaitable[bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Arrange: a sink that has stored and committed one candle
    candles = [candle(ts=MINUTE + i * 60_000, log=flow.own_log) for i in range(4)]
    made: list[AIOKafkaConsumer] = []

    def remembered(*args: Any, **options: Any) -> AIOKafkaConsumer:
        made.append(new_consumer(*args, **options))
        return made[-1]

    monkeypatch.setattr("sink.service.new_consumer", remembered)

    running = asyncio.create_task(Sink(settings).run())
    await flow.send_candles(candles[:1])
    await eventually(committed)

    # Act: its consumer skips two
    made[0].seek(TopicPartition(settings.candles_topic, 0), 3)
    await flow.send_candles(candles[1:])
    with pytest.raises(MissedRecords, match="offsets 1 to 2"):
        await asyncio.wait_for(running, PATIENCE_SECONDS)
    assert await group_lag(settings, settings.sink_group, settings.candles_topic) == 3

    # Assert: the next one stores all of them
    sink = Sink(settings)
    running = asyncio.create_task(sink.run())
    await eventually(committed)
    sink.stop()
    await running
    assert await value(connection, "SELECT count(*) FROM market_data") == 4
