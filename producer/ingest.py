"""What happens to one request on the ingest routes, from its headers to its answer."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import tzinfo
from functools import lru_cache
from typing import Any, Final

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from marketdata.contract import http
from marketdata.contract.bar import read_bar
from marketdata.contract.body import decode
from marketdata.contract.fields import is_bar
from marketdata.contract.fills import MAX_FILLS_BYTES, read_reports
from marketdata.contract.http import (
    BARS_ROUTE,
    MAX_DETAILS,
    TICKS_ROUTE,
    Detail,
    Refusal,
    TooLarge,
    Unusable,
    check_said_once,
    is_dry_run,
    sender_in,
)
from marketdata.contract.large_body import LARGE_BYTES, NO_MORE, Piece, large_pieces
from marketdata.contract.tick import read_tick
from marketdata.contract.times import Clock, offset_zone
from marketdata.errors import InvalidItem, KafkaUnavailable
from marketdata.wire import bar_key, encode
from producer.auth import Keyring, NewSymbols
from producer.bulk import BulkBody, decode_bulk, read_bulk
from producer.fills import Fills, answer_to
from producer.metrics import Metrics
from producer.publisher import Gateway
from producer.records import FrameWriter, Newest, Origin, ReadBody, RejectWriter
from producer.senders import ReferenceData
from runtime import clock
from runtime.api_keys import ApiKey, Rates
from runtime.batches import Record
from runtime.request_body import TURN_BYTES, Intake, Place
from runtime.settings import Settings
from runtime.telemetry import (
    Telemetry,
    TraceContext,
    parse_traceparent,
    seconds_between,
    trace_id_of,
)

log = structlog.get_logger(__name__)

_encoder: Final = msgspec.json.Encoder()

#: Source of a sender whose key may speak for any, and that names neither a source nor a server.
DEFAULT_SOURCE: Final = "default"

#: A trace id that may stand in logs and headers: printable ASCII, no space at the ends.
_TRACE: Final = re.compile(rb"[!-~](?:[ -~]{0,62}[!-~])?")

#: After how many seconds an EA should try again: Kafka away, too many requests at once.
_RETRY_KAFKA_SECONDS: Final = 2
_RETRY_CROWDED_SECONDS: Final = 1

#: Answers to bodies that are accepted whole, which differ in the number of ticks alone (entries).
_CACHED_ANSWERS: Final = 256

#: Rejected items of a large body that wait in memory (entries); then they are stored before the rest is read.
_MAX_REJECTS: Final = 5_000

_StoreBody = Callable[[bytes, Origin, ApiKey, Place], Awaitable[Response]]


class Ingest:
    """Both ingest routes: authenticates, reads, converts, publishes, answers.

    Raises:
        SettingsError: when no API key is configured.
    """

    def __init__(
        self,
        settings: Settings,
        gateway: Gateway,
        metrics: Metrics,
        telemetry: Telemetry,
        reference: ReferenceData,
        *,
        fills: Fills,
    ) -> None:
        self._settings = settings
        self._gateway = gateway
        self._metrics = metrics
        self._telemetry = telemetry
        self._reference = reference
        self._fills = fills
        self.keyring = Keyring(settings)
        metrics.key_ends.of_keys = self.keyring.keys.ends
        self._rates = Rates(settings.rate_limit_per_second)
        self._new_symbols = NewSymbols(settings.max_new_symbols_per_hour)
        self._frames = FrameWriter(settings)
        self._rejects = RejectWriter(settings)
        self._pending = 0
        self._intake = Intake(max(settings.max_tick_body_bytes, settings.max_bar_body_bytes))
        # What a large body becomes fills the memory once, not once for each that waits.
        self._large = asyncio.Lock()

    async def ticks(self, request: Request) -> Response:
        """POST /ingest/tick."""
        return await self._answer(request, TICKS_ROUTE, self._settings.max_tick_body_bytes)

    async def bars(self, request: Request) -> Response:
        """POST /ingest."""
        return await self._answer(request, BARS_ROUTE, self._settings.max_bar_body_bytes)

    async def fills(self, request: Request) -> Response:
        """POST /fills."""
        return await self._answer(request, http.FILLS_ROUTE, MAX_FILLS_BYTES, self._take_reports)

    async def _answer(
        self, request: Request, route: str, limit_bytes: int, store: _StoreBody | None = None
    ) -> Response:
        headers = dict(request.scope["headers"])
        span = self._telemetry.begin("ingest", parse_traceparent(headers.get(b"traceparent")))
        context = span.context
        trace = _trace(headers.get(b"x-trace-id"), context)
        self._metrics.in_flight += 1
        key = None
        try:
            check_said_once(headers, request.scope["headers"])
            key, source = self.keyring.identify(headers)
            self._rates.request(key)
            response = await self._take(
                request, headers, key, source, trace=trace, context=context, limit_bytes=limit_bytes, store=store
            )
        except Refusal as refusal:
            # While Kafka is away every request is refused; that was logged once, when it went.
            (log.debug if refusal.status == 503 else log.warning)(
                "Refused a request.", action="refused", trace=trace, trace_id=context.trace_id, route=route,
                status=refusal.status, code=refusal.code, reason=refusal.message,
            )  # fmt: skip
            response = refused(refusal)
        finally:
            self._metrics.in_flight -= 1
        self._metrics.answered(route, response.status_code, None if key is None else key.name)
        # By `headers` it would take five times as long.
        response.raw_headers.append((b"x-trace-id", trace.encode()))
        span.end(route=route, status=response.status_code, trace=trace)
        return response

    async def _take(
        self,
        request: Request,
        headers: Mapping[bytes, bytes],
        key: ApiKey,
        source: str | None,
        *,
        trace: str,
        context: TraceContext,
        limit_bytes: int,
        store: _StoreBody | None,
    ) -> Response:
        if not self._gateway.is_open:
            raise _kafka_refusal("Kafka cannot be reached")
        address, _ = request.scope.get("client") or ("", 0)
        # A key for any source is often the only one; its users are told apart by their addresses.
        with self._intake.place(address if key.speaks_for_any else key.name) as place:
            body = await place.read(request.receive, headers, limit_bytes)
            sender = sender_in(headers, body)
            origin = Origin(
                source or sender.server or DEFAULT_SOURCE, trace, context, clock.now_ms(),
                sender=sender, address=address,
                can_fill=b"x-can-fill" in headers and http.says_ticks(headers[b"x-can-fill"]),
                is_fill=b"x-fill" in headers and http.says_ticks(headers[b"x-fill"]),
            )  # fmt: skip
            if is_dry_run(headers):
                return await self._dry_run(body, origin, place) if store is None else _dry_reports(body, origin)
            # Bodies that are still on their way take none of these places.
            if self._pending >= self._settings.max_pending_requests:
                raise Refusal(
                    503, "BACK_PRESSURE", "too many requests wait", retry_after_seconds=_RETRY_CROWDED_SECONDS
                )
            self._pending += 1
            try:
                if store is None:
                    store = self._store if len(body) < LARGE_BYTES else self._take_large
                return await store(body, origin, key, place)
            except KafkaUnavailable as exc:
                raise _kafka_refusal(str(exc)) from exc
            finally:
                self._pending -= 1

    async def _dry_run(self, body: bytes, origin: Origin, place: Place) -> Response:
        """The answer that the body would get; nothing of it is stored or counted."""
        if len(body) >= LARGE_BYTES:
            raise TooLarge(f"a dry run takes bodies of less than {LARGE_BYTES:,} bytes")
        found = ReadBody()
        async for _ in self._pieces(body, found, origin, place):
            found.rejects = []
        if found.errors and found.errors == found.received:
            raise http.none_usable(found.details, found.errors)
        return taken(found.received, found.details, found.errors, dry_run_for=origin.source)

    async def _take_reports(self, body: bytes, origin: Origin, key: ApiKey, _: Place) -> Response:
        found = read_reports(body, origin.received_ms)
        status, answer = answer_to(found)
        self._new_symbols.check(key.name, found.symbols)
        await self._fills.take(found, origin)
        return json_response(status, answer)

    async def _take_large(self, body: bytes, origin: Origin, key: ApiKey, place: Place) -> Response:
        async with self._large:
            return await self._store(body, origin, key, place)

    async def _store(self, body: bytes, origin: Origin, key: ApiKey, place: Place) -> Response:
        found = ReadBody()
        try:
            if len(body) < TURN_BYTES:
                self._read(next(large_pieces(body, decode_bulk)), found, origin)
            else:
                async for _ in self._pieces(body, found, origin, place):
                    if len(found.rejects) >= _MAX_REJECTS:
                        await self._gateway.publish(found.rejects)
                        found.rejects = []
        except Unusable as unusable:
            if body:
                await self._gateway.publish([self._rejects.body(body, unusable.message, origin)])
            self._metrics.items_rejected.labels(origin.source).inc()
            raise
        self._new_symbols.check(key.name, found.symbols)
        self._rates.sent(key, found.received)
        accepted = found.received - found.errors
        newest = found.ticks.newest()
        records = self._records(found, origin)
        # The ticks of all bodies that wait for Kafka would fill the processor's cache, and the next body would be read
        # into memory outside of it: a tenth of all the work on a body of 200 ticks.
        found.ticks.symbols.clear()
        await self._gateway.publish(records)
        self._count(found, newest, accepted, origin)
        wanted = self._fills.wanted.newest(origin.source) if origin.can_fill else ()
        if not found.errors:
            return taken(found.received, (), 0, wanted=wanted)
        log.warning(
            "Some items of a body cannot be used.", action="items_rejected", trace=origin.trace,
            trace_id=trace_id_of(origin.headers), source=origin.source, errors=found.errors, accepted=accepted,
            first=found.details[0].message,
        )  # fmt: skip
        if not accepted:
            raise http.none_usable(found.details, found.errors)
        return taken(found.received, found.details, found.errors, wanted=wanted)

    def _records(self, found: ReadBody, origin: Origin) -> list[Record]:
        return [
            *self._frames.records(found.ticks, origin),
            *(
                Record(self._settings.broker_candles_topic, bar_key(bar), encode(bar), None, origin.headers)
                for bar in found.bars
            ),
            *found.rejects,
        ]

    async def _pieces(self, body: bytes, found: ReadBody, origin: Origin, place: Place) -> AsyncIterator[None]:
        """Add what the items of a body hold, each piece in a turn of its own."""
        pieces = large_pieces(body, decode_bulk)
        while True:
            async with place.turn():
                if (piece := next(pieces, NO_MORE)) is NO_MORE:
                    return
                self._read(piece, found, origin)
            yield

    def _read(self, piece: Piece | None, found: ReadBody, origin: Origin) -> None:
        """Add what the items of a body, or of a piece of one, hold."""
        if piece is None:
            return
        items = piece.items
        clock = found.clock = found.clock or self._clock(piece.utc_offset_seconds, origin)
        done = 0
        if isinstance(items, BulkBody):
            done = read_bulk(items, clock, found.ticks)
            if done == len(items.ticks):
                found.received += done
                return
            items = decode(piece.raw)
        first = found.received
        found.received += len(items.items)
        for index, item in enumerate(items.items[done:], first + done):
            try:
                if is_bar(item):
                    found.bars.append(read_bar(item).of(origin.source, clock, origin.received_ms))
                else:
                    tick = read_tick(item)
                    found.ticks.add(tick, clock.utc_ms(tick.time, tick.symbol))
            except InvalidItem as exc:
                self._note(found, index, item, exc, origin)

    def _note(self, found: ReadBody, index: int, item: Any, exc: InvalidItem, origin: Origin) -> None:
        found.errors += 1
        if len(found.details) < MAX_DETAILS:
            found.details.append(Detail(index, exc.field, exc.message))
        reason = f"{exc.field}: {exc.message}" if exc.field else exc.message
        found.rejects.append(self._rejects.item(item, index, reason, origin))

    def _clock(self, utc_offset_seconds: int | None, origin: Origin) -> Clock:
        zone: tzinfo | None
        if utc_offset_seconds is None:
            zone = self._settings.zones.get(origin.source)
        else:
            zone = offset_zone(utc_offset_seconds)
        return Clock(zone, origin.received_ms)

    def _count(self, found: ReadBody, newest: Sequence[Newest], accepted: int, origin: Origin) -> None:
        metrics = self._metrics
        if bars := len(found.bars):
            metrics.bars_accepted.labels(origin.source).inc(bars)
        if accepted > bars:
            (metrics.fills.ticks if origin.is_fill else metrics.ticks_accepted).labels(origin.source).inc(
                accepted - bars
            )
        if late := found.ticks.late:
            metrics.ticks_late.labels(origin.source).inc(late)
        if found.errors:
            metrics.items_rejected.labels(origin.source).inc(found.errors)
        if not accepted:
            return
        received_ms = origin.received_ms
        metrics.source_watch.sender(origin.source, origin.sender, received_ms)
        self._reference.count(origin, accepted - bars, bars, late)
        metrics.logged_seconds.observe(seconds_between(received_ms, clock.now_ms()))
        newest_ms = 0
        # What fills a hole is history: it tells nothing of lag, of a zone, or of whether the feed lives.
        for symbol, time_msc, point in () if origin.is_fill else newest:
            newest_ms = max(newest_ms, time_msc)
            metrics.ticks_of_symbol(origin.source, symbol, time_msc, received_ms)
            if point is not None:
                self._reference.quoted(origin.source, symbol, point, received_ms)
        if newest_ms and found.clock is not None:
            metrics.source_watch.ticks(origin.source, found.clock, newest_ms, received_ms)


def _dry_reports(body: bytes, origin: Origin) -> Response:
    return json_response(*answer_to(read_reports(body, origin.received_ms)))


def _trace(given: bytes | None, context: TraceContext) -> str:
    return given.decode() if given is not None and _TRACE.fullmatch(given) else context.trace_id


def _kafka_refusal(message: str) -> Refusal:
    return Refusal(503, "KAFKA_UNAVAILABLE", message, retry_after_seconds=_RETRY_KAFKA_SECONDS)


class _JsonResponse(Response):
    """JSON, whose headers are written as they go out; Starlette's way to them costs 3 µs (measured)."""

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        self.raw_headers = [(b"content-length", b"%d" % len(self.body)), (b"content-type", b"application/json")]
        for name, value in (headers or {}).items():
            self.raw_headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))


def json_response(status: int, content: object, headers: dict[str, str] | None = None) -> Response:
    """`content` as JSON."""
    return _JsonResponse(_encoder.encode(content), status, headers)


def taken(
    received: int,
    details: Sequence[Detail],
    errors: int,
    *,
    dry_run_for: str | None = None,
    wanted: Sequence[http.Wanted] = (),
) -> Response:
    """200 when `errors` is 0, else 207: every valid item is in Kafka."""
    if not errors and dry_run_for is None and not wanted:
        return _JsonResponse(_all_taken(received))
    return json_response(*http.taken(received, details, errors, dry_run_for=dry_run_for, wanted=wanted))


@lru_cache(_CACHED_ANSWERS)
def _all_taken(received: int) -> bytes:
    _, answer = http.taken(received, (), 0)
    return _encoder.encode(answer)


def refused(refusal: Refusal) -> Response:
    """The answer that a refusal stands for."""
    answer, headers = http.refused(refusal)
    return json_response(refusal.status, answer, headers)
