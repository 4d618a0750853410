"""Group commit: the records of all requests that came while Kafka was writing go together in the next write.

A body of 28 symbols makes 28 records, and aiokafka's own `send` keeps a future for each. Here a request waits for one
future, and a partition gets one batch (measured: 75 instead of 320 µs for 28 records, 14 instead of 22 for one).
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from runtime.kafka_errors import KAFKA_ERRORS

#: Keys whose partition is kept; more than any broker has symbols.
_MAX_KEYS: Final = 50_000


class Record(NamedTuple):
    """One record as it shall be in Kafka."""

    topic: str
    key: bytes
    value: bytes
    #: UTC epoch milliseconds; None for now.
    timestamp_ms: int | None
    headers: list[tuple[str, bytes]]


class GroupCommit:
    """Sends through one producer, in the order of the calls; belongs to it and ends with it."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._waiting: list[tuple[Sequence[Record], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._partitions: dict[tuple[str, bytes], int] = {}
        self._partition_counts: dict[str, int] = {}

    async def send(self, records: Sequence[Record]) -> None:
        """Return when every record is confirmed.

        Raises:
            KAFKA_ERRORS: when Kafka refused one of them, or one of another request of the same write.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((records, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await done

    def abandon(self) -> None:
        """Stop sending; the calls that wait are not answered any more."""
        self._waiting.clear()
        if self._writing is not None:
            self._writing.cancel()

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                try:
                    await self._write([record for records, done in group if not done.done() for record in records])
                except Exception as exc:  # every caller must hear of it, whatever it is
                    for _, done in group:
                        if not done.done():
                            done.set_exception(_copy(exc))
                else:
                    for _, done in group:
                        if not done.done():
                            done.set_result(None)
        finally:
            self._writing = None

    async def _write(self, records: list[Record]) -> None:
        confirmations: list[asyncio.Future[Any]] = []
        try:
            for (topic, partition), batches in (await self._batches(records)).items():
                for batch in batches:
                    confirmations.append(await self._producer.send_batch(batch, topic, partition=partition))
            await asyncio.gather(*confirmations)
        except BaseException:
            for confirmation in confirmations:
                # Nobody looks at them any more; a cancelled future does not report its error.
                if not confirmation.cancel() and not confirmation.cancelled():
                    confirmation.exception()
            raise

    async def _batches(self, records: list[Record]) -> dict[tuple[str, int], list[Any]]:
        for topic in {record.topic for record in records}:
            await self._learn_partitions(topic)
        batches: dict[tuple[str, int], list[Any]] = {}
        for topic, key, value, timestamp_ms, headers in records:
            target = (topic, self._partition_of(topic, key))
            of_partition = batches.get(target)
            if of_partition is None:
                of_partition = batches[target] = [self._producer.create_batch()]
            if of_partition[-1].append(timestamp=timestamp_ms, key=key, value=value, headers=headers) is None:
                of_partition.append(self._producer.create_batch())
                of_partition[-1].append(timestamp=timestamp_ms, key=key, value=value, headers=headers)
        return batches

    async def _learn_partitions(self, topic: str) -> None:
        count = len(await self._producer.partitions_for(topic))
        if self._partition_counts.get(topic) != count:
            self._partition_counts[topic] = count
            self._partitions.clear()

    def _partition_of(self, topic: str, key: bytes) -> int:
        partition = self._partitions.get((topic, key))
        if partition is None:
            # Kafka's default for records with a key, so that other producers agree.
            partition = (murmur2(key) & 0x7FFFFFFF) % self._partition_counts[topic]
            if len(self._partitions) >= _MAX_KEYS:
                self._partitions.clear()
            self._partitions[topic, key] = partition
        return partition


def _copy(exc: Exception) -> Exception:
    # One exception in many futures would gather all their tracebacks.
    return type(exc)(*exc.args) if isinstance(exc, KAFKA_ERRORS) else exc
