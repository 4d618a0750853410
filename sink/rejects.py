"""Hands records that cannot be stored to `candles.rejected`, as they came and with the reason."""

import asyncio
from types import TracebackType
from typing import Self

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from tenacity import AsyncRetrying, retry_if_exception, wait_exponential

from marketdata.errors import KafkaUnavailable
from runtime.kafka import new_producer
from runtime.kafka_errors import unavailable
from runtime.polls import Record
from runtime.settings import Settings
from runtime.trace import trace_id_of
from sink.metrics import Metrics
from sink.records import Rejected

log = structlog.get_logger(__name__)

#: A reason is for people; a database can quote a megabyte (characters).
_REASON_CHARACTERS = 1_000


class Rejects:
    """The producer of `candles.rejected`, connected at the first use; use it as `async with Rejects(…) as rejects`."""

    def __init__(self, settings: Settings, metrics: Metrics, stopping: asyncio.Event) -> None:
        self._settings = settings
        self._metrics = metrics
        self._stopping = stopping
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._producer is not None:
            await self._producer.stop()

    async def send(self, rejected: Rejected) -> None:
        """Return when Kafka has confirmed the record; while Kafka is away it is tried again.

        Raises:
            KafkaUnavailable: when the service is told to stop while no broker answers.
        """
        tp, record, reason = rejected.tp, rejected.record, rejected.reason[:_REASON_CHARACTERS]
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda exc: getattr(exc, "retriable", False)),
            wait=wait_exponential(0.2, max=5),
            stop=lambda _: self._stopping.is_set(),
            reraise=True,
        ):
            with attempt:
                await self._send(tp, record, reason)
        self._metrics.rows.labels("rejected").inc()
        log.warning(
            "A record cannot be stored; it is kept in the topic of rejected candles.",
            action="candle_rejected", reason=reason, topic=tp.topic, partition=tp.partition,
            offset=record.offset, trace_id=trace_id_of(record.headers),
        )  # fmt: skip

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            # A failed batch of an idempotent producer blocks its partition for good; a record kept twice harms nobody.
            producer = new_producer(self._settings, enable_idempotence=False)
            try:
                await producer.start()
            except (KafkaError, OSError) as exc:
                await producer.stop()
                raise unavailable(self._settings) from exc
            self._producer = producer
        return self._producer

    async def _send(self, tp: TopicPartition, record: Record, reason: str) -> None:
        producer = await self._connected()
        headers = [
            ("reason", reason.encode("utf-8", "replace")),
            ("topic", tp.topic.encode()),
            ("partition", str(tp.partition).encode()),
            ("offset", str(record.offset).encode()),
        ]
        topic = self._settings.candles_rejected_topic
        try:
            try:
                await producer.send_and_wait(topic, record.value, key=record.key, headers=headers)
            except MessageSizeTooLargeError:
                # With the headers it outgrew the topic; where it came from must do.
                await producer.send_and_wait(topic, None, key=record.key, headers=headers)
        except (KafkaError, OSError) as exc:
            if getattr(exc, "retriable", True):
                raise KafkaUnavailable(f"{topic} did not confirm a record: {exc}") from exc
            raise
