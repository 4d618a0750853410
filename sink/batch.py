"""Batches of the sink: what was polled is decoded, prepared and stored; what cannot be stored is rejected.

Rejected records go to `candles.rejected`.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import structlog
from aiokafka import TopicPartition

from marketdata.candle import BrokerBar, Candle, check_bar, check_candle
from marketdata.errors import InvalidCandle, InvalidReference, InvalidReport, TickpipeError
from marketdata.runs import Record
from marketdata.wire import (
    Fill,
    Instrument,
    QuoteSessions,
    Reference,
    Report,
    SenderCount,
    decode_bar,
    decode_candle,
    decode_candles,
    decode_reference,
    decode_report,
)
from runtime import clock
from runtime.rejected import REASON_CHARACTERS, Rejected, RejectedWriter, Which
from runtime.settings import Settings
from runtime.telemetry import Telemetry, context_of, received_header, seconds_between, trace_id_of
from sink.db.connection import REFUSALS, Database, StepSize, TooSlow
from sink.metrics import Metrics
from sink.progress import Span, advance, retried
from sink.writer import Prepared, Writer


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """A record of a topic and partition, and what it says."""

    tp: TopicPartition
    record: Record
    value: Candle | BrokerBar | Reference | Report


def incoming_candles(tp: TopicPartition, records: Sequence[Any]) -> tuple[list[Incoming], list[Rejected]]:
    """The candles among records of `candles.m1`."""
    candles = decode_candles([record.value for record in records])
    try:
        if candles is not None:
            for candle in candles:
                check_candle(candle)
            return list(map(Incoming, repeat(tp), records, candles)), []
    except InvalidCandle:
        pass  # below they are judged one by one
    return _incoming(tp, records, _valid_candle, InvalidCandle)


def incoming_bars(tp: TopicPartition, records: Sequence[Any]) -> tuple[list[Incoming], list[Rejected]]:
    """The broker's bars among records of `candles.broker`."""
    return _incoming(tp, records, _valid_bar, InvalidCandle)


def incoming_reference(tp: TopicPartition, records: Sequence[Any]) -> tuple[list[Incoming], list[Rejected]]:
    """The reference data among records of `reference`."""
    return _incoming(tp, records, decode_reference, InvalidReference)


def incoming_reports(tp: TopicPartition, records: Sequence[Any]) -> tuple[list[Incoming], list[Rejected]]:
    """The reports of senders among records of `fills`."""
    return _incoming(tp, records, decode_report, InvalidReport)


def _incoming(
    tp: TopicPartition,
    records: Sequence[Any],
    decode: Callable[[bytes | None], Candle | BrokerBar | Reference | Report],
    invalid: type[TickpipeError],
) -> tuple[list[Incoming], list[Rejected]]:
    good, bad = [], []
    for record in records:
        try:
            good.append(Incoming(tp, record, decode(record.value)))
        except invalid as exc:
            bad.append(Rejected(tp.topic, tp.partition, record, str(exc)))
    return good, bad


def _valid_candle(value: bytes | None) -> Candle:
    candle = decode_candle(value)
    check_candle(candle)
    return candle


def _valid_bar(value: bytes | None) -> BrokerBar:
    bar = decode_bar(value)
    check_bar(bar)
    return bar


log = structlog.get_logger(__name__)

#: Logging a candle costs more than storing it, so the level is checked first.
_IS_DEBUGGING: Final = logging.getLogger(__name__).isEnabledFor

#: Maximum number of records in one transaction, which takes some 80 ms. More makes repeating a batch more expensive and
#: takes memory (20,000: 45 MB more for 2 % more candles a second), fewer costs commits (5,000: 5 to 8 % fewer candles a
#: second).
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
    #: The parts of the log that it was read from; empty for a part of a batch.
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
        """Build a batch of records to store (`good`) and records to reject (`bad`).

        `spans` are the parts of the log from which all of them were read.
        """
        good, impossible = await self._sort_out(good)
        bad = [*bad, *impossible]
        candles = [incoming.value for incoming in good if isinstance(incoming.value, Candle)]
        # Nearly always none.
        others = [] if len(candles) == len(good) else [incoming.value for incoming in good]
        bars = [value for value in others if isinstance(value, BrokerBar)]
        reference = [value for value in others if isinstance(value, SenderCount | Instrument)]
        reports = [value for value in others if isinstance(value, Fill | QuoteSessions)]
        return Batch(good, bad, await self._writer.prepare(candles, bars, reference, reports), spans)

    async def _sort_out(self, good: Sequence[Incoming]) -> tuple[Sequence[Incoming], list[Rejected]]:
        """What can be stored, and candles that cannot have been folded from the log: they would outweigh true ones."""
        ends = self._writer.log_ends

        def suspects(among: Sequence[Incoming]) -> list[Incoming]:
            return [one for one in among if isinstance(one.value, Candle) and not ends.may_hold(one.value)]

        # Nearly always; one by one takes three times as long.
        if ends.may_hold_all([one.value.offsets for one in good if isinstance(one.value, Candle)]):
            return good, []
        if not (suspected := suspects(good)):
            return good, []
        # Once for all of them: the log has grown since it was last asked.
        async for attempt in retried(self._database.stopping):
            with attempt:
                await ends.refresh()
        impossible = set(map(id, suspects(suspected)))
        reason = "its offsets lie far beyond the end of the log, or in no partition of it"
        return [one for one in good if id(one) not in impossible], [
            Rejected(one.tp.topic, one.tp.partition, one.record, reason) for one in suspected if id(one) in impossible
        ]

    async def store(self, batch: Batch) -> None:
        """Store and reject, then advance the progress; storing the same batch again does no harm.

        Raises:
            ProgressLost: when the database ends before the batch begins.
            psycopg.OperationalError, KafkaUnavailable: when the service is told to stop while one of them is away.
        """
        if batch.bad:
            await self._rejects.write(batch.bad)
        if not await self._store_whole(batch):
            # It was stored in pieces, or some records were rejected: only now is all of it safe.
            await self._database.run_patiently(partial(advance, spans=batch.spans))

    async def _store_whole(self, batch: Batch) -> bool:
        """Store the batch; returns whether a single transaction did so, which then advanced the progress as well."""
        size = len(batch.good)
        if size > self._size.value:
            await self._store_halves(batch)
        elif size:
            try:
                # A single record cannot be split, so it may take as long as it needs.
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
                    # Halving finds the refused rows in a dozen transactions, without relying on the error message.
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


class Observer:
    """Times stored candles, ends their traces and, at level DEBUG, logs each of them."""

    def __init__(self, metrics: Metrics, telemetry: Telemetry) -> None:
        self._stage = metrics.stages.labels("stored")
        self._telemetry = telemetry

    def stored(self, batch: Sequence[Incoming], began_ms: int) -> None:
        """Record that the batch, begun at `began_ms` (UTC epoch milliseconds), has been stored."""
        now_ms = clock.now_ms()
        debugging = _IS_DEBUGGING(logging.DEBUG)
        for incoming in batch:
            tp, record = incoming.tp, incoming.record
            if (received_ms := received_header(record.headers)) is not None:
                self._stage.observe(seconds_between(received_ms, now_ms))
            if self._telemetry.is_on and (context := context_of(record.headers)) is not None:
                span = self._telemetry.begin("store", context, started_ms=began_ms)
                span.end(topic=tp.topic, partition=tp.partition, offset=record.offset)
            if debugging:
                log.debug(
                    "Stored a record.", action="record_stored", trace_id=trace_id_of(record.headers),
                    topic=tp.topic, partition=tp.partition, offset=record.offset,
                )  # fmt: skip
