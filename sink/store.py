"""Stores a batch; records that cannot be stored go to `candles.rejected`."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, Self

import structlog

from marketdata.candle import BrokerBar, Candle
from marketdata.reference import Instrument, SenderCount
from runtime.rejected import REASON_CHARACTERS, Rejected, RejectedWriter, Which
from runtime.settings import Settings
from runtime.telemetry import trace_id_of
from sink.db.connection import REFUSALS, Database, StepSize, TooSlow
from sink.group import retried
from sink.metrics import Metrics
from sink.progress import Span, advance
from sink.records import Incoming
from sink.writer import Prepared, Writer

log = structlog.get_logger(__name__)

#: Most records of one transaction: some 80 ms. More makes a repeated batch dearer and takes memory (20,000: 45 MB more
#: for 2 % more candles a second), fewer costs commits (5,000: 5 to 8 % fewer candles a second).
BATCH_RECORDS: Final = 10_000

#: What a transaction may take: half of the time limit of a statement (seconds). Shorter makes a busy database slower
#: still, for small transactions cost more.
_BATCH_SECONDS: Final = 15.0


@dataclass(frozen=True)
class Batch:
    """Records that were polled together, made ready for the database."""

    good: Sequence[Incoming]
    bad: Sequence[Rejected]
    prepared: Prepared
    #: What was read for it; nothing for a part of a batch.
    spans: Collection[Span] = ()


class Rejects:
    """Writes rejected records to `candles.rejected`; use it as `async with Rejects(…) as rejects`."""

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

    async def write(self, rejected: Sequence[Rejected]) -> None:
        """Return when Kafka has confirmed each record, or refused it for good; retries while Kafka is away.

        Raises:
            KafkaUnavailable: when the service is told to stop while no broker answers.
        """
        async for attempt in retried(self._stopping):
            with attempt:
                await self._writer.write(rejected)
        self._metrics.rows.labels("rejected").inc(len(rejected))
        for one in rejected:
            log.warning(
                "A record cannot be stored; it is in the topic of rejected candles.",
                action="candle_rejected", reason=one.reason[:REASON_CHARACTERS], topic=one.topic,
                partition=one.partition, offset=one.record.offset, trace_id=trace_id_of(one.record.headers),
            )  # fmt: skip


class Store:
    """Stores batches: each record is either committed to the database or confirmed by Kafka as rejected."""

    def __init__(self, database: Database, writer: Writer, rejects: Rejects) -> None:
        self._database = database
        self._writer = writer
        self._rejects = rejects
        self._size = StepSize(BATCH_RECORDS, goal_seconds=_BATCH_SECONDS)

    async def prepare(
        self, good: Sequence[Incoming], bad: Sequence[Rejected] = (), spans: Collection[Span] = ()
    ) -> Batch:
        """The batch of what is to be stored (`good`) and of what is to be rejected as it is (`bad`).

        `spans` are the parts of the log that all of it was read from.
        """
        candles = [incoming.value for incoming in good if isinstance(incoming.value, Candle)]
        bars = [incoming.value for incoming in good if isinstance(incoming.value, BrokerBar)]
        reference = [incoming.value for incoming in good if isinstance(incoming.value, SenderCount | Instrument)]
        return Batch(good, bad, await self._writer.prepare(candles, bars, reference), spans)

    async def store(self, batch: Batch) -> None:
        """Store and reject, then move the progress; the same batch may be stored again without harm.

        Raises:
            ProgressLost: when the database ends before the batch begins.
            psycopg.OperationalError, KafkaUnavailable: when the service is told to stop while one of them is away.
        """
        if batch.bad:
            await self._rejects.write(batch.bad)
        if not await self._store_whole(batch):
            # In pieces, or with records that were rejected: only now is all of it in a safe place.
            await self._database.run_patiently(partial(advance, spans=batch.spans))

    async def _store_whole(self, batch: Batch) -> bool:
        """Store the batch; returns whether one transaction did it, which then moved the progress as well."""
        size = len(batch.good)
        if size > self._size.value:
            await self._store_halves(batch)
        elif size:
            try:
                # A single record has to be stored however long it takes.
                run = self._database.run_patiently if size == 1 else self._database.run
                await run(partial(self._writer.store, batch=batch.prepared, spans=batch.spans))
                self._size.took(self._database.took_seconds, size)
                return True
            except TooSlow:
                self._size.too_slow(size)
                if self._database.stopping.is_set():
                    raise
                await self._store_halves(batch)
            except REFUSALS as exc:
                if size > 1:
                    # Halving finds the culprits in a dozen transactions, whatever the database says about their place.
                    await self._store_halves(batch)
                    return False
                [refused] = batch.good
                reason = f"the database refuses it: {exc}"
                tp = refused.tp
                await self._rejects.write([Rejected(tp.topic, tp.partition, refused.record, reason)])
        return False

    async def _store_halves(self, batch: Batch) -> None:
        middle = len(batch.good) // 2
        await self._store_whole(await self.prepare(batch.good[:middle]))
        await self._store_whole(await self.prepare(batch.good[middle:]))
