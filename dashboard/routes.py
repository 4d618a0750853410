"""The read API: candles, symbols, the live stream and the state of the pipeline."""

import asyncio
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, Header, Query
from pydantic import StringConstraints
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dashboard.access import Places, Turns
from dashboard.answers import Refusal, cacheable, encode, refusals
from dashboard.candles import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    BarStarts,
    Request,
    parse_time,
    read_candles,
    read_digits,
    timeframe_asked,
)
from dashboard.formats import MEDIA_TYPES, choose_format, render
from dashboard.hub import Hub
from dashboard.stream import STREAM_HEADERS, events
from marketdata.timeframes import TIMEFRAMES
from runtime.serving import owner_of
from sink.gaps import minute_states, sources_of
from sink.queries import read_senders

if TYPE_CHECKING:
    from dashboard.app import Parts

_TIME = "ISO 8601 (no zone means UTC), epoch seconds or milliseconds"

Name = Annotated[str, StringConstraints(min_length=1, max_length=32)]
Symbol = Annotated[Name, Query(description="as the sender names it", examples=["EURUSD"])]
Symbols = Annotated[list[Name] | None, Query(alias="symbol", description="only these; repeat it for several")]
TickSymbols = Annotated[list[Name], Query(alias="symbol", description="as the sender names it; repeat it for several")]
TimeframeName = Annotated[str, Query(description=", ".join(TIMEFRAMES))]
Source = Annotated[str | None, Query(description="the feed; without it the one with the newest candle", max_length=64)]
StreamSource = Annotated[str | None, Query(alias="source", description="the feed; without it every one", max_length=64)]
From = Annotated[str | None, Query(alias="from", description=f"from this time on: {_TIME}")]
To = Annotated[str | None, Query(description=f"up to this time, which is not included: {_TIME}")]
Before = Annotated[str | None, Query(description=f"the newest candles before this time: {_TIME}")]
Limit = Annotated[int, Query(description=f"1 to {MAX_LIMIT:,} candles", ge=1, le=MAX_LIMIT)]
Proof = Annotated[
    bool,
    Query(
        description="M1 as JSON: with `log` and `offsets`, the log's records that each candle is the fold of, and when "
        "the newest of its ticks was received"
    ),
]
Since = Annotated[str | None, Query(description="the id of the last event that came: go on after it", max_length=2048)]
LastEventId = Annotated[str | None, Header(description="as `since`; browsers send it by themselves", max_length=2048)]
SeenSince = Annotated[str | None, Query(description=f"seen since then; without it within seven days: {_TIME}")]
Format = Annotated[str | None, Query(description="json, csv or arrow; without it the header Accept decides")]

Search = Annotated[
    str, Query(description="only those whose symbol and source contain this, in any case", max_length=97)
]
After = Annotated[str, Query(description="only symbols behind this one, as in `next`", max_length=32)]
ListingLimit = Annotated[int, Query(description=f"1 to {MAX_LIMIT:,} symbols of a source", ge=1, le=MAX_LIMIT)]

#: Symbols of a page of `/symbols`.
_LISTINGS: Final = 1_000

#: How far back senders are told unless asked otherwise.
_SENDERS_SEEN: Final = timedelta(days=7)

#: How far back `/gaps` tells unless asked otherwise, and the longest time that it tells of.
_GAPS_SEEN: Final = timedelta(days=7)
_MOST_GAPS: Final = timedelta(days=31)

#: Pages of more candles than these are heavy; few of them are read at once, and the others wait for so long (seconds).
_HEAVY_FROM: Final = 2_000
_HEAVY_AT_ONCE: Final = 2
_PATIENCE_SECONDS: Final = 30.0

_CANDLE: Final = {
    "ts": "2019-02-04T00:00:00Z", "symbol": "EURUSD", "source": "Dukascopy", "open": 1.14543, "high": 1.14551,
    "low": 1.14538, "close": 1.14549, "volume": 92, "real_volume": 0.0, "spread": 2, "closed": True,
}  # fmt: skip


#: Paths and the parameters that may be given more than once.
_REPEATED: Final = {("/stream", "symbol"), ("/stream/ticks", "symbol")}


def client_of(request: HttpRequest) -> object:
    """Whom a request counts for: its address, or the customer's network."""
    return owner_of(request.client.host if request.client else "")


def refuse_unknown(request: HttpRequest) -> None:
    """Refuse a parameter that is misspelt or given twice, which FastAPI would ignore.

    Raises:
        Refusal: 400 naming the parameter and those that there are.
    """
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known:
            hint = f"use {', '.join(sorted(known))}" if known else "there are none here"
            raise Refusal(400, "INVALID_PARAMETER", f"{name}: no such parameter; {hint}")
        if names.count(name) > 1 and (request.url.path, name) not in _REPEATED:
            raise Refusal(400, "INVALID_PARAMETER", f"{name}: given more than once")


#: What every route of the API depends on.
STRICT: Final = (Depends(refuse_unknown),)


def add_routes(app: FastAPI, parts: "Parts") -> None:
    """Add the routes of the API to the application."""
    _add_candles(app, parts)
    _add_gaps(app, parts)
    _add_stream(app, parts)

    @app.head("/symbols", include_in_schema=False, dependencies=STRICT)
    @app.get(
        "/symbols", tags=["candles"], response_class=Response, responses=refusals(400, 503), dependencies=STRICT
    )  # fmt: skip
    async def symbols(
        request: HttpRequest, *, search: Search = "", after: After = "", limit: ListingLimit = _LISTINGS
    ) -> Response:
        """Symbols of every source, with their first and newest minute.

        By symbol, the source with the newest candle first. All sources of a symbol are on one page. `next` in the
        answer is the URL of the page that follows, null at the end.
        """
        found, last = (await parts.catalogue.listings()).find(search, after=after, limit=limit)
        query = {"after": last, "limit": limit} | ({"search": search} if search else {})
        following = f"symbols?{urlencode(query)}" if last else None
        content = encode({"symbols": [listing._asdict() for listing in found], "next": following})
        return cacheable(request, content, MEDIA_TYPES["json"], following=following)

    @app.head("/senders", include_in_schema=False, dependencies=STRICT)
    @app.get(
        "/senders", tags=["pipeline"], response_class=Response, responses=refusals(400, 503, 504), dependencies=STRICT
    )  # fmt: skip
    async def senders(request: HttpRequest, *, since: SeenSince = None) -> Response:
        """Who sends, the latest first: server, account, terminal build, EA and address of each sender, and how much.

        First and last seen go by the receipt of requests. `shared` names what the senders of one source differ in
        within the hour, `servers`, `accounts` or both: their ticks become one candle.
        """
        moment = datetime.now(UTC) - _SENDERS_SEEN if since is None else parse_time("since", since)
        async with parts.database.reading() as connection:
            rows = await read_senders(connection, moment)
        return cacheable(request, encode({"senders": [row._asdict() for row in rows]}), MEDIA_TYPES["json"])

    @app.head("/pipeline", include_in_schema=False, dependencies=STRICT)
    @app.get(
        "/pipeline", tags=["pipeline"], response_class=Response, responses=refusals(400), dependencies=STRICT
    )  # fmt: skip
    async def pipeline() -> Response:
        """Lag in records, ticks a second, latency (ms), rejected records, the newest tick of each feed."""
        return Response(encode(await parts.pipeline.state()), media_type=MEDIA_TYPES["json"])


def _add_gaps(app: FastAPI, parts: "Parts") -> None:
    @app.head("/gaps", include_in_schema=False, dependencies=STRICT)
    @app.get(
        "/gaps", tags=["candles"], response_class=Response, responses=refusals(400, 503, 504), dependencies=STRICT
    )  # fmt: skip
    async def gaps(
        request: HttpRequest, *, symbol: Symbol, source: StreamSource = None, from_: From = None, to: To = None
    ) -> Response:
        """Every minute of a symbol by what is known of it, those in a row as one range, by source and in order of time.

        `ticks`: there are some. `closed`: the broker does not quote the symbol then, or the user says so. `none`: the
        broker had no tick. `wanted`: missing, a sender that can fill is asked for it. `failed`: it could not fill it.
        `quiet`: no tick, as is usual. Without `from` the last seven days; at most 31 days.
        """
        now = datetime.now(UTC)
        end = now if to is None else parse_time("to", to)
        begin = end - _GAPS_SEEN if from_ is None else parse_time("from", from_)
        if not timedelta(0) < end - begin <= _MOST_GAPS:
            raise Refusal(400, "INVALID_PARAMETER", f"from: at most {_MOST_GAPS.days} days before `to`")
        # Nothing is known of minutes that are not over.
        span = (begin.replace(second=0, microsecond=0), min(end, now).replace(second=0, microsecond=0))
        async with parts.database.reading() as connection:
            found = {
                name: await minute_states(connection, (symbol, name), *span, parts.settings.zones)
                for name in await sources_of(connection, symbol)
                if source in (None, name) and span[0] < span[1]
            }
        listed = [
            {"source": name, "from": first, "to": last, "state": state}
            for name, states in found.items()
            for first, last, state in states
        ]
        return cacheable(request, encode({"symbol": symbol, "ranges": listed}), MEDIA_TYPES["json"])


def _add_candles(app: FastAPI, parts: "Parts") -> None:
    contents: dict[str, Any] = {
        "application/json": {
            "example": {"symbol": "EURUSD", "timeframe": "M1", "digits": 5, "candles": [_CANDLE], "next": None},
        },
        "text/csv": {},
        "application/vnd.apache.arrow.stream": {},
    }

    turns = Turns(_HEAVY_AT_ONCE, "read many candles", patience_seconds=_PATIENCE_SECONDS)

    @app.head("/candles", include_in_schema=False, dependencies=STRICT)
    @app.get(
        "/candles", tags=["candles"], response_class=Response, dependencies=STRICT,
        responses={200: {"content": contents}, **refusals(400, 406, 429, 503, 504)},
    )  # fmt: skip
    async def candles(
        request: HttpRequest,
        *,
        symbol: Symbol,
        timeframe: TimeframeName = "M1",
        source: Source = None,
        from_: From = None,
        to: To = None,
        before: Before = None,
        limit: Limit = DEFAULT_LIMIT,
        proof: Proof = False,
        format: Format = None,
    ) -> Response:
        """Candles in order of time; a symbol that nobody sent has none.

        With `from`: from there on, up to `to`. Without: the newest before `before` or `to`. `next` in the answer is
        the URL of the page that follows in the same direction, `digits` the decimals of prices as their sender says
        them, null where it does not.
        """
        asked = Request.parse(
            symbol=symbol, timeframe=timeframe, source=source, from_=from_, to=to, before=before, limit=limit,
            proof=proof,
        )  # fmt: skip
        name = choose_format(format, request.headers.get("accept"), proof=proof)
        is_heavy = limit > _HEAVY_FROM
        async with turns.turn(client_of(request)) if is_heavy else nullcontext():
            with parts.metrics.query_seconds.time():
                async with parts.database.reading() as connection:
                    rows = await read_candles(connection, asked)
                    digits = await read_digits(connection, rows)
            # A tenth of a second for the largest, in which the loop would serve nobody else.
            content = (
                await asyncio.to_thread(render, name, asked, rows, digits)
                if is_heavy
                else render(name, asked, rows, digits)
            )
        query = asked.next_page(rows)
        response = cacheable(request, content, MEDIA_TYPES[name], following=f"candles?{query}" if query else None)
        response.headers["Vary"] = "Accept"
        return response


def _add_stream(app: FastAPI, parts: "Parts") -> None:
    places = Places(parts.settings.dashboard_max_streams, "live streams")

    @app.head("/stream", include_in_schema=False, dependencies=STRICT)
    @app.get(
        "/stream", tags=["candles"], response_class=StreamingResponse, dependencies=STRICT,
        responses={200: {"content": {"text/event-stream": {}}}, **refusals(400, 503)},
    )  # fmt: skip
    async def stream(
        *,
        symbol: Symbols = None,
        source: StreamSource = None,
        timeframe: TimeframeName = "M1",
        since: Since = None,
        last_event_id: LastEventId = None,
    ) -> Response:
        """Candles as they move, as server-sent events.

        `candle`: the newest state of a minute, with its proof; `bar` and `bar_end` are the opening of the bar of
        `timeframe` that it belongs to, and of the one that follows. No candle holds less than the table; with `stored`
        it is the table's row, so that longer bars that hold the minute can be read again. `bid` and `ask` are those of
        its newest tick, null where it has none or the minute comes from the table. `stale`: stored candles
        changed from `ts` on; read them again. `resync`: too much was missed; read everything again. `pipeline`: as in
        `/pipeline`. `ping`: nothing happened.

        A stream begins with the newest minutes. One that is resumed, by the header Last-Event-ID or `since`, begins
        with what changed after that event, or with `resync` where that is not known any more.
        """
        return EventStream(
            parts.hub, places, parts.bars, timeframe_asked(timeframe), symbols=frozenset(symbol) if symbol else None,
            source=source or None, since=last_event_id or since,
        )  # fmt: skip


class EventStream(StreamingResponse):
    """The answer to `/stream`; it is subscribed to the hub for exactly as long as it is being sent."""

    def __init__(
        self,
        hub: Hub,
        places: Places,
        bars: BarStarts,
        timeframe: str,
        *,
        symbols: frozenset[str] | None,
        source: str | None,
        since: str | None,
    ) -> None:
        super().__init__((), headers=STREAM_HEADERS, media_type="text/event-stream")
        self._hub, self._places, self._bars, self._timeframe = hub, places, bars, timeframe
        self._symbols, self._source, self._since = symbols, source, since

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the service stops or the client is gone; of HEAD the headers alone.

        Raises:
            Refusal: 503 when there are as many streams as may be, or half of them are this client's.
        """
        with self._places.place(client_of(HttpRequest(scope))):
            if scope["method"] == "HEAD":
                await Response(headers=dict(self.headers))(scope, receive, send)
                return
            subscription = self._hub.subscribe(self._symbols, self._source, self._since)
            try:
                self.body_iterator = events(subscription, self._bars, self._timeframe)
                await super().__call__(scope, receive, send)
            finally:
                self._hub.unsubscribe(subscription)
