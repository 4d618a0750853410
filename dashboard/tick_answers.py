"""Answers requests of ticks: small pages as one piece, large ones while they are read.

Reading the log takes longer than reading a table, so few requests do it at once.
"""

import asyncio
import gzip
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dashboard.access import Turns
from dashboard.answers import Refusal, etag_of, has_current
from dashboard.candles import source_asked
from dashboard.formats import MEDIA_TYPES, choose_format, render_page, tick_form
from dashboard.routes import client_of
from dashboard.ticks import (
    Outline,
    Page,
    TickRequest,
    following,
    outline,
    read_outlined,
    read_page,
    reader_of,
    spans_of,
)
from marketdata.errors import TickpipeError

if TYPE_CHECKING:
    from dashboard.app import Parts
    from sink.ticks import TickReader

#: Requests that read the log at once: each holds up to some 100 MB and the processor of one core.
_AT_ONCE: Final = 2

#: How long a request waits for its turn, and how long it may read (seconds).
_PATIENCE_SECONDS: Final = 5.0
_READING_SECONDS: Final = 60.0

#: The fastest level that still makes a fifth of JSON.
_GZIP_LEVEL: Final = 3

#: Spans of lost minutes that the header names.
_SPANS: Final = 20


@asynccontextmanager
async def reading_the_log() -> AsyncIterator[None]:
    """Read within.

    Raises:
        Refusal: 504 when the reading takes too long; 503 when Kafka does not answer.
    """
    try:
        async with asyncio.timeout(_READING_SECONDS):
            yield
    except TimeoutError as exc:
        raise Refusal(504, "TOO_SLOW", "reading the log took too long; ask for less, or use `tickpipe ticks`") from exc
    except TickpipeError as exc:
        raise Refusal(503, "KAFKA_UNAVAILABLE", str(exc), Retry_After="5") from exc


def reading_turns() -> Turns:
    """The turns of all requests that read the log."""
    return Turns(_AT_ONCE, "read ticks", patience_seconds=_PATIENCE_SECONDS)


class Head(NamedTuple):
    """What is known of an answer before its content."""

    headers: Mapping[str, str]
    #: The content comes piece by piece, while it is read.
    is_streamed: bool


async def answer_ticks(
    parts: "Parts", turns: Turns, request: HttpRequest, asked: TickRequest, wanted_format: str | None
) -> Response:
    """The answer to a request of ticks.

    Raises:
        Refusal: when they cannot be read, as far as that shows before the first of them; later the connection is cut.
    """
    name = choose_format(wanted_format, request.headers.get("accept"))
    content = read_ahead(_content(parts, turns, request, asked, name))
    try:
        head = await anext(content)
        assert isinstance(head, Head)  # noqa: S101 - it is the first of them
        response: Response
        if has_current(request.headers, head.headers["ETag"]):
            response = Response(status_code=304)
        elif head.is_streamed and request.method == "HEAD":
            response = Response(media_type=MEDIA_TYPES[name])
            del response.headers["Content-Length"]
        elif head.is_streamed:
            response = _Streaming(content, MEDIA_TYPES[name], is_gzipped="gzip" in _encodings(request))
        else:
            response = Response(await anext(content), media_type=MEDIA_TYPES[name])
    except BaseException:
        await content.aclose()
        raise
    if not isinstance(response, _Streaming):
        await content.aclose()
    response.headers.update(head.headers)
    if response.status_code == 200 and not head.is_streamed and "gzip" in _encodings(request):
        # In a thread, which does it without the interpreter lock.
        response.body = await asyncio.to_thread(gzip.compress, response.body, _GZIP_LEVEL, mtime=0)
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Content-Length"] = str(len(response.body))
    return response


async def _content(
    parts: "Parts", turns: Turns, request: HttpRequest, asked: TickRequest, name: str
) -> AsyncGenerator[Head | bytes, None]:
    """The head of the answer, then its content."""
    async with turns.turn(client_of(request)), reading_the_log():
        async with parts.database.reading() as connection:
            asked = replace(asked, source=await source_asked(connection, asked.symbol, asked.source))
        page = Page(asked)
        if asked.source is not None and (asked.cursor is None or asked.cursor.time_msc < asked.end_ms):
            async with reader_of(parts.settings, parts.database, parts.log_clients, asked) as reader:
                if (outlined := await outline(reader, asked)) is not None:
                    is_sent = False
                    async with aclosing(_pieces(request, reader, outlined, name)) as pieces:
                        async for piece in pieces:
                            is_sent = True
                            yield piece
                    if is_sent:
                        return
                page = await read_page(reader, asked)
        leads_to = _leads_to(request, page)
        content = await render_page(name, page, leads_to)
        yield _head(page, leads_to, etag_of(content))
        yield content


async def _pieces(
    request: HttpRequest, reader: "TickReader", page: Outline, name: str
) -> AsyncGenerator[Head | bytes, None]:
    leads_to = _leads_to(request, page)
    form = tick_form(name, page, leads_to)
    begin: bytes | None = form.begin()
    async with aclosing(read_outlined(reader, page)) as batches:
        async for batch in batches:
            if begin is not None and batch.has_deals:
                # The table told how many deals there are, not how many ticks.
                return
            piece = form.add(batch)
            if begin is not None:
                # Until here what cannot be read is said by the status.
                yield _head(page, leads_to, page.etag(name))
                piece, begin = begin + piece, None
            yield piece
            await asyncio.sleep(0)
    yield form.end()


def _head(page: Page | Outline, leads_to: str | None, etag: str) -> Head:
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Accept, Accept-Encoding"}
    if leads_to:
        headers["Link"] = f'<{leads_to}>; rel="next"'
    if page.gone:
        spans = [f"{span['from']}/{span['to']}" for span in spans_of(page.gone)[:_SPANS]]
        headers |= {"Tickpipe-Gone-Minutes": str(len(page.gone)), "Tickpipe-Gone": ", ".join(spans)}
    return Head(headers, is_streamed=isinstance(page, Outline))


def _leads_to(request: HttpRequest, page: Page | Outline) -> str | None:
    """The URL of the next page, relative to the request's, because a proxy may prefix the paths."""
    route: str = request.scope["route"].path
    found = following(page.request, page.end)
    return found and "../" * (route.count("/") - 1) + found


def _encodings(request: HttpRequest) -> str:
    return request.headers.get("accept-encoding", "")


class _Streaming(StreamingResponse):
    """Sends content while it is read; when the client is gone, reading ends."""

    def __init__(self, content: AsyncGenerator[Head | bytes, None], media_type: str, *, is_gzipped: bool) -> None:
        body = _gzipped(content) if is_gzipped else content
        super().__init__(body, media_type=media_type)  # type: ignore[arg-type]  # the head was taken from it
        self._content = content
        if is_gzipped:
            self.headers["Content-Encoding"] = "gzip"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._content.aclose()


async def _gzipped(content: AsyncIterator[Head | bytes]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(_GZIP_LEVEL, wbits=31)
    async for piece in content:
        # In a thread, which does it without the interpreter lock; the client can read each piece when it comes.
        packed = await asyncio.to_thread(packer.compress, piece)  # type: ignore[arg-type]
        yield packed + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


async def read_ahead(parts: AsyncGenerator[Head | bytes, None]) -> AsyncGenerator[Head | bytes, None]:
    """What `parts` yields, read at its own pace: it holds a turn, and a slow client must not.

    So up to a whole page is held, whose size is bounded.
    """
    queue: asyncio.Queue[Head | bytes | None] = asyncio.Queue()

    async def read() -> None:
        try:
            async with aclosing(parts):
                async for part in parts:
                    queue.put_nowait(part)
        finally:
            queue.put_nowait(None)

    task = asyncio.create_task(read())
    try:
        while (part := await queue.get()) is not None:
            yield part
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
