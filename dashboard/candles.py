"""What a request for candles asks, and the page of rows that answers it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from psycopg.rows import class_row

from dashboard.answers import Refusal
from dashboard.database import Connection
from dashboard.statements import SQL
from marketdata.offsets import Ranges, from_multirange
from marketdata.timeframes import M1, TIMEFRAMES

DEFAULT_LIMIT: Final = 500
#: Two weeks of M1; more is asked for page by page.
MAX_LIMIT: Final = 20_000

#: Timeframes whose bars are folded from minutes for each answer.
_WIDTHS: Final = {
    name: timedelta(milliseconds=timeframe.base_width_ms)
    for name, timeframe in TIMEFRAMES.items()
    if timeframe.parent == M1.name
}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: PostgreSQL takes later times, but Python cannot hold what it would answer.
_END_OF_TIME: Final = datetime(9999, 12, 31, tzinfo=UTC)

#: Whole numbers in between are epoch seconds (2001 to 2286); as milliseconds they would be the spring of 1970.
_EPOCH_SECONDS: Final = range(10**9, 10**10)

_TIME_FORMS: Final = (
    "2019-02-04, 2019-02-04T10:30Z, 2019-02-04T12:30+02:00 (no zone means UTC), epoch seconds or milliseconds"
)


class Row(NamedTuple):
    """One candle of an answer, in the order of its columns."""

    ts: datetime
    symbol: str
    source: str
    open: float
    high: float
    low: float
    close: float
    #: Ticks.
    volume: int
    real_volume: float | None
    spread: int | None
    #: False while the bar still moves.
    closed: bool


class ProvenRow(NamedTuple):
    """One minute of an answer, with its proof; a broker's bar has none."""

    ts: datetime
    symbol: str
    source: str
    open: float
    high: float
    low: float
    close: float
    volume: int
    real_volume: float | None
    spread: int | None
    closed: bool
    log: str | None
    #: As in the records of `candles.m1`.
    offsets: Ranges | None


AnyRow = Row | ProvenRow


@dataclass(frozen=True, slots=True)
class Request:
    """Candles of `[from_, to)` in order of time from `from_`; without `from_` the newest before `to`."""

    symbol: str
    timeframe: str
    source: str | None
    from_: datetime | None
    to: datetime
    limit: int
    proof: bool = False

    @classmethod
    def parse(
        cls, *, symbol: str, timeframe: str, source: str | None, from_: str | None, to: str | None,
        before: str | None, limit: int, proof: bool = False,
    ) -> "Request":  # fmt: skip
        """The request that the query parameters spell.

        Raises:
            Refusal: 400 naming the parameter that cannot be used and what is accepted.
        """
        if timeframe.upper() not in TIMEFRAMES:
            raise _unusable("timeframe", f"{timeframe!r} is no timeframe; use one of {', '.join(TIMEFRAMES)}")
        if not 1 <= limit <= MAX_LIMIT:
            raise _unusable("limit", f"use 1 to {MAX_LIMIT:,}; the answer's `next` leads to the rest")
        if proof and timeframe.upper() != "M1":
            raise _unusable("proof", "only M1 is folded from the log; longer bars are folded from M1")
        if before is not None and (from_ is not None or to is not None):
            raise _unusable("before", "`before` asks for the newest candles before a time; leave out `from` and `to`")
        if "\0" in symbol or (source is not None and "\0" in source):
            raise _unusable("symbol", "a NUL is no part of a name")
        start = None if from_ is None else parse_time("from", from_)
        end = _END_OF_TIME
        if to is not None or before is not None:
            end = parse_time("to", to) if to is not None else parse_time("before", before or "")
        if start is not None and start >= end:
            raise _unusable("from", "`from` must be before `to`")
        return cls(symbol, timeframe.upper(), source or None, start, end, limit, proof)

    def next_page(self, rows: Sequence[AnyRow]) -> str | None:
        """The query string of the page that follows `rows`, None when this is the last."""
        if len(rows) < self.limit:
            return None
        query = {"symbol": self.symbol, "timeframe": self.timeframe, "limit": str(self.limit)}
        if self.proof:
            query["proof"] = "true"
        # Also where none was asked for: another may have the newest candle by then.
        query["source"] = rows[0].source
        if self.from_ is None:
            query["before"] = _iso(rows[0].ts)
        else:
            query["from"] = _iso(rows[-1].ts + timedelta(milliseconds=1))
            if self.to != _END_OF_TIME:
                query["to"] = _iso(self.to)
        return urlencode(query)


async def read_candles(connection: Connection, request: Request) -> Sequence[AnyRow]:
    """The candles that the request asks for, in order of time; without a source, of the one with the newest candle."""
    about: dict[str, Any] = {
        "symbol": request.symbol, "timeframe": request.timeframe, "source": request.source, "from_": request.from_,
        "to": request.to, "limit": request.limit,
    }  # fmt: skip
    if request.source is None:
        about["source"] = await _value(connection, "newest_source", about)
    if request.proof:
        return await _proven_rows(connection, about)
    if request.from_ is None:
        return await _rows(connection, "last_candles", about)
    if request.timeframe == "M1":
        return await _rows(connection, "minutes", about)
    if request.timeframe not in _WIDTHS:
        return await _rows(connection, "candles", about)
    return await _rows_from(connection, about)


async def _rows_from(connection: Connection, about: dict[str, Any]) -> list[Row]:
    # The function folds all that it is asked for, so it is asked for ranges that hold what is missing, from one
    # minute that there is to the next.
    rows: list[Row] = []
    width, end, limit = _WIDTHS[about["timeframe"]], about["to"], about["limit"]
    start = about["from_"]
    while len(rows) < limit:
        minute = await _value(connection, "next_minute", about | {"from_": start})
        if minute is None:
            break
        # The bar of that minute may begin a little before it; what begins before `start` is not asked for.
        begin = max(start, minute - width)
        start = min(end, minute + width * (limit - len(rows)))
        rows += await _rows(connection, "candles", about | {"from_": begin, "to": start, "limit": limit - len(rows)})
        if start >= end:
            break
    return rows


async def _rows(connection: Connection, name: str, about: dict[str, Any]) -> list[Row]:
    async with connection.cursor(row_factory=class_row(Row)) as cursor:
        await cursor.execute(SQL[name], about)
        return await cursor.fetchall()


async def _proven_rows(connection: Connection, about: dict[str, Any]) -> list[ProvenRow]:
    name = "last_proven_minutes" if about["from_"] is None else "proven_minutes"
    cursor = await connection.execute(SQL[name], about)
    rows = [ProvenRow._make(row) for row in await cursor.fetchall()]
    return [row._replace(offsets=None if row.offsets is None else from_multirange(row.offsets)) for row in rows]


async def _value(connection: Connection, name: str, about: dict[str, Any]) -> Any:
    cursor = await connection.execute(SQL[name], about)
    row = await cursor.fetchone()
    return row[0] if row is not None else None


def parse_time(name: str, text: str) -> datetime:
    """The moment that the query parameter `name` spells.

    Raises:
        Refusal: 400 with the accepted forms.
    """
    try:
        if text.isascii() and text.isdecimal():
            number = int(text)
            return _EPOCH + timedelta(milliseconds=number * 1000 if number in _EPOCH_SECONDS else number)
        # A `+` in a URL that was not encoded arrives as a space.
        moment = datetime.fromisoformat(
            text.strip().replace(" ", "+") if text.count(" ") == 1 and "T" in text else text
        )
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise _unusable(name, f"{text!r} is no time; use {_TIME_FORMS}") from exc


def _unusable(name: str, message: str) -> Refusal:
    return Refusal(400, "INVALID_PARAMETER", f"{name}: {message}")


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
