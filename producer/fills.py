"""Ranges of which ticks are wanted, which senders that can fill are told, and what they report on POST /fills.

Neither is needed to take ticks: while `wanted` cannot be read nothing is asked for, and while `fills` cannot be written
reports are answered 503.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Final

import structlog

from marketdata.contract import http
from marketdata.contract.fills import MAX_WANTED, FillsTaken, Reports
from marketdata.contract.http import Wanted
from marketdata.errors import InvalidReport, KafkaRefused, KafkaUnavailable, TickpipeError
from marketdata.minutes import Range, intersect, subtract, union
from marketdata.wire import Fill, QuoteSessions, Report, WantedRanges, decode_wanted, encode, frame_key, names_in
from producer.metrics import Metrics
from producer.records import Origin
from runtime.batches import Record
from runtime.kafka import new_consumer
from runtime.kafka_errors import kafka_errors
from runtime.settings import Settings

log = structlog.get_logger(__name__)

#: Symbols of which something is wanted that are remembered (entries).
_MAX_SERIES: Final = 50_000

_POLL_MS: Final = 1_000
_POLL_RECORDS: Final = 500

#: How often it is looked whether Kafka is there (seconds).
_LOOK_SECONDS: Final = 1.0

#: What was reported is not asked for again for so long, whatever the sink says: that may be older than the report
#: (seconds).
_REPORTED_SECONDS: Final = 120.0

#: The pause after `wanted` could not be read (seconds).
_RETRY_SECONDS: Final = 10.0

#: Returns when Kafka has confirmed the records.
Publish = Callable[[Sequence[Record]], Awaitable[None]]


class WantedIndex:
    """What is wanted of each source, as `wanted` says and without what was reported since."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        #: By source and symbol, the newest first.
        self._ranges: dict[str, dict[str, WantedRanges]] = {}
        #: Of what was asked for what was reported, by source: the symbol, the range, and until when it is held back.
        self._reported: dict[str, list[tuple[str, Range, float]]] = {}
        #: What was last answered to a source, until something changes, and until when it holds.
        self._answers: dict[str, tuple[list[Wanted], float]] = {}

    def clear(self) -> None:
        """Forget what is wanted."""
        self._ranges.clear()
        self._answers.clear()

    def set(self, source: str, symbol: str, ranges: WantedRanges) -> None:
        """Replace what is wanted of a symbol, the newest first; what was just reported of it is asked for later."""
        self._answers.pop(source, None)
        symbols = self._ranges.setdefault(source, {})
        if not ranges:
            symbols.pop(symbol, None)
            if not symbols:
                del self._ranges[source]
        elif symbol in symbols or sum(map(len, self._ranges.values())) < _MAX_SERIES:
            symbols[symbol] = ranges

    def reported(self, source: str, symbol: str, from_ms: int, to_ms: int) -> None:
        """A sender has reported the range: it is not asked again before the sink, knowing the report, says so."""
        range_ = (from_ms, to_ms)
        if (known := self._ranges.get(source, {}).get(symbol)) and intersect(sorted(known), [range_]):
            held = self._held_back(source)
            self._reported[source] = [*held, (symbol, range_, self._monotonic() + _REPORTED_SECONDS)]
            self.set(source, symbol, subtract(sorted(known), [range_])[::-1])

    def newest(self, source: str) -> list[Wanted]:
        """What an answer to the source asks for."""
        if source not in self._ranges:
            return []
        answer, until = self._answers.get(source, ([], -math.inf))
        if until < self._monotonic():
            held = self._held_back(source)
            answer = list(islice(self._in_order(source, held), MAX_WANTED))
            self._answers[source] = answer, min((until for _, _, until in held), default=math.inf)
        return answer

    def _held_back(self, source: str) -> list[tuple[str, Range, float]]:
        """What was reported lately."""
        now = self._monotonic()
        held = [one for one in self._reported.pop(source, ()) if one[2] >= now]
        if held:
            self._reported[source] = held
        return held

    def _in_order(self, source: str, held: Sequence[tuple[str, Range, float]]) -> Iterator[Wanted]:
        hidden: dict[str, list[Range]] = {}
        for symbol, range_, _ in held:
            hidden.setdefault(symbol, []).append(range_)

        def of(symbol: str, ranges: WantedRanges) -> Iterator[Wanted]:
            if symbol in hidden:
                ranges = subtract(sorted(ranges), union(hidden[symbol]))[::-1]
            return (Wanted(symbol, first, end) for first, end in ranges)

        of_symbols = (of(symbol, ranges) for symbol, ranges in self._ranges[source].items())
        return merge(*of_symbols, key=lambda wanted: -wanted.from_ms)


class WantedReader:
    """Fills the index from the topic `wanted`, which is compacted, until cancelled."""

    def __init__(self, settings: Settings, index: WantedIndex, is_ready: Callable[[], bool]) -> None:
        self._settings = settings
        self._index = index
        #: Whether Kafka answers and has its topics.
        self._is_ready = is_ready

    async def run(self) -> None:
        """Read for ever; while it cannot be read nothing is wanted."""
        told = ""
        while True:
            while not self._is_ready():  # noqa: ASYNC110 - a gateway has no event
                await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self._read()
            except Exception as exc:  # whatever it is, ticks are taken without
                why = str(exc) or type(exc).__name__
                is_news, told = why != told, why
                (log.warning if is_news else log.debug)(
                    "What is wanted cannot be read; senders are not asked for missing ticks meanwhile.",
                    action="wanted_wait", error=why, exc_info=not isinstance(exc, TickpipeError),
                )  # fmt: skip
            finally:
                self._index.clear()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _read(self) -> None:
        topic = self._settings.wanted_topic
        with kafka_errors(self._settings, topic=topic, right="READ"):
            consumer = new_consumer(self._settings, topic, auto_offset_reset="earliest")
            try:
                await consumer.start()
                while True:
                    polled = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
                    for records in polled.values():
                        for record in records:
                            self._take(record.key, record.value)
                    # getmany() does not yield to the event loop while records wait.
                    await asyncio.sleep(0)
            finally:
                await consumer.stop()

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        try:
            source, symbol = names_in(key or b"")
            self._index.set(source, symbol, [] if value is None else decode_wanted(value))
        except (InvalidReport, ValueError) as exc:
            log.warning("A record of what is wanted cannot be read.", action="wanted_invalid", error=str(exc))


class Fills:
    """POST /fills: reads reports and writes them to the topic `fills`."""

    def __init__(self, settings: Settings, publish: Publish, metrics: Metrics, wanted: WantedIndex) -> None:
        self._topic = settings.fills_topic
        self._publish = publish
        self._metrics = metrics
        self.wanted: Final = wanted

    async def take(self, found: Reports, origin: Origin) -> None:
        """Write what was reported.

        Raises:
            KafkaUnavailable: when Kafka did not confirm it; the same may be sent again.
        """
        reports = list(_reports(found, origin))
        records = [
            Record(self._topic, frame_key(one.source, one.symbol), encode(one), None, origin.headers)
            for one in reports
        ]  # fmt: skip
        try:
            await self._publish(records)
        except KafkaRefused as exc:
            # Ticks are taken all the same; the sender reports again when somebody has mended it.
            raise KafkaUnavailable(str(exc)) from exc
        for report in reports:
            if isinstance(report, Fill):
                self.wanted.reported(report.source, report.symbol, report.from_ms, report.to_ms)
                outcome = "error" if report.error else "ticks" if report.ticks else "none"
                self._metrics.fills.reports(report.source, outcome).inc()


def answer_to(found: Reports) -> tuple[int, FillsTaken]:
    """Status and answer once the valid items are in Kafka.

    Raises:
        Refusal: 400 when nothing can be used.
    """
    answer = FillsTaken(True, found.received)
    if not found.details:
        return 200, answer
    if len(found.details) == found.received:
        raise http.none_usable(found.details, found.received)
    answer.details = found.details[: http.MAX_DETAILS]
    return 207, answer


def _reports(found: Reports, origin: Origin) -> Iterator[Report]:
    for fill in found.fills:
        outcome = {"error": fill.error} if isinstance(fill.error, str) else {"ticks": fill.ticks}
        yield Fill(
            source=origin.source, symbol=fill.symbol, from_ms=fill.from_ms, to_ms=fill.to_ms,
            received=origin.received_ms, **outcome,
        )  # fmt: skip
    for symbol, sessions in found.sessions.items():
        yield QuoteSessions(
            source=origin.source, symbol=symbol, utc_offset_s=found.utc_offset_seconds, sessions=sorted(sessions),
            received=origin.received_ms,
        )  # fmt: skip
