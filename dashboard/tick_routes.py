"""The routes of ticks. Reading the log takes longer than reading a table, so few requests do it at once."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import FastAPI, Path, Query
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from dashboard.access import Turns
from dashboard.answers import Refusal, cacheable, refusals
from dashboard.candles import bar_bounds, epoch_ms, newest_source, parse_time, timeframe_asked
from dashboard.formats import MEDIA_TYPES, choose_format
from dashboard.routes import STRICT, Format, From, Source, Symbol, TimeframeName, To, client_of
from dashboard.ticks import DEFAULT_LIMIT, MAX_LIMIT, Page, TickRequest, read_page, render_page
from marketdata.errors import TickpipeError

if TYPE_CHECKING:
    from dashboard.app import Parts

#: Requests that read the log at once: each holds up to some 100 MB and the processor of one core.
_AT_ONCE: Final = 2

#: How long a request waits for its turn, and how long it may read (seconds).
_PATIENCE_SECONDS: Final = 5.0
_READING_SECONDS: Final = 60.0

#: The fastest level that still makes a fifth of JSON.
_GZIP_LEVEL: Final = 3

#: Spans of lost minutes that the header names.
_SPANS: Final = 20

Raw = Annotated[bool, Query(description="every record's ticks, resends too, with their place in the log")]
Limit = Annotated[int, Query(description=f"1 to {MAX_LIMIT:,} ticks", ge=1, le=MAX_LIMIT)]
Cursor = Annotated[str | None, Query(description="as `next` of the page before contains it", max_length=64)]
Opening = Annotated[str, Path(description="the opening of the candle, or any moment in it")]

_EXAMPLE: Final = {
    "symbol": "EURUSD", "source": "Dukascopy", "from": "2019-02-04T00:00:00.000Z", "to": "2019-02-05T00:00:00.000Z",
    "ticks": [{
        "time": "2019-02-04T00:00:00.417Z", "time_msc": 1549238400417, "bid": 1.14543, "ask": 1.14551, "last": 0.0,
        "volume": 0.0, "flags": 6,
    }],
    "gone": [], "next": None,
}  # fmt: skip

_CONTENT: Final[dict[str, Any]] = {
    "application/json": {"example": _EXAMPLE}, "text/csv": {}, "application/vnd.apache.arrow.stream": {},
}  # fmt: skip


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


def add_tick_routes(app: FastAPI, parts: "Parts", turns: Turns) -> None:
    """Add the routes to the application; `turns` are `reading_turns()`."""
    responses: dict[int | str, dict[str, Any]] = {
        200: {"content": _CONTENT}, **refusals(400, 406, 429, 503, 504),
    }  # fmt: skip

    @app.head("/ticks", include_in_schema=False, dependencies=STRICT)
    @app.get("/ticks", tags=["ticks"], response_class=Response, responses=responses, dependencies=STRICT)
    async def ticks(
        request: HttpRequest,
        *,
        symbol: Symbol,
        source: Source = None,
        from_: From = None,
        to: To = None,
        raw: Raw = False,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        format: Format = None,
    ) -> Response:
        """Ticks from the log in order of time, each once: exactly those that the candles count.

        `from` is needed; without `to` they come up to now. `next` in the answer is the URL of the page that follows.
        `gone` names the minutes whose records the log no longer holds. With `raw` every record's ticks come, minute by
        minute in the order of the log, with partition, offset, index in the record, receipt and request.
        """
        asked = TickRequest.parse(
            symbol=symbol, source=source or None, from_=from_, to=to, raw=raw, limit=limit, cursor=cursor
        )
        return await _answer(parts, turns, request, asked, format)

    @app.head("/candles/{ts}/ticks", include_in_schema=False, dependencies=STRICT)
    @app.get("/candles/{ts}/ticks", tags=["ticks"], response_class=Response, responses=responses, dependencies=STRICT)
    async def ticks_of_candle(
        request: HttpRequest,
        *,
        ts: Opening,
        symbol: Symbol,
        timeframe: TimeframeName = "M1",
        source: Source = None,
        raw: Raw = False,
        limit: Limit = DEFAULT_LIMIT,
        format: Format = None,
    ) -> Response:
        """The ticks behind one candle: those of `/ticks` from its opening to its end, which the answer names."""
        begins, ends = await bounds_asked(parts, timeframe, ts)
        asked = TickRequest(symbol, source or None, epoch_ms(begins), epoch_ms(ends), limit, raw)
        return await _answer(parts, turns, request, asked, format)


async def bounds_asked(parts: "Parts", timeframe: str, ts: str) -> tuple[datetime, datetime]:
    """Opening and end of the bar that a path names.

    Raises:
        Refusal: 400 when it names none, and what reading raises.
    """
    name = timeframe_asked(timeframe)
    bounds = await bar_bounds(parts.database, name, parse_time("ts", ts))
    if bounds is None:
        raise Refusal(400, "INVALID_PARAMETER", f"ts: no {name} holds it")
    return bounds


async def _answer(
    parts: "Parts", turns: Turns, request: HttpRequest, asked: TickRequest, wanted_format: str | None
) -> Response:
    name = choose_format(wanted_format, request.headers.get("accept"))
    page = Page(asked)
    async with turns.turn(client_of(request)), reading_the_log():
        if asked.source is None:
            async with parts.database.reading() as connection:
                asked = replace(asked, source=await newest_source(connection, asked.symbol))
            page = Page(asked)
        if asked.source is not None:
            page = await read_page(parts.settings, parts.database, asked)
        following = page.following and _root(request) + page.following
        content = await render_page(name, page, following)
    response = cacheable(request, content, MEDIA_TYPES[name])
    response.headers["Vary"] = "Accept, Accept-Encoding"
    if following:
        response.headers["Link"] = f'<{following}>; rel="next"'
    if page.gone:
        spans = [f"{span['from']}/{span['to']}" for span in page.gone_spans[:_SPANS]]
        response.headers["Tickpipe-Gone-Minutes"] = str(len(page.gone))
        response.headers["Tickpipe-Gone"] = ", ".join(spans)
    if response.status_code == 200 and "gzip" in request.headers.get("accept-encoding", ""):
        # In a thread, which does it without the interpreter lock.
        response.body = await asyncio.to_thread(gzip.compress, content, _GZIP_LEVEL, mtime=0)
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Content-Length"] = str(len(response.body))
    return response


def _root(request: HttpRequest) -> str:
    """What leads from the request's path to where the API begins; relative, because a proxy may prefix the paths."""
    route: str = request.scope["route"].path
    return "../" * (route.count("/") - 1)
