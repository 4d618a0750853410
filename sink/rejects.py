"""Hands records that cannot be stored to `candles.rejected`, while Kafka is away until it is back."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import structlog
from tenacity import AsyncRetrying, retry_if_exception, wait_exponential

from runtime.rejected import REASON_CHARACTERS, Rejected, RejectedWriter, Which
from runtime.settings import Settings
from runtime.telemetry import trace_id_of
from sink.metrics import Metrics

log = structlog.get_logger(__name__)


class Rejects:
    """The writer of `candles.rejected`; use it as `async with Rejects(…) as rejects`."""

    def __init__(self, settings: Settings, metrics: Metrics, stopping: asyncio.Event) -> None:
        self._writer = RejectedWriter(settings, Which.CANDLES)
        self._metrics = metrics
        self._stopping = stopping

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._writer.stop()

    async def keep(self, rejected: Sequence[Rejected]) -> None:
        """Return when Kafka has confirmed each, or refused it for good; while Kafka is away it is tried again.

        Raises:
            KafkaUnavailable: when the service is told to stop while no broker answers.
        """
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda exc: getattr(exc, "retriable", False)),
            wait=wait_exponential(0.2, max=5),
            stop=lambda _: self._stopping.is_set(),
            reraise=True,
        ):
            with attempt:
                await self._writer.keep(rejected)
        self._metrics.rows.labels("rejected").inc(len(rejected))
        for one in rejected:
            log.warning(
                "A record cannot be stored; it is kept in the topic of rejected candles.",
                action="candle_rejected", reason=one.reason[:REASON_CHARACTERS], topic=one.topic,
                partition=one.partition, offset=one.record.offset, trace_id=trace_id_of(one.record.headers),
            )  # fmt: skip
