"""The guard against a transport that skips records: committed over they would be lost without a trace.

A hole in the log looks the same until the log is asked; it is no lag and no loss.
"""

import asyncio
import uuid

import pytest
from aiokafka import ConsumerRecord, TopicPartition

from marketdata.errors import LogShortened, MissedRecords
from marketdata.wire import encode, frame_key
from runtime.kafka import log_ends, new_consumer, new_producer
from runtime.settings import Settings
from stream_app.emitter import Emitter, Metrics
from stream_app.gate import FetchGate
from stream_app.worker import Worker
from tests.days import eurusd_ticks
from tests.kafka_log import KafkaLog, frames_of


class ReadBefore:
    """Offsets of a consumer that found `at` committed, in a partition that ends at `length`."""

    def __init__(self, at: int | None, length: int = 11) -> None:
        self.at = at
        self.length = length
        self.released: list[int] = []
        self.gate = FetchGate()

    def committed(self, partition: int) -> int | None:
        return self.at

    def release(self, partition: int, offset: int) -> None:
        self.released.append(offset)

    def end(self, partition: int) -> int:
        return self.length


@pytest.fixture
async def records(settings: Settings, kafka: KafkaLog) -> list[ConsumerRecord]:
    """Ten frames, the marker of a transaction at offset 6, and four frames more, as a consumer gets them."""
    frames = frames_of(eurusd_ticks()[:100], 10)
    key = frame_key("s", "EURUSD")
    await kafka.send(*frames[:5])
    foreign = new_producer(settings, transactional_id=uuid.uuid4().hex)
    await foreign.start()
    async with foreign.transaction():
        sent = await foreign.send_and_wait(settings.ticks_topic, encode(frames[5]), key=key)
    await foreign.stop()
    # The broker says that a transaction is over before its marker is in the log.
    while (await log_ends(settings, settings.ticks_topic))[sent.partition][1] < 7:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.05)
    await kafka.send(*frames[6:])
    consumer = new_consumer(settings)
    await consumer.start()
    tp = TopicPartition(settings.ticks_topic, sent.partition)
    consumer.assign([tp])
    await consumer.seek_to_beginning(tp)
    read: list[ConsumerRecord] = []
    while len(read) < 10:
        read += (await consumer.getmany(tp, timeout_ms=1000)).get(tp, [])
    await consumer.stop()
    assert [record.offset for record in read] == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10]
    return read


def worker(settings: Settings, offsets: ReadBefore) -> Worker:
    return Worker(settings, Emitter(settings), Metrics(), offsets, log_name="log")


async def test_a_poll_that_skips_a_record_is_refused(settings: Settings, records: list[ConsumerRecord]) -> None:
    partition = records[0].partition
    one = worker(settings, ReadBefore(None))
    await one.fold(partition, records[:3])
    with pytest.raises(MissedRecords, match="offsets 3 to 3"):
        await one.fold(partition, records[4:])


async def test_records_that_are_read_once_more_are_skipped(settings: Settings, records: list[ConsumerRecord]) -> None:
    one = worker(settings, ReadBefore(None))
    await one.fold(records[0].partition, records[:6])
    await one.fold(records[0].partition, records[2:])


async def test_records_of_a_log_that_became_shorter_are_refused(
    settings: Settings, records: list[ConsumerRecord]
) -> None:
    """They would pass for the ones that were read before at their offsets."""
    offsets = ReadBefore(None)
    one = worker(settings, offsets)
    await one.fold(records[0].partition, records)
    offsets.length = 4
    with pytest.raises(LogShortened, match="read up to offset 11 and ends at 4"):
        await one.fold(records[0].partition, records[:4])


@pytest.mark.parametrize("committed", [None, 1])
async def test_a_first_poll_that_begins_after_the_commit_is_refused(
    settings: Settings, records: list[ConsumerRecord], committed: int | None
) -> None:
    with pytest.raises(MissedRecords, match=f"offsets {committed or 0} to 1"):
        await worker(settings, ReadBefore(committed)).fold(records[0].partition, records[2:])


async def test_a_marker_is_no_missed_record(settings: Settings, records: list[ConsumerRecord]) -> None:
    one = worker(settings, ReadBefore(None))
    await one.fold(records[0].partition, records[:6])
    await one.fold(records[0].partition, records[6:])


@pytest.mark.parametrize(
    ("committed", "end", "released"),
    [
        (6, 7, [7]),  # nothing but the marker
        (6, 11, []),  # the marker, then records
        (5, 7, []),  # a record, then the marker
        (None, 7, []),
        (11, 11, [11]),  # nothing at all
    ],
)
async def test_only_a_hole_at_the_end_of_the_log_is_skipped(
    settings: Settings, records: list[ConsumerRecord], committed: int | None, end: int, released: list[int]
) -> None:
    offsets = ReadBefore(committed)
    await worker(settings, offsets).pass_hole(records[0].partition, end)
    assert offsets.released == released


async def test_an_open_minute_holds_back_the_hole_behind_it(settings: Settings, records: list[ConsumerRecord]) -> None:
    offsets = ReadBefore(None)
    one = worker(settings, offsets)
    await one.fold(records[0].partition, records[:6])
    await one.pass_hole(records[0].partition, 7)
    assert offsets.released == []
