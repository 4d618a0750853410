"""Sends what a worker produces, candles with their headers and rejected records, and counts its work."""

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from typing import Final, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from marketdata.backlog import Flow
from marketdata.candle import Candle
from marketdata.runs import Record
from marketdata.tick import Frame
from marketdata.wire import candle_key, encode
from runtime import batches, clock
from runtime.kafka import new_producer
from runtime.kafka_errors import kafka_errors
from runtime.rejected import REJECTS_LOST, Rejected, RejectedWriter, Which
from runtime.settings import Settings
from runtime.telemetry import (
    RECEIVED_HEADER,
    STAGE_BUCKETS,
    STAGE_HELP,
    STAGE_METRIC,
    TRACEPARENT,
    Headers,
    Span,
    Telemetry,
    TraceContext,
    context_of,
    seconds_between,
    trace_id_of,
)
from stream_app.window import Emission, Origin, Window

log = structlog.get_logger(__name__)

#: Logging a candle costs more than folding it, so the level is checked first.
_IS_DEBUGGING: Final = logging.getLogger(__name__).isEnabledFor


class Metrics:
    """Every metric of the stream app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Memory, CPU and start of the process.
        ProcessCollector(registry=self.registry)
        self.registry.register(REJECTS_LOST)
        prefix = "tickpipe_stream"
        self.records = Counter(
            f"{prefix}_records", "Records of the ticks topic that were read.", registry=self.registry
        )
        self.ticks = Counter(f"{prefix}_ticks", "Ticks that were folded.", registry=self.registry)
        self.rejected = Counter(f"{prefix}_rejected_records", "Records that are no frames.", registry=self.registry)
        self.candles = Counter(
            f"{prefix}_candles", "Candles that the broker confirmed.", ["closed"], registry=self.registry
        )
        self.emit_failures = Counter(
            f"{prefix}_emit_failures", "Rounds of candles that the broker did not confirm.", registry=self.registry
        )
        self.forgotten = Counter(f"{prefix}_forgotten_minutes", "Minutes dropped from memory.", registry=self.registry)
        self.minutes = Gauge(f"{prefix}_minutes", "Minutes in memory.", registry=self.registry)
        self.ticks_held = Gauge(
            f"{prefix}_buffered_ticks",
            "Ticks in the deduplication buffer: held in memory in case they are sent again.",
            registry=self.registry,
        )
        self.partitions = Gauge(f"{prefix}_partitions", "Partitions that this worker owns.", registry=self.registry)
        self.lag = Gauge(
            f"{prefix}_lag_records",
            "Records behind the end that are not committed.",
            ["partition"],
            registry=self.registry,
        )
        self.emit_seconds = Histogram(
            f"{prefix}_emit_seconds",
            "From the choice of the candles to their confirmation.",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=self.registry,
        )
        #: stage: folded (the oldest frame of each chunk of a poll), published (the candle is confirmed).
        self.stages = Histogram(STAGE_METRIC, STAGE_HELP, ["stage"], buckets=STAGE_BUCKETS, registry=self.registry)

    def exposition(self) -> bytes:
        """What `/metrics` answers."""
        return generate_latest(self.registry)


#: A round that takes longer is tried again; a restarted broker needs some seconds (seconds).
CONFIRM_TIMEOUT_SECONDS = 30.0

#: A batch of candles (bytes before compression).
_BATCH_BYTES: Final = 128 * 1024


class Outgoing(NamedTuple):
    """A candle, and the headers of its record."""

    candle: Candle
    headers: Headers = ()
    #: When its newest ticks were received (UTC epoch milliseconds); None when it is not to be timed.
    received_ms: int | None = None
    #: To be ended when the broker has confirmed it.
    span: Span | None = None


class Emitter:
    """Sends to the candles topic and to `ticks.rejected`.

    Not idempotent on purpose: a candle sent twice, or after a newer one, changes nothing downstream, and a producer
    without sequence numbers has no state that a broker's failure could spoil.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._writer: batches.BatchWriter | None = None
        self._rejected = RejectedWriter(settings, Which.TICKS)

    async def start(self) -> None:
        """Connect; the broker has already answered."""
        self._producer = new_producer(self._settings, enable_idempotence=False)
        self._writer = batches.BatchWriter(self._producer, _BATCH_BYTES)
        await self._producer.start()

    async def stop(self) -> None:
        """Disconnect, once everything in flight was sent or has failed."""
        await self._rejected.stop()
        if self._producer is not None:
            await self._producer.stop()

    async def emit(self, candles: Sequence[Outgoing]) -> None:
        """Send all of them and wait until the broker has confirmed every one.

        Raises:
            KafkaUnavailable, KafkaRefused: when it did not; all must then be sent again.
        """
        if self._writer is None:
            raise RuntimeError("the emitter was not started")
        topic = self._settings.candles_topic
        records = [
            batches.Record(topic, candle_key(candle), encode(candle), candle.emitted, list(headers))
            for candle, headers, _, _ in candles
        ]
        with kafka_errors(self._settings, topic=topic, right="WRITE"):
            async with asyncio.timeout(CONFIRM_TIMEOUT_SECONDS):
                await self._writer.write(records)

    async def reject(self, rejected: Sequence[Rejected]) -> None:
        """Write to `ticks.rejected`; see `RejectedWriter.write`."""
        await self._rejected.write(rejected)


_OFFSET: Final = attrgetter("offset")

#: Maximum number of requests held for a candle that waits for the broker.
_MAX_OTHERS: Final = 32


def note_origins(
    window: Window, records: Sequence[Record], frames: Sequence[tuple[int, Frame]], *, wall_ms: int, links: bool
) -> None:
    """Note the newest frame of every period that this chunk touched; both sequences are in offset order.

    With `links` the requests before it since the last candle as well. A chunk touches few periods and has hundreds of
    records, so the loop over the records is left alone.
    """
    if not frames:
        return
    first = records[0].offset
    whole = len(frames) == len(records) == records[-1].offset - first + 1
    for period in window.touched():
        offset = period.fold.last_offset
        if offset < first:
            continue  # all of it was read before
        if whole:
            received_ms, headers = frames[offset - first][1].received, records[offset - first].headers
        else:
            # A one-element tuple sorts before those that begin with it.
            received_ms = frames[bisect_left(frames, (offset,))][1].received
            headers = records[bisect_left(records, offset, key=_OFFSET)].headers
        period.origin = Origin(received_ms, wall_ms, headers, _others(period.origin) if links else ())


def note_flow_origins(window: Window, flow: Flow, *, wall_ms: int, links: bool) -> None:
    """The same for the records of one symbol."""
    for period in window.touched():
        offset = period.fold.last_offset
        if offset >= flow.first_offset:
            received_ms, record = flow.origin(offset)
            others = _others(period.origin) if links else ()
            period.origin = Origin(received_ms, wall_ms, record.headers, others)


def _others(before: Origin | None) -> tuple[TraceContext, ...]:
    context = None if before is None else context_of(before.headers)
    return () if before is None or context is None else (*before.others, context)[-_MAX_OTHERS:]


def outgoing(emission: Emission, live_since_ms: int, telemetry: Telemetry) -> Outgoing | None:
    """The candle of an emission with the headers of its record; None when there is no candle.

    What was received before `live_since_ms` (UTC epoch milliseconds) waited for a reader, in a replay for years, and a
    candle is closed long after its last tick: neither says how quick the pipeline is, so it is not timed.
    """
    candle, origin = emission.candle, emission.period.origin
    if candle is None:
        return None
    is_timed = origin is not None and not candle.closed and origin.received_ms >= live_since_ms
    # As nearly all of a replay are.
    if origin is None or not (origin.headers or is_timed):
        return Outgoing(candle)
    headers: list[tuple[str, bytes]] = []
    span = None
    if not telemetry.is_on:
        # Passed on unparsed: parsing would cost more than all the rest.
        headers += [header for header in origin.headers if header[0] == TRACEPARENT]
    elif (context := context_of(origin.headers)) is not None:
        emission.period.origin = origin._replace(others=())
        started_ms = None if candle.closed else origin.folded_ms
        span = telemetry.begin("fold", context, links=origin.others, started_ms=started_ms)
        headers.append(span.context.header)
    if not is_timed:
        return Outgoing(candle, headers, span=span)
    headers.append((RECEIVED_HEADER, str(origin.received_ms).encode()))
    return Outgoing(candle, headers, origin.received_ms, span)


def note_confirmed(metrics: Metrics, candles: Sequence[Outgoing], seconds: float) -> None:
    """Count, time and log candles that the broker has confirmed `seconds` after they were chosen."""
    metrics.emit_seconds.observe(seconds)
    published, now_ms = metrics.stages.labels("published"), clock.now_ms()
    debugging = _IS_DEBUGGING(logging.DEBUG)
    closed = sum(each.candle.closed for each in candles)
    metrics.candles.labels(closed="true").inc(closed)
    metrics.candles.labels(closed="false").inc(len(candles) - closed)
    for each in candles:
        if each.received_ms is not None:
            published.observe(seconds_between(each.received_ms, now_ms))
        if each.span is not None:
            each.span.end(source=each.candle.source, symbol=each.candle.symbol, minute=each.candle.ts)
        if debugging:
            log.debug(
                "Published a candle.", action="candle_published", trace_id=trace_id_of(each.headers),
                source=each.candle.source, symbol=each.candle.symbol, minute=each.candle.ts,
            )  # fmt: skip
