"""The routes that tell what bars were folded from: the ticks, the proof of a bar, and the broker's own bars.

Reading the log takes longer than reading a table, so few requests do it at once.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

from fastapi import FastAPI, Path, Query
from psycopg.rows import class_row
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from dashboard.access import Turns
from dashboard.answers import Refusal, cacheable, encode, json_response, refusals
from dashboard.candles import Request, bar_bounds, check_names, epoch_ms, parse_time, source_asked, timeframe_asked
from dashboard.database import SQL, Connection
from dashboard.formats import MEDIA_TYPES
from dashboard.routes import STRICT, Format, From, Limit, Source, Symbol, TimeframeName, To, client_of
from dashboard.tick_answers import answer_ticks, reading_the_log
from dashboard.ticks import DEFAULT_LIMIT, MAX_LIMIT, TickRequest
from marketdata.offsets import Ranges, from_multirange
from sink.db.session import SQL as SINK_SQL
from sink.verify import VerifyReport, compare_with_log

if TYPE_CHECKING:
    from dashboard.app import Parts

Raw = Annotated[bool, Query(description="every record's ticks, resends too, with their place in the log")]
TickLimit = Annotated[int, Query(description=f"1 to {MAX_LIMIT:,} ticks", ge=1, le=MAX_LIMIT)]
Cursor = Annotated[str | None, Query(description="as `next` of the page before contains it", max_length=64)]
Opening = Annotated[str, Path(description="the opening of the candle, or any moment in it")]

_TICKS_EXAMPLE: Final = {
    "symbol": "EURUSD", "source": "Dukascopy", "from": "2019-02-04T00:00:00.000Z", "to": "2019-02-05T00:00:00.000Z",
    "ticks": [{
        "time": "2019-02-04T00:00:00.417Z", "time_msc": 1549238400417, "bid": 1.14543, "ask": 1.14551, "last": 0.0,
        "volume": 0.0, "flags": 6,
    }],
    "gone": [], "next": None,
}  # fmt: skip

_CONTENT: Final[dict[str, Any]] = {
    "application/json": {"example": _TICKS_EXAMPLE}, "text/csv": {}, "application/vnd.apache.arrow.stream": {},
}  # fmt: skip


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
        limit: TickLimit = DEFAULT_LIMIT,
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
        return await answer_ticks(parts, turns, request, asked, format)

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
        limit: TickLimit = DEFAULT_LIMIT,
        format: Format = None,
    ) -> Response:
        """The ticks behind one candle: those of `/ticks` from its opening to its end, which the answer names."""
        begins, ends = await bounds_asked(parts, timeframe, ts)
        asked = TickRequest(symbol, source or None, epoch_ms(begins), epoch_ms(ends), limit, raw)
        return await answer_ticks(parts, turns, request, asked, format)


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


#: The longest bar that is folded again for one request: a day, which a change of clocks makes an hour longer.
_LONGEST_VERIFIED: Final = timedelta(hours=25)

_DEFAULT_BARS: Final = 500

Verify = Annotated[bool, Query(description="fold the bar's minutes again from the log, and compare; up to D1")]

_EXAMPLE: Final = {
    "symbol": "EURUSD", "source": "Dukascopy", "timeframe": "M1", "from": "2019-02-04T00:00:00Z",
    "to": "2019-02-04T00:01:00Z", "minutes": 1, "broker_minutes": 0, "pending": 0, "ticks": 92, "closed": True,
    "first_tick": "2019-02-04T00:00:00.417Z", "last_tick": "2019-02-04T00:00:59.803Z",
    "received_at": "2019-02-04T00:00:59.853Z", "folded_at": "2019-02-04T00:00:59.861Z",
    "stored_at": "2019-02-04T00:00:59.874Z",
    "logs": [{"log": "kZ2…/ticks/3Qv…", "is_current": True, "ranges": [[0, 1204, 1295]]}],
    "verified": {"verdict": "equal", "checked": 1, "equal": 1, "unprovable": 0, "pending": 0, "differences": []},
}  # fmt: skip

_COMPARED: Final = {
    "ts": "2019-02-04T00:00:00Z", "open": 1.14543, "high": 1.14551, "low": 1.14538, "close": 1.14549, "volume": 92,
    "real_volume": None, "spread": 2, "equal": 1, "differs": 0, "no_bar": 0, "no_candle": 0,
}  # fmt: skip


class Summary(NamedTuple):
    """What a bar is made of, in sum."""

    #: Stored minutes, those of them that are the broker's own bars, and those that wait to be folded again.
    minutes: int
    broker_minutes: int
    pending: int
    ticks: int | None
    closed: bool | None
    #: None where all minutes are the broker's bars.
    first_tick: datetime | None
    last_tick: datetime | None
    #: When the newest tick was received, and the newest state folded and stored.
    received_at: datetime | None
    folded_at: datetime | None
    stored_at: datetime | None


class ComparedBar(NamedTuple):
    """The broker's bar; its numbers are None where there is only ours."""

    ts: datetime
    open: float | None
    high: float | None
    low: float | None
    close: float | None
    volume: int | None
    real_volume: float | None
    spread: int | None
    #: Minutes of the bar on which both sides agree, or do not, and those that one side lacks.
    equal: int
    differs: int
    no_bar: int
    no_candle: int


def add_proof_routes(app: FastAPI, parts: "Parts", turns: Turns) -> None:
    """Add the routes to the application; `turns` are those of all requests that read the log."""
    _add_proof(app, parts, turns)
    _add_compared(app, parts)


def _add_proof(app: FastAPI, parts: "Parts", turns: Turns) -> None:
    @app.head("/candles/{ts}/proof", include_in_schema=False, dependencies=STRICT)
    @app.get(
        "/candles/{ts}/proof", tags=["candles"], response_class=Response, dependencies=STRICT,
        responses={
            200: {"content": {"application/json": {"example": _EXAMPLE}}}, **refusals(400, 404, 429, 503, 504),
        },
    )  # fmt: skip
    async def proof(
        request: HttpRequest,
        *,
        ts: Opening,
        symbol: Symbol,
        timeframe: TimeframeName = "M1",
        source: Source = None,
        verify: Verify = False,
    ) -> Response:
        """What a bar is the fold of: the log and its records as `[partition, first, last]`, and the times on the way.

        With `verify` its minutes are folded again from the log and compared with the table; `verdict` is `equal`,
        `different`, `pending` when minutes wait to be folded again, or `unprovable` when the log does not hold their
        records, or the minutes are the broker's own bars.
        """
        check_names(symbol, source)
        begins, ends = await bounds_asked(parts, timeframe, ts)
        if verify and ends - begins > _LONGEST_VERIFIED:
            raise Refusal(
                400, "INVALID_PARAMETER", "verify: at most a day at once; verify its days, or use `tickpipe verify`"
            )
        about: dict[str, Any] = {"symbol": symbol, "timeframe": timeframe.upper(), "from_": begins, "to": ends}
        async with parts.database.reading() as connection:
            about["source"] = await source_asked(connection, symbol, source)
            summary, logs = await _read_proof(connection, about)
            stored = await (await connection.execute(SINK_SQL["stored_candles"], about)).fetchall() if verify else []
        if not summary.minutes:
            raise Refusal(
                404, "NO_CANDLE", f"there is no {timeframe.upper()} of {symbol} at {begins:%Y-%m-%d %H:%M} UTC"
            )
        answer = {
            "symbol": symbol, "source": about["source"], "timeframe": timeframe.upper(), "from": begins, "to": ends,
            **summary._asdict(),
            "logs": [{"log": log, "is_current": log == parts.hub.own_log, "ranges": ranges} for log, ranges in logs],
            "verified": await _verified(parts, turns, client_of(request), stored) if verify else None,
        }  # fmt: skip
        return json_response(answer)


def _add_compared(app: FastAPI, parts: "Parts") -> None:
    @app.head("/compared", include_in_schema=False, dependencies=STRICT)
    @app.get(
        "/compared", tags=["candles"], response_class=Response, dependencies=STRICT,
        responses={
            200: {"content": {"application/json": {"example": {"bars": [_COMPARED], "next": None}}}},
            **refusals(400, 503, 504),
        },
    )  # fmt: skip
    async def compared(
        request: HttpRequest,
        *,
        symbol: Symbol,
        timeframe: TimeframeName = "M1",
        source: Source = None,
        from_: From = None,
        to: To = None,
        limit: Limit = _DEFAULT_BARS,
    ) -> Response:
        """The broker's bars that begin in `[from, to)` and how far ours agree, where both are known.

        Longer bars are rolled up from the broker's minutes, each from all of its own. What still moves is not compared.
        `next` in the answer is the URL of the page that follows, null at the end.
        """
        asked = Request.parse(
            symbol=symbol, timeframe=timeframe, source=source, from_=from_, to=to, before=None, limit=limit
        )
        if asked.from_ is None:
            raise Refusal(400, "INVALID_PARAMETER", "from: say from when on; a day is from=2019-02-04&to=2019-02-05")
        async with parts.database.reading() as connection:
            found = await source_asked(connection, symbol, asked.source)
            bars = await _read_compared(connection, asked, found)
        following = None
        if len(bars) == limit and found is not None:
            following = f"compared?{asked.following(bars[0].ts, bars[-1].ts, found)}"
        content = encode({
            "symbol": symbol, "source": found, "timeframe": asked.timeframe,
            "bars": [bar._asdict() for bar in bars], "next": following,
        })  # fmt: skip
        return cacheable(request, content, MEDIA_TYPES["json"], following=following)


async def _read_compared(connection: Connection, asked: Request, source: str | None) -> list[ComparedBar]:
    about: dict[str, Any] = {
        "symbol": asked.symbol, "source": source, "timeframe": asked.timeframe, "from_": asked.from_, "to": asked.to,
        "limit": asked.limit,
    }  # fmt: skip
    starts = await (await connection.execute(SQL["whole_bars"], about)).fetchone()
    if starts is None:
        raise AssertionError("candle_settings has one row")
    about["from_"], about["to"] = starts
    async with connection.cursor(row_factory=class_row(ComparedBar)) as cursor:
        await cursor.execute(SQL["compared_bars"], about)
        return await cursor.fetchall()


async def _read_proof(connection: Connection, about: dict[str, Any]) -> tuple[Summary, list[tuple[str, Ranges]]]:
    async with connection.cursor(row_factory=class_row(Summary)) as cursor:
        await cursor.execute(SQL["proof"], about)
        summary = await cursor.fetchone()
    rows = await (await connection.execute(SQL["proof_ranges"], about)).fetchall()
    if summary is None:
        raise AssertionError("an aggregate without GROUP BY has one row")
    return summary, [(log, from_multirange(ranges)) for log, ranges in rows]


async def _verified(parts: "Parts", turns: Turns, client: object, stored: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The outcome of folding the minutes again."""
    async with turns.turn(client), reading_the_log():
        report = await compare_with_log(parts.settings, parts.log_clients, stored)
    return {
        "verdict": _verdict(report),
        "checked": report.checked,
        "equal": report.equal,
        "unprovable": len(report.unprovable),
        "pending": len(report.pending),
        "differences": [asdict(difference) for difference in report.differences],
    }


def _verdict(report: VerifyReport) -> str:
    if report.differences:
        return "different"
    if report.pending:
        return "pending"
    return "equal" if report.checked and not report.unprovable else "unprovable"
