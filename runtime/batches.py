"""Records written to Kafka in batches that are made here: the codec follows the size of a batch, and a key's partition
is computed once.

aiokafka gives a producer one codec for all its batches, and compresses lz4 at level 9. For a few hundred bytes that is
the cheapest, but it took a fifth of the processor time of a producer that takes bodies of 200 ticks, and 44 ms of the
event loop for 900 KB. From a few kilobytes on zstd is faster and smaller; below that it takes three times as long.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch

#: From here on a batch is compressed by zstd (bytes of keys and values). One frame of 200 ticks, or 32 lone ticks, take
#: both codecs as long.
_ZSTD_BYTES: Final = 4_000

#: Keys whose partition is remembered; more than any broker has symbols.
_MAX_KEYS: Final = 50_000


class Record(NamedTuple):
    """One record to be written to Kafka."""

    topic: str
    key: bytes
    value: bytes
    #: UTC epoch milliseconds; None for now.
    timestamp_ms: int | None
    headers: list[tuple[str, bytes]]


class BatchWriter:
    """Writes through a producer that somebody else starts and stops.

    Args:
        batch_bytes: the most bytes of a batch; a larger record gets a batch of its own.
    """

    def __init__(self, producer: AIOKafkaProducer, batch_bytes: int) -> None:
        self._producer = producer
        self._batch_bytes = batch_bytes
        self._partitions: dict[tuple[str, bytes], int] = {}
        self._partition_counts: dict[str, int] = {}

    async def write(self, records: Sequence[Record]) -> None:
        """Return when every record is confirmed; those of one partition keep their order.

        Raises:
            KAFKA_ERRORS: when Kafka refused one of them; others may be stored.
        """
        confirmations: list[asyncio.Future[Any]] = []
        try:
            for (topic, partition), of_partition in (await self._by_partition(records)).items():
                for batch in self._batches(of_partition):
                    confirmations.append(await self._producer.send_batch(batch, topic, partition=partition))
            await asyncio.gather(*confirmations)
        except BaseException:
            for confirmation in confirmations:
                # Nobody looks at them any more; a cancelled future does not report its error.
                if not confirmation.cancel() and not confirmation.cancelled():
                    confirmation.exception()
            raise

    def _batches(self, records: list[Record]) -> list[BatchBuilder]:
        size = sum(len(record.key) + len(record.value) for record in records)
        codec = DefaultRecordBatch.CODEC_LZ4 if size < _ZSTD_BYTES else DefaultRecordBatch.CODEC_ZSTD
        batches = [BatchBuilder(self._batch_bytes, codec)]
        for _, key, value, timestamp_ms, headers in records:
            if batches[-1].append(timestamp=timestamp_ms, key=key, value=value, headers=headers) is None:
                batches.append(BatchBuilder(self._batch_bytes, codec))
                batches[-1].append(timestamp=timestamp_ms, key=key, value=value, headers=headers)
        return batches

    async def _by_partition(self, records: Sequence[Record]) -> dict[tuple[str, int], list[Record]]:
        for topic in {record.topic for record in records}:
            await self._learn_partitions(topic)
        found: dict[tuple[str, int], list[Record]] = {}
        for record in records:
            target = (record.topic, self._partition_of(record.topic, record.key))
            of_partition = found.get(target)
            if of_partition is None:
                of_partition = found[target] = []
            of_partition.append(record)
        return found

    async def _learn_partitions(self, topic: str) -> None:
        count = len(await self._producer.partitions_for(topic))
        if self._partition_counts.get(topic) != count:
            self._partition_counts[topic] = count
            self._partitions.clear()

    def _partition_of(self, topic: str, key: bytes) -> int:
        # The key of a candle comes again for a minute only, and hashing takes a tenth of publishing it.
        if self._partition_counts[topic] == 1:
            return 0
        partition = self._partitions.get((topic, key))
        if partition is None:
            # Kafka's default for records with a key, so that other producers agree.
            partition = (murmur2(key) & 0x7FFFFFFF) % self._partition_counts[topic]
            if len(self._partitions) >= _MAX_KEYS:
                self._partitions.clear()
            self._partitions[topic, key] = partition
        return partition
