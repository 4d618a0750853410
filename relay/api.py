"""The local API that EAs post to, as a bare ASGI application: an EA waits for each answer, and a framework would cost
more than the work itself.
"""

import asyncio
import hmac
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from marketdata.contract.body import decode, text_of
from marketdata.contract.http import (
    BARS_ROUTE,
    CAN_FILL,
    FILL,
    FILLS_ROUTE,
    MAX_DETAILS,
    TICKS_ROUTE,
    Detail,
    Refusal,
    Sender,
    TooLarge,
    Unusable,
    Wanted,
    check_said_once,
    is_dry_run,
    key_in,
    none_usable,
    refused,
    route_of,
    says_ticks,
    sender_in,
    source_in,
    taken,
)
from marketdata.contract.large_body import LARGE_BYTES, NO_MORE, large_pieces
from marketdata.contract.times import Clock, offset_zone
from marketdata.errors import InvalidItem
from relay.back_channel import Wishes, add_reports, count_reports
from relay.collector import Collected
from relay.database import StoreUnavailable, explained
from relay.forwarder import Totals
from relay.item import Facts, NewRow, PackedRows, as_json, read_item
from relay.metrics import Metrics
from relay.pending import STORED_CHARACTERS, store_refused
from relay.status import Status, recent
from relay.store import Store
from runtime.health import Health
from runtime.pages import ASK_FOR_KEY, HEADERS, language_of, password_in
from runtime.request_body import TURN_BYTES, Intake, Place, Receive, Scope, Send
from runtime.settings import Settings

log = structlog.get_logger(__name__)

#: The key that senders must show; needed when other machines can reach the relay.
KEY_VARIABLE: Final = "TICKPIPE_RELAY_KEY"

_GETS: Final = frozenset({"/", "/debug/recent", "/health", "/stats", "/metrics"})

#: These show prices and who sends them.
_NEED_KEY: Final = frozenset({"/", "/debug/recent"})

#: Refused items of a large body that wait in memory (entries); then they are stored before the rest is read.
_MAX_REFUSED: Final = 5_000

#: Largest body of reports (bytes), as on the server.
_MAX_REPORT_BYTES: Final = 4 * 1024 * 1024

#: Pages and numbers that are put together at a time (threads).
_LOOKS: Final = 2

_encode: Final = msgspec.json.Encoder().encode

T = TypeVar("T")


class Answer(msgspec.Struct, gc=False):
    """A response."""

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]] = []
    content_type: bytes = b"application/json"


class Api:
    """The application; senders must show `key` unless it is empty."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        key: str = "",
        totals: Totals | None = None,
        health: Health | None = None,
        server_url: str = "",
        collected: Collected | None = None,
        wishes: Wishes | None = None,
    ) -> None:
        self._store = store
        self._wishes = wishes or Wishes()
        self._parts = health or Health()
        counts = self._wishes.counts
        self._status = Status(store, totals, self._parts, counts, server_url=server_url, collected=collected)
        self._key = key.encode()
        self._limits = {
            TICKS_ROUTE: settings.max_tick_body_bytes, BARS_ROUTE: settings.max_bar_body_bytes,
            FILLS_ROUTE: _MAX_REPORT_BYTES,
        }  # fmt: skip
        self._intake = Intake(max(self._limits.values()))
        # Large bodies are decoded one at a time: their objects fill the memory once, not once for each that waits.
        self._large = asyncio.Lock()
        self._looks = ThreadPoolExecutor(_LOOKS, "look")
        self.metrics = Metrics(store, totals, self._status.backlog, counts, collected)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        path, method = route_of(scope["path"]), scope["method"]
        try:
            answer = await self._answer(path, method, scope, receive)
        except Refusal as exc:
            answer = _refused(exc)
        except StoreUnavailable as exc:
            answer = _refused(Refusal(503, "STORE_UNAVAILABLE", str(exc), retry_after_seconds=exc.retry_after_seconds))
        except sqlite3.Error as exc:
            answer = _refused(Refusal(503, "STORE_UNAVAILABLE", str(explained(exc)), retry_after_seconds=5))
        except Exception as exc:
            log.error("A request failed; this is a bug.", action="internal_error", path=path, exc_info=exc)
            answer = _refused(Refusal(500, "INTERNAL", "an internal error; it is in the log"))
        route = path if path in self._limits or path in _GETS else "other"
        self.metrics.requests.labels(route, answer.status).inc()
        length = str(len(answer.body)).encode()
        headers = [(b"content-type", answer.content_type), (b"content-length", length), *answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        body = b"" if method == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, path: str, method: str, scope: Scope, receive: Receive) -> Answer:
        if path in self._limits:
            if method != "POST":
                raise Refusal(405, "METHOD_NOT_ALLOWED", "POST is expected")
            address, _ = scope.get("client") or ("", 0)
            return await self._ingest(path, scope["headers"], receive, address)
        if path not in _GETS:
            raise Refusal(
                404, "NOT_FOUND",
                "there is POST /ingest/tick, /ingest, /fills; GET / (a page), /health, /stats, /debug/recent, /metrics",
            )  # fmt: skip
        if method not in ("GET", "HEAD"):
            raise Refusal(405, "METHOD_NOT_ALLOWED", "GET is expected")
        headers = dict(scope["headers"])
        if path in _NEED_KEY and not self._knows_reader(headers):
            return _ask_for_key()
        if path == "/metrics":
            # Some of them are read from the database.
            text = await self._look(generate_latest, self.metrics.registry)
            return Answer(200, text, content_type=CONTENT_TYPE_LATEST.encode())
        return await self._shown(path, headers, scope.get("query_string", b"").decode("latin-1"))

    async def _shown(self, path: str, headers: Mapping[bytes, bytes], query: str) -> Answer:
        if path == "/health" and self._parts.failed:
            return Answer(503, _encode({"ok": False, "failed": self._parts.failed}))
        if path == "/":
            language = language_of(query, headers.get(b"accept-language", b"").decode("latin-1"))
            return Answer(200, await self._look(self._status.page, language), _PAGE_HEADERS, _HTML)
        if path == "/debug/recent":
            return Answer(200, _encode({"rows": await self._look(recent, self._store, query)}))
        found = await self._look(self._status.stats if path == "/stats" else self._status.health)
        return Answer(200, _encode(found))

    async def _look(self, work: Callable[..., T], *values: Any) -> T:
        """What `work` finds in the database, in a thread for that alone.

        The first look at a large file counts its rows, which may take a minute; what EAs post must not wait behind it.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._looks, work, *values)
        except asyncio.CancelledError:
            # uvicorn cancels requests when it ends, and would log this as a bug.
            raise Refusal(503, "ENDING", "the relay is ending", retry_after_seconds=5) from None

    def close(self) -> None:
        """Wait until nobody looks any more; the store ends queries when it is told to."""
        self._looks.shutdown(cancel_futures=True)

    def _knows_reader(self, headers: Mapping[bytes, bytes]) -> bool:
        if not self._key:
            return True
        password = password_in(headers.get(b"authorization", b"").decode("latin-1"))
        return hmac.compare_digest(key_in(headers) if password is None else password, self._key)

    async def _ingest(self, path: str, pairs: Sequence[tuple[bytes, bytes]], receive: Receive, address: str) -> Answer:
        headers = dict(pairs)
        check_said_once(headers, pairs)
        if b"origin" in headers:
            # Only browsers send it, and no web page may write ticks through its reader's machine.
            raise Refusal(403, "FORBIDDEN", "requests of web pages are not taken")
        if self._key and not hmac.compare_digest(key_in(headers), self._key):
            raise Refusal(401, "UNAUTHORIZED", "send the key as `X-API-Key: KEY` or `Authorization: Bearer KEY`")
        source = source_in(headers)
        with self._intake.place(address) as place:
            raw = await place.read(receive, headers, self._limits[path])
            sender = sender_in(headers, raw)
            if path == FILLS_ROUTE:
                return await self._report(
                    raw,
                    Facts(source, server=sender.server or None, account=sender.account or None),
                    is_dry=is_dry_run(headers),
                )
            said = _Said(source, sender, says_ticks(headers.get(FILL.lower().encode(), b"")))
            if is_dry_run(headers):
                return await self._dry_run(raw, said, place)
            if path == TICKS_ROUTE and says_ticks(headers.get(CAN_FILL.lower().encode(), b"")):
                said = said._replace(wanted=self._wishes.of(said.name))
                self._wishes.note_sender(said.name)
            if len(raw) < LARGE_BYTES:
                return await self._take(raw, said, place)
            async with self._large:
                return await self._take(raw, said, place)

    async def _report(self, raw: bytes, facts: Facts, *, is_dry: bool) -> Answer:
        received = count_reports(raw)
        if not is_dry:
            await asyncio.to_thread(self._store.run, lambda connection: add_reports(connection, raw, facts))
        return Answer(200, _encode({"ok": True, "queued": True, "received": received}))

    async def _dry_run(self, raw: bytes, said: "_Said", place: Place) -> Answer:
        if len(raw) >= LARGE_BYTES:
            raise TooLarge(f"a dry run takes bodies of less than {LARGE_BYTES:,} bytes")
        async for found in self._pieces(raw, said, place):
            found.rows, found.refused = [], []
        if found.errors and found.errors == found.received:
            raise none_usable(found.details, found.errors)
        status, answer = taken(found.received, found.details, found.errors, dry_run_for=said.name)
        return Answer(status, _encode(answer))

    async def _take(self, raw: bytes, said: "_Said", place: Place) -> Answer:
        try:
            found, rows = await self._read(raw, said, place)
        except Unusable as exc:
            if raw:
                await self._store_refused([(text_of(raw[: 4 * STORED_CHARACTERS]), exc.message)])
            raise
        self.metrics.items_rejected.inc(found.errors)
        if rows:
            await self._store.insert(rows)
        if found.refused:
            await self._store_refused(found.refused)
        if found.errors and not rows:
            raise none_usable(found.details, found.errors)
        self.metrics.rows_stored.inc(len(rows))
        status, answer = taken(found.received, found.details, found.errors, queued=True, wanted=said.wanted)
        return Answer(status, _encode(answer))

    async def _read(self, raw: bytes, said: "_Said", place: Place) -> "tuple[_Found, Sequence[NewRow] | PackedRows]":
        """The items of a body and their rows; other requests go on between the pieces of a long one."""
        if len(raw) < TURN_BYTES:
            found = _read_whole(raw, said)
            return found, found.rows
        rows = PackedRows()
        async for found in self._pieces(raw, said, place):
            rows.extend(found.rows)
            found.rows = []
            if len(found.refused) >= _MAX_REFUSED:
                await self._store_refused(found.refused)
                found.refused = []
        return found, rows

    async def _pieces(self, raw: bytes, said: "_Said", place: Place) -> "AsyncIterator[_Found]":
        """What is found in a body, after each of its pieces, which have a turn each."""
        pieces = large_pieces(raw)
        found: _Found | None = None
        while True:
            async with place.turn():
                if (piece := next(pieces, NO_MORE)) is NO_MORE:
                    return
                if piece is not None:
                    found = found or _Found(piece.utc_offset_seconds, said)
                    found.add(piece.items.items)
            if found is not None:
                yield found

    async def _store_refused(self, refused_items: Sequence[tuple[str, str]]) -> None:
        await asyncio.to_thread(store_refused, self._store, refused_items)


class _Said(NamedTuple):
    """What the headers of a request say."""

    source: str | None
    sender: Sender
    #: Its ticks were asked for by the server.
    is_fill: bool
    #: What the answer asks for.
    wanted: Sequence[Wanted] = ()

    @property
    def name(self) -> str:
        """The source, where it is left to the sender."""
        return self.source or self.sender.server


class _Found:
    """The rows and the refused items of a body, or of its pieces so far."""

    def __init__(self, utc_offset_seconds: int | None, said: _Said) -> None:
        self._offset_seconds, self._said = utc_offset_seconds, said
        zone = None if utc_offset_seconds is None else offset_zone(utc_offset_seconds)
        self._clock = Clock(zone, now_ms=None, is_known=zone is not None)
        self.received = 0
        #: Rows that nobody has taken from here yet.
        self.rows: list[NewRow] = []
        #: How many items cannot be used; those of them that are not stored yet, as text, each with the reason; and the
        #: first of them for the answer.
        self.errors = 0
        self.refused: list[tuple[str, str]] = []
        self.details: list[Detail] = []

    def add(self, items: Sequence[Any]) -> None:
        for index, item in enumerate(items, self.received):
            try:
                row = read_item(
                    item, self._clock, utc_offset_seconds=self._offset_seconds, source=self._said.source,
                    sender=self._said.sender, is_fill=self._said.is_fill,
                )  # fmt: skip
                self.rows.append(row)
            except InvalidItem as exc:
                self.errors += 1
                self.refused.append((_text_of_item(item), f"{exc.field}: {exc.message}"))
                if len(self.details) < MAX_DETAILS:
                    self.details.append(Detail(index, exc.field, exc.message))
        self.received += len(items)


def _read_whole(raw: bytes, said: _Said) -> _Found:
    body = decode(raw)
    found = _Found(body.utc_offset_seconds, said)
    found.add(body.items)
    return found


def _text_of_item(item: object) -> str:
    try:
        return as_json(item)
    except InvalidItem as exc:
        return f'"{exc.message}"'


def _ask_for_key() -> Answer:
    answer = _refused(Refusal(401, "UNAUTHORIZED", f"send {KEY_VARIABLE} as X-API-Key, or as password in a browser"))
    answer.headers = _lower(ASK_FOR_KEY)
    return answer


def _refused(refusal: Refusal) -> Answer:
    answer, headers = refused(refusal)
    return Answer(refusal.status, _encode(answer), _lower(headers))


def _lower(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI wants them."""
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


_HTML: Final = HEADERS["Content-Type"].encode()
_PAGE_HEADERS: Final = _lower({name: value for name, value in HEADERS.items() if name != "Content-Type"})
