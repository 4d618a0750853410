"""The live stream of ticks: every record of some feeds, as it is in the log, from a consumer of the client's own.

The client's pace is the consumer's: what a slow client has not taken stays in Kafka, so its memory is bounded. Streams
are few, because each reads every partition.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError
from fastapi import FastAPI
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dashboard.access import Places
from dashboard.answers import Refusal, refusals
from dashboard.candles import check_names
from dashboard.routes import STRICT, LastEventId, Since, StreamSource, TickSymbols, client_of
from dashboard.stream import STREAM_HEADERS, event
from marketdata.errors import InvalidFrame, TickpipeError
from marketdata.refold import iso_milliseconds
from marketdata.wire import decode_frame, frame_key
from runtime.kafka import Ends, log_ends, new_consumer
from runtime.kafka_errors import kafka_errors

if TYPE_CHECKING:
    from dashboard.app import Parts

#: Streams at once: each reads the whole topic, and fetches ahead.
_MOST: Final = 20
_MOST_SYMBOLS: Final = 50

#: Records of one poll: of 200 ticks each, some megabytes of events.
_POLL_RECORDS: Final = 100
#: A quiet stream is sent a ping this often (milliseconds).
_PING_MS: Final = 5_000

#: By partition, the next offset to read.
Positions = dict[int, int]


def parse_positions(event_id: str) -> Positions:
    """The positions that an event's id contains.

    Raises:
        Refusal: 400 for anything else.
    """
    positions = {}
    for part in event_id.split(","):
        partition, _, offset = part.partition(":")
        if not (part.isascii() and partition.isdecimal() and offset.isdecimal() and len(part) < 30):
            raise Refusal(400, "INVALID_PARAMETER", "since: take the id of an event of this stream, or leave it out")
        positions[int(partition)] = int(offset)
    return positions


def event_id(positions: Mapping[int, int]) -> str:
    """The id that a stream is resumed from."""
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted(positions.items()))


def resume(ends: Ends, since: Positions | None) -> tuple[Positions, list[dict[str, int]]]:
    """Where reading begins in each partition, and the gaps: offsets that were to be read and are not in the log.

    Without `since` it begins at the end. A partition that `since` does not name is new: all of it is read.
    """
    if since is None:
        return {partition: end for partition, (_, end) in ends.items()}, []
    positions, gaps = {}, []
    for partition, (first, end) in ends.items():
        wanted = since.get(partition, first)
        positions[partition] = min(max(wanted, first), end)
        if wanted != positions[partition]:
            gaps.append({"partition": partition, "from": wanted, "to": positions[partition]})
    return positions, gaps


class Wanted:
    """The feeds that a stream asks for, told by the keys of records: others need not be decoded."""

    def __init__(self, symbols: Collection[str], source: str | None) -> None:
        self._keys = None if source is None else {frame_key(source, symbol) for symbol in symbols}
        self._symbols = {frame_key("", symbol).rpartition(b"/")[2] for symbol in symbols}

    def __contains__(self, key: bytes | None) -> bool:
        if key is None:
            return False
        return key in self._keys if self._keys is not None else key.rpartition(b"/")[2] in self._symbols


def ticks_event(record: Any, positions: Mapping[int, int]) -> bytes:
    """The event of one record; empty when it holds no frame, which `ticks.rejected` tells of."""
    try:
        frame = decode_frame(record.value)
    except InvalidFrame:
        return b""
    content = {
        "symbol": frame.symbol,
        "source": frame.source,
        "partition": record.partition,
        "offset": record.offset,
        "received": iso_milliseconds(frame.received),
        "request": frame.request,
        "ticks": [msgspec.structs.asdict(tick) for tick in frame.ticks],
    }
    return b"id: " + event_id(positions).encode() + b"\n" + event("ticks", content)


class TickStream(StreamingResponse):
    """The answer to `/stream/ticks`."""

    def __init__(self, parts: "Parts", places: Places, wanted: Wanted, since: Positions | None) -> None:
        super().__init__((), headers=STREAM_HEADERS, media_type="text/event-stream")
        self._settings, self._admin = parts.settings, parts.log_clients.admin
        self._places, self._wanted, self._since = places, wanted, since

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client is gone or Kafka does not answer; of HEAD the headers alone.

        Raises:
            Refusal: 503 when there are too many streams, or Kafka does not answer.
        """
        with self._places.place(client_of(HttpRequest(scope))):
            if scope["method"] == "HEAD":
                await Response(headers=dict(self.headers))(scope, receive, send)
                return
            try:
                async with self._admin.client() as client:
                    ends = await log_ends(self._settings, self._settings.ticks_topic, client)
                async with self._consumer(ends) as (consumer, positions, gaps):
                    self.body_iterator = self._events(consumer, positions, gaps)
                    await super().__call__(scope, receive, send)
            except TickpipeError as exc:
                raise Refusal(503, "KAFKA_UNAVAILABLE", str(exc), Retry_After="5") from exc

    @asynccontextmanager
    async def _consumer(self, ends: Ends) -> AsyncIterator[tuple[AIOKafkaConsumer, Positions, list[dict[str, int]]]]:
        settings = self._settings
        consumer = new_consumer(settings, auto_offset_reset="none")
        try:
            with kafka_errors(settings, topic=settings.ticks_topic, right="READ"):
                await consumer.start()
            consumer.assign([TopicPartition(settings.ticks_topic, partition) for partition in ends])
            positions, gaps = resume(ends, self._since)
            for partition, offset in positions.items():
                consumer.seek(TopicPartition(settings.ticks_topic, partition), offset)
            yield consumer, positions, gaps
        finally:
            await consumer.stop()

    async def _events(
        self, consumer: AIOKafkaConsumer, positions: Positions, gaps: list[dict[str, int]]
    ) -> AsyncIterator[bytes]:
        yield b"retry: 1000\n\n" + b"".join(event("gap", gap) for gap in gaps) + _ping(positions)
        settings = self._settings
        while True:
            try:
                with kafka_errors(settings, topic=settings.ticks_topic, right="READ"):
                    polled = await consumer.getmany(timeout_ms=_PING_MS, max_records=_POLL_RECORDS)
            except (TickpipeError, OffsetOutOfRangeError):
                # The client comes back with the id of its last event, and is told what is the matter then.
                return
            text = []
            for tp, records in polled.items():
                for record in records:
                    positions[tp.partition] = record.offset + 1
                    if record.key in self._wanted:
                        text.append(ticks_event(record, positions))
            if content := b"".join(text):
                yield content
            elif not polled:
                yield _ping(positions)


def _ping(positions: Positions) -> bytes:
    return b"id: " + event_id(positions).encode() + b"\n" + event("ping", {})


def add_tick_stream(app: FastAPI, parts: "Parts") -> None:
    """Add the route to the application."""
    places = Places(min(_MOST, parts.settings.dashboard_max_streams), "live streams of ticks")

    @app.head("/stream/ticks", include_in_schema=False, dependencies=STRICT)
    @app.get(
        "/stream/ticks", tags=["ticks"], response_class=StreamingResponse, dependencies=STRICT,
        responses={200: {"content": {"text/event-stream": {}}}, **refusals(400, 503)},
    )  # fmt: skip
    async def stream_ticks(
        *,
        symbol: TickSymbols,
        source: StreamSource = None,
        since: Since = None,
        last_event_id: LastEventId = None,
    ) -> Response:
        """Ticks as they are received, as server-sent events: what arrives twice is told twice, as with `raw`.

        `ticks`: one record of the log, with its place in it (`partition`, `offset`), the receipt and id of its request,
        and its ticks. Records of one feed come in the order of the log. `ping`: nothing was received for five seconds.
        `gap`: records that were to be read are not in the log, `from` an offset up to another.

        A stream begins with what is received from now on. One that is resumed, by the header Last-Event-ID or `since`,
        goes on behind that event; an id holds the next offset of each partition.
        """
        if len(symbol) > _MOST_SYMBOLS:
            raise Refusal(400, "INVALID_PARAMETER", f"symbol: {_MOST_SYMBOLS} at most")
        for name in symbol:
            check_names(name, source or None)
        asked = last_event_id or since
        return TickStream(parts, places, Wanted(symbol, source or None), parse_positions(asked) if asked else None)
