"""Batches as a producer is given them, without a broker: each record once, in order, in its partition, by its codec."""

import asyncio
from itertools import groupby
from typing import Any

import pytest
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from runtime.batches import BatchWriter, Record

BATCH_BYTES = 20_000


class Broker:
    """Stands for a producer: stores what it is given, and confirms it unless it is to fail."""

    def __init__(self, partitions: int = 3, error: Exception | None = None) -> None:
        self.partitions = partitions
        self.error = error
        self.stored: list[tuple[str, int, Any]] = []
        self.confirmations: list[asyncio.Future[None]] = []

    async def partitions_for(self, _topic: str) -> set[int]:
        return set(range(self.partitions))

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[None]:
        records = MemoryRecords(bytes(batch._build()))
        self.stored.append((topic, partition, records.next_batch()))
        assert not records.has_next()
        confirmation: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.confirmations.append(confirmation)
        if self.error is None:
            confirmation.set_result(None)
        elif len(self.confirmations) == 1:
            confirmation.set_exception(self.error)
        return confirmation


records = st.builds(
    Record,
    topic=st.sampled_from(["ticks", "candles"]),
    key=st.binary(min_size=1, max_size=4),
    value=st.binary(max_size=20).map(lambda value: value * 300) | st.binary(min_size=1, max_size=50),
    timestamp_ms=st.integers(1, 2**41),
    headers=st.lists(st.tuples(st.just("traceparent"), st.binary(max_size=5)), max_size=1),
)


@given(written=st.lists(records, max_size=60), partitions=st.integers(1, 5))
def test_each_record_is_written_once_in_its_partition_and_in_order(written: list[Record], partitions: int) -> None:
    broker = Broker(partitions)
    asyncio.run(BatchWriter(broker, BATCH_BYTES).write(written))

    found: dict[tuple[str, int], list[Record]] = {}
    for topic, partition, batch in broker.stored:
        found.setdefault((topic, partition), []).extend(
            Record(topic, record.key, record.value or b"", record.timestamp, list(record.headers)) for record in batch
        )
    partitioner, everywhere = DefaultPartitioner(), list(range(partitions))

    def target(record: Record) -> tuple[str, int]:
        return record.topic, partitioner(record.key, everywhere, everywhere)

    assert found == {key: list(group) for key, group in groupby(sorted(written, key=target), key=target)}


@pytest.mark.parametrize(("count", "codec"), [(1, DefaultRecordBatch.CODEC_LZ4), (100, DefaultRecordBatch.CODEC_ZSTD)])
def test_the_codec_follows_the_size(count: int, codec: int) -> None:
    value = b'{"time_msc":1549277100000,"bid":1.14426,"ask":1.14439,"received":1549277100123}' * 2
    broker = Broker(1)

    asyncio.run(BatchWriter(broker, BATCH_BYTES).write([Record("ticks", b"EURUSD", value, 1, [])] * count))

    ((_, _, batch),) = broker.stored
    assert batch.compression_type == codec


async def test_partitions_that_were_added_are_seen() -> None:
    broker = Broker(1)
    writer = BatchWriter(broker, BATCH_BYTES)
    keys = [bytes([number]) for number in range(50)]

    await writer.write([Record("ticks", key, b"v", None, []) for key in keys])
    broker.partitions = 4
    await writer.write([Record("ticks", key, b"v", None, []) for key in keys])

    assert {partition for _, partition, _ in broker.stored[1:]} == {0, 1, 2, 3}


async def test_a_refusal_is_raised_and_nothing_waits_after_it() -> None:
    broker = Broker(3, MessageSizeTooLargeError())

    with pytest.raises(MessageSizeTooLargeError):
        await BatchWriter(broker, BATCH_BYTES).write(
            [Record("ticks", bytes([number]), b"v", None, []) for number in range(50)]
        )

    assert len(broker.confirmations) == 3
    assert all(confirmation.done() for confirmation in broker.confirmations)
