"""What the sink knows of its consumer group: its lag, the partitions that come and go, and whether polls follow on."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from tenacity import AsyncRetrying, retry_if_exception, wait_exponential

from marketdata.errors import MissedRecords, PartitionsLost, TickpipeError
from marketdata.runs import Record
from runtime.health import Health
from runtime.kafka_errors import kafka_errors
from runtime.logreader import LogReader
from runtime.settings import Settings
from runtime.tasks import PeriodicTask
from sink.metrics import Metrics

log = structlog.get_logger(__name__)

#: Kafka tells committed offsets in milliseconds; later means that it is away (seconds).
_COMMITTED_SECONDS: Final = 5.0


def retried(stopping: asyncio.Event) -> AsyncRetrying:
    """Attempts at something that needs Kafka: repeated while it is away, until `stopping`, which ends in the error."""
    return AsyncRetrying(
        retry=retry_if_exception(lambda exc: getattr(exc, "retriable", False)),
        wait=wait_exponential(0.2, max=5),
        stop=lambda _: stopping.is_set(),
        reraise=True,
    )


class LagMeter(PeriodicTask[None]):
    """The task that sets `tickpipe_sink_lag_records`, and finds out whether Kafka answers."""

    name = "lag"
    interval_seconds = 5.0

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer, metrics: Metrics, health: Health) -> None:
        self._settings = settings
        self._consumer = consumer
        self._metrics = metrics
        self._health = health

    async def step(self) -> None:
        """Measure once."""
        try:
            with kafka_errors(self._settings, topic=self._settings.candles_topic):
                async with asyncio.timeout(self.interval_seconds):
                    mine = sorted(self._consumer.assignment())
                    ends = await self._consumer.end_offsets(mine)
                    for tp in mine:
                        position = await self._consumer.position(tp)
                        self._metrics.lag.labels(tp.topic, tp.partition).set(max(0, ends[tp] - position))
        except PartitionsLost:
            return  # the partition went elsewhere meanwhile
        except TickpipeError:
            self._health.set("kafka", False)
            return
        self._health.set("kafka", True)


class Order:
    """Notices records that the consumer skipped: committed over, they would be lost without a sign."""

    def __init__(self, settings: Settings, stopping: asyncio.Event) -> None:
        self._settings = settings
        self._stopping = stopping
        self._next: dict[TopicPartition, int] = {}
        self._assignments = 0

    def forget(self) -> None:
        """Partitions came or went: the next poll of each follows on what is committed."""
        self._assignments += 1
        self._next.clear()

    async def check(self, consumer: AIOKafkaConsumer, tp: TopicPartition, records: Sequence[Record]) -> None:
        """Take note of a poll of a topic that is not compacted.

        Offsets may be missing for good reasons, retention and the markers of transactions, so a gap alone is no error.

        Raises:
            MissedRecords: when the log holds records between this poll and the one before.
            KafkaUnavailable: when the service is told to stop while no broker answers.
        """
        assignments, expected, first = self._assignments, self._next.get(tp), records[0].offset
        if expected is None or first > expected:
            async for attempt in retried(self._stopping):
                with attempt:
                    if assignments == self._assignments:
                        await self._check_gap(consumer, tp, expected, first)
        # What was polled of a partition that went elsewhere during the check says nothing about its next poll.
        if assignments == self._assignments:
            self._next[tp] = records[-1].offset + 1

    async def _check_gap(
        self, consumer: AIOKafkaConsumer, tp: TopicPartition, expected: int | None, first: int
    ) -> None:
        if expected is None:
            with kafka_errors(self._settings, group=self._settings.sink_group):
                # A partition that goes elsewhere meanwhile would never be answered for.
                async with asyncio.timeout(_COMMITTED_SECONDS):
                    expected = await consumer.committed(tp) or 0
        if first <= expected:
            return
        async with LogReader(self._settings) as reader:
            if await reader.holds_records(tp.topic, tp.partition, expected, first - 1):
                raise MissedRecords(
                    f"offsets {expected} to {first - 1} of {tp.topic}-{tp.partition} were never handed over"
                )
        log.info("The log has a hole.", action="hole", partition=tp.partition, first=expected, last=first - 1)


class Revocations(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Forgets what was polled and not committed of partitions that went elsewhere."""

    def __init__(self, uncommitted: dict[TopicPartition, int], order: Order, metrics: Metrics) -> None:
        self._uncommitted = uncommitted
        self._order = order
        self._metrics = metrics

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        for tp in revoked:
            self._uncommitted.pop(tp, None)
        self._order.forget()
        self._metrics.lag.clear()

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._order.forget()
        log.info("Partitions were assigned.", action="partitions_assigned", partitions=len(assigned))
