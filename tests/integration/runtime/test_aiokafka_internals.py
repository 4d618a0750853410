"""What runtime/aiokafka_internals.py relies on; of clients that end without a broker, see `test_without_kafka.py`."""

import asyncio
import gc
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords

from marketdata.runs import Record
from runtime.aiokafka_internals import bracket_fetches, group_error, hand_out_bare_records, partitions_of
from runtime.kafka import log_ends, new_consumer, new_producer
from runtime.settings import Settings
from tests.kafka_log import KafkaLog
from tests.waiting import eventually

pytestmark = pytest.mark.contract

#: Offset, time, its type, key, value, headers.
Seen = tuple[int, int, int, bytes | None, bytes | None, list[tuple[str, bytes]]]


@asynccontextmanager
async def reader(settings: Settings, *, bare: bool, isolation: str = "read_uncommitted") -> AsyncIterator["Reader"]:
    consumer = new_consumer(settings, isolation_level=isolation)
    await consumer.start()
    try:
        if bare:
            hand_out_bare_records(consumer)
        tp = TopicPartition(settings.ticks_topic, 0)
        consumer.assign([tp])
        yield Reader(consumer, tp, (await log_ends(settings, settings.ticks_topic))[0][1])
    finally:
        await consumer.stop()


class Reader:
    """Of partition 0 of the ticks topic."""

    def __init__(self, consumer: AIOKafkaConsumer, tp: TopicPartition, end: int) -> None:
        self.consumer = consumer
        self.end = end
        self._tp = tp

    async def read(self, start: int, limits: random.Random | None = None) -> list[list[Record]]:
        """The polls from an offset to the end, each of so many records at most."""
        self.consumer.seek(self._tp, start)
        polls = []
        while await self.consumer.position(self._tp) < self.end:
            limit = limits.choice([1, 2, 3, 7, 50, 1_000]) if limits else None
            poll = (await self.consumer.getmany(self._tp, timeout_ms=500, max_records=limit)).get(self._tp, [])
            assert limit is None or len(poll) <= limit
            polls.append(poll)
        return polls


def seen(polls: list[list[Record]]) -> list[Seen]:
    return [
        (record.offset, record.timestamp, record.timestamp_type, record.key, record.value, list(record.headers))
        for poll in polls
        for record in poll
    ]


async def fill(settings: Settings, kafka: KafkaLog, rng: random.Random) -> None:
    """Batches of all sizes, plain, compressed and in transactions, so that the log has holes; a marker ends it."""
    async with (
        new_producer(settings, compression_type="lz4", linger_ms=20) as packed,
        new_producer(settings, transactional_id=settings.ticks_topic, linger_ms=20) as foreign,
    ):
        for _ in range(12):
            await send(kafka.producer, settings, rng)
            await send(packed, settings, rng)
            await foreign.begin_transaction()
            await send(foreign, settings, rng)
            await (foreign.abort_transaction() if rng.random() < 0.5 else foreign.commit_transaction())


async def send(producer: AIOKafkaProducer, settings: Settings, rng: random.Random) -> None:
    sent = []
    for _ in range(rng.choice([1, 1, 2, 30, 300])):
        key, value = rng.choice([(b"k", b"x" * rng.randrange(200)), (None, b"x"), (b"k", None)])
        headers = [("h", b"1")] * rng.randrange(3)
        sent.append(await producer.send(settings.ticks_topic, value, key=key, partition=0, headers=headers))
    await asyncio.gather(*sent)


@pytest.mark.parametrize("isolation", ["read_uncommitted", "read_committed"])
async def test_bare_records_are_the_same_records(settings: Settings, kafka: KafkaLog, isolation: str) -> None:
    # Arrange
    rng = random.Random(isolation)
    await fill(settings, kafka, rng)

    async with reader(settings, bare=False, isolation=isolation) as plain:
        copies = seen(await plain.read(0))
        starts = [0, plain.end - 1, *(rng.randrange(plain.end) for _ in range(20))]

    # Act: from anywhere, within a batch as well, in polls of any size
    async with reader(settings, bare=True, isolation=isolation) as bare:
        read = {start: await bare.read(start, rng) for start in starts}

    # Assert
    assert not any(isinstance(record, ConsumerRecord) for polls in read.values() for poll in polls for record in poll)
    for start, polls in read.items():
        assert seen(polls) == [record for record in copies if record[0] >= start]


async def test_one_fetch_brings_all_that_came_while_it_was_held_back(settings: Settings, kafka: KafkaLog) -> None:
    async with reader(settings, bare=True) as bare:
        may_fetch, brought = asyncio.Event(), 0

        def count() -> None:
            nonlocal brought
            brought += 1
            may_fetch.clear()

        async def held_back() -> None:
            await may_fetch.wait()

        bracket_fetches(bare.consumer, held_back, count)
        # One was open already.
        await kafka.producer.send_and_wait(settings.ticks_topic, b"first", partition=0)
        assert await bare.consumer.getmany(timeout_ms=5_000)
        for wave in (1, 2):
            for value in (b"a", b"b", b"c"):
                await kafka.producer.send_and_wait(settings.ticks_topic, value, partition=0)
            assert not await bare.consumer.getmany(timeout_ms=50), "held back"

            may_fetch.set()
            found = await bare.consumer.getmany(timeout_ms=5_000)
            assert [record.value for records in found.values() for record in records] == [b"a", b"b", b"c"]
            assert brought == wave
    # The reader has ended with a fetch that was held back.


async def test_what_was_handed_out_needs_no_collection_of_garbage(settings: Settings, kafka: KafkaLog) -> None:
    """Services look for garbage rarely: fetched megabytes that wait for it would add up."""
    await fill(settings, kafka, random.Random(1))
    async with reader(settings, bare=True) as bare:
        gc.collect()
        gc.disable()
        try:
            await bare.read(0)
            await bare.read(0)
            await asyncio.sleep(0.1)
            left = [held for held in gc.get_objects() if isinstance(held, (FetchResult, PartitionRecords))]
        finally:
            gc.enable()
    assert left == []


async def test_partitions_are_told_without_a_subscription(settings: Settings, kafka: KafkaLog) -> None:
    consumer = new_consumer(settings)
    await consumer.start()
    try:

        async def told() -> bool:
            # A broker hears of a new topic a moment after it was created.
            return await partitions_of(consumer, settings.ticks_topic) == set(range(settings.kafka_partitions))

        await eventually(told, what="the partitions")
        # Or the first question about an offset waits for a tenth of a second.
        leader = consumer._client.cluster.leader_for_partition(TopicPartition(settings.ticks_topic, 0))
        assert leader not in (None, -1)
        assert await partitions_of(consumer, f"{settings.ticks_topic}.missing") == set()
    finally:
        await consumer.stop()


async def test_a_member_of_a_group_has_no_error(settings: Settings, kafka: KafkaLog) -> None:
    """That a member which its group refuses has one is tested with the stream worker."""
    member = new_consumer(settings, settings.ticks_topic, group_id=settings.stream_group)
    assert group_error(member) is None
    try:
        await member.start()
        assert group_error(member) is None
    finally:
        await member.stop()
