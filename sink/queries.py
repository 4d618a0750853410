"""What is read from the database: candles, ready queries, comparisons, senders, and exports of the whole."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg import AsyncConnection, IsolationLevel
from psycopg.rows import class_row, dict_row

from marketdata.wire import decimals_of
from sink.db.session import SQL, repeated_after_deadlock

if TYPE_CHECKING:
    from sink.ticks import TickRange

#: Rows that a server-side cursor fetches at once, and that of an export: memory grows with them, not with the history.
_FETCH_ROWS: Final = 5_000
_EXPORT_ROWS: Final = 10_000

#: The columns of every candle, in the order of `exported_candles`; the symbol is that of the series.
CANDLE_COLUMNS: Final = (
    "source", "timeframe", "ts", "open", "high", "low", "close", "volume", "real_volume", "spread", "closed",
)  # fmt: skip

#: The additional columns of an M1 candle: where it comes from, and its proof (`exported_minutes`).
PROOF_COLUMNS: Final = (
    "origin", "first_tick", "last_tick", "log", "offsets", "received_at", "folded_at",
    "stored_at",
)  # fmt: skip


_BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)


class CandleRow(NamedTuple):
    """The first eight columns of `market_data`, in another order, and whose candle it is."""

    ts: datetime
    symbol: str
    timeframe: str
    open: float
    high: float
    low: float
    close: float
    #: Ticks.
    volume: int
    source: str


class NewestCandle(NamedTuple):
    """The newest M1 candle of a symbol."""

    symbol: str
    source: str
    ts: datetime
    close: float
    volume: int
    closed: bool
    #: None for a broker's bar.
    last_tick: datetime | None
    stored_at: datetime


async def candles(
    connection: AsyncConnection[Any],
    symbol: str,
    from_: datetime,
    to: datetime,
    *,
    timeframe: str = "M1",
    source: str | None = None,
) -> AsyncGenerator[CandleRow, None]:
    """The candles of `symbol` from `from_` up to, not including, `to` (aware datetimes), in order of time.

    M1 of all sources, unless one is named; of the other timeframes, which are folded from M1, those of the source with
    the most recent candle.

    Streams with a server-side cursor inside a transaction: use up the iterator, or close it, before anything else is
    done with the connection.
    """
    about = {"symbol": symbol, "from_": from_, "to": to, "timeframe": timeframe, "source": source}
    async with (
        connection.transaction(),
        connection.cursor(name="candles", row_factory=class_row(CandleRow)) as cursor,
    ):
        cursor.itersize = _FETCH_ROWS
        await cursor.execute(SQL["candles" if timeframe == "M1" else "folded_candles"], about)
        async for row in cursor:
            yield row


@cache
def analyses() -> dict[str, str]:
    """The SQL of `sink/sql/analysis/*.sql` by name; each opens with a comment that says what it answers."""
    found = (entry for entry in files("sink").joinpath("sql", "analysis").iterdir() if entry.name.endswith(".sql"))
    texts = {entry.name.removesuffix(".sql"): entry.read_text(encoding="utf-8") for entry in found}
    return dict(sorted(texts.items()))


def purpose(name: str) -> str:
    """What an analysis answers: the comment that it opens with."""
    lines: list[str] = []
    for line in analyses()[name].splitlines():
        if not line.startswith("-- "):
            break
        lines.append(line.removeprefix("-- "))
    return " ".join(lines)


async def run_query(connection: AsyncConnection[Any], name: int | str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the columns and the rows of query 1 to 5, or of an analysis.

    1 the last 20 rows; 2 rows and newest time per symbol over 24 h; 3 newest row and minutes ago per symbol; 4 the
    table's structure; 5 timeline per symbol.

    Raises:
        ValueError: when there is no such query.
    """
    statement = SQL.get(f"query_{name}")
    if statement is None and name in analyses():
        statement = analyses()[str(name)].encode()
    if statement is None:
        raise ValueError(f"there is no query {name}; they are 1 to 5 and {', '.join(analyses())}")
    cursor = await connection.execute(statement)
    return [column.name for column in cursor.description or ()], await cursor.fetchall()


async def newest_candles(connection: AsyncConnection[Any], symbol: str | None = None) -> list[NewestCandle]:
    """The newest M1 candle of each symbol, or of this one, by symbol."""
    async with connection.cursor(row_factory=class_row(NewestCandle)) as cursor:
        await cursor.execute(SQL["newest_candles"], {"symbol": symbol})
        return await cursor.fetchall()


async def known_symbols(connection: AsyncConnection[Any]) -> list[str]:
    """Every symbol of which a candle is stored, in order."""
    return [symbol for (symbol,) in await (await connection.execute(SQL["known_symbols"])).fetchall()]


async def has_broker_bars(connection: AsyncConnection[Any], symbol: str | None) -> bool:
    """Whether any minute of the broker's own is stored, of this symbol when one is named."""
    row = await (await connection.execute(SQL["has_broker_bars"], {"symbol": symbol})).fetchone()
    return row is not None and bool(row[0])


class CandleDay(NamedTuple):
    """When trading days and weeks begin."""

    zone: str
    #: By the clock of the zone; at noon or later it is the evening before the day's date.
    start: time
    #: `sunday` or `monday`.
    week_start: str
    #: From where on hours and days are materialised; None when all of them are, `infinity` when none is.
    materialised_from: str | None


async def candle_day(connection: AsyncConnection[Any]) -> CandleDay:
    """The setting of `set_candle_day()`."""
    async with connection.cursor(row_factory=class_row(CandleDay)) as cursor:
        await cursor.execute(SQL["candle_day"])
        row = await cursor.fetchone()
    if row is None:
        raise RuntimeError("candle_settings has no row; it was emptied by hand")
    return row


@repeated_after_deadlock
async def set_candle_day(
    connection: AsyncConnection[Any], zone: str, start: time, week_start: str | None = None
) -> None:
    """Days begin at `start` by the clock of `zone`, an IANA name; what depends on it is rebuilt or dropped.

    Raises:
        psycopg.errors.InvalidParameterValue: when there is no such zone, or it changes its clocks by half hours.
    """
    await connection.execute(SQL["set_candle_day"], {"zone": zone, "start": start, "week_start": week_start})


@repeated_after_deadlock
async def materialise_candles(connection: AsyncConnection[Any], days: int) -> str | None:
    """Materialise hours and days, one step of so many days back through history.

    Returns from where on they are materialised now, `-infinity` when all are; None when another session does so.
    """
    row = await (await connection.execute(SQL["materialise_candles"], {"days": days})).fetchone()
    return row[0] if row else None


async def compared(
    connection: AsyncConnection[Any],
    symbol: str | None,
    from_: datetime | None,
    to: datetime | None,
    *,
    daily: bool = False,
    all_minutes: bool = False,
) -> AsyncGenerator[tuple[Any, ...], None]:
    """Rows of the comparison of our M1 with the broker's bars, after a first one with the names of the columns.

    By trading day; or by minute: those that are not equal, with `all_minutes` all. Streams like `candles`.
    """
    about = {"symbol": symbol, "from_": from_, "to": to, "all": all_minutes}
    async with connection.transaction(), connection.cursor(name="compared") as cursor:
        cursor.itersize = _FETCH_ROWS
        await cursor.execute(SQL["compared_days" if daily else "compared_minutes"], about)
        yield tuple(column.name for column in cursor.description or ())
        async for row in cursor:
            yield row


async def different_minutes(
    connection: AsyncConnection[Any], symbol: str | None, from_: datetime | None, to: datetime | None
) -> list[dict[str, Any]]:
    """The minutes that are not equal, with the values of both sides: what `tickpipe.fidelity` explains."""
    about = {"symbol": symbol, "from_": from_, "to": to}
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(SQL["different_minutes"], about)
        return await cursor.fetchall()


@dataclass(frozen=True)
class Series:
    """The candles of one symbol and source that are wanted, from `first` up to, not including, `end`."""

    symbol: str
    source: str
    first: datetime
    end: datetime


class Exporting:
    """One read-only snapshot of the database; use it as `async with Exporting(connection, "M1") as exporting`."""

    def __init__(self, connection: AsyncConnection[Any], timeframe: str) -> None:
        self._connection = connection
        self._timeframe = timeframe

    async def __aenter__(self) -> "Exporting":
        await self._connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await self._connection.set_read_only(True)
        self._transaction = self._connection.transaction()
        await self._transaction.__aenter__()
        await self._connection.execute(SQL["lift_local_timeout"])
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._transaction.__aexit__(*exc_info)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what a row holds."""
        return (*CANDLE_COLUMNS, *PROOF_COLUMNS) if self._timeframe == "M1" else CANDLE_COLUMNS

    async def series(self, symbols: Sequence[str] | None, from_: datetime | None, to: datetime | None) -> list[Series]:
        """What is stored of the symbols (None: of all) between the times, by symbol and source."""
        about = {"symbols": None if symbols is None else list(symbols)}
        found = []
        for symbol, source in await (await self._connection.execute(SQL["exported_series"], about)).fetchall():
            span = {"symbol": symbol, "source": source}
            row = await (await self._connection.execute(SQL["exported_span"], span)).fetchone()
            if row is None or row[0] is None:
                continue
            # A month or a week begins before its first minute.
            first = row[0] - timedelta(0 if self._timeframe == "M1" else 31)
            end = row[1] + timedelta(minutes=1)
            wanted = Series(symbol, source, max(from_ or first, first), min(to or end, end))
            if wanted.first < wanted.end:
                found.append(wanted)
        return found

    async def rows(self, series: Series, first: datetime, end: datetime) -> AsyncGenerator[tuple[Any, ...], None]:
        """The candles of the series that begin at or after `first` and before `end`, in order of time."""
        about = {
            "symbol": series.symbol, "source": series.source, "timeframe": self._timeframe, "from_": first, "to": end,
        }  # fmt: skip
        statement = SQL["exported_minutes" if self._timeframe == "M1" else "exported_candles"]
        async with self._connection.cursor(name="exported") as cursor:
            cursor.itersize = _EXPORT_ROWS
            await cursor.execute(statement, about)
            async for row in cursor:
                yield row


def years(first: datetime, end: datetime) -> list[tuple[int, datetime, datetime]]:
    """The calendar years (UTC) between two times, each with where it begins and ends within them."""
    found = []
    for year in range(first.year, (end - timedelta(microseconds=1)).year + 1):
        begins, ends = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
        found.append((year, max(first, begins), min(end, ends)))
    return found


class SenderRow(NamedTuple):
    """One sender; None for what it did not state."""

    source: str
    server: str | None
    account: str | None
    build: str | None
    ea: str | None
    version: str | None
    address: str | None
    #: By receipt.
    first_seen: datetime
    last_seen: datetime
    ticks: int
    bars: int
    #: Those of the ticks that came into the terminal's list behind later ones.
    late_ticks: int
    #: What the senders of its source differ in within the hour: `servers`, `accounts`, both, or None.
    shared: str | None


async def read_senders(connection: AsyncConnection[Any], since: datetime = _BEGINNING) -> list[SenderRow]:
    """The senders that were seen since then, the latest first."""
    async with connection.cursor(row_factory=class_row(SenderRow)) as cursor:
        await cursor.execute(SQL["senders"], {"since": since})
        return await cursor.fetchall()


async def sources_of(connection: AsyncConnection[Any], symbol: str) -> list[str]:
    """The sources of which candles of the symbol are stored."""
    return [source for (source,) in await (await connection.execute(SQL["sources_of"], {"symbol": symbol})).fetchall()]


async def digits_of(connection: AsyncConnection[Any], source: str, symbol: str) -> int | None:
    """Decimals of the prices; None where their sender does not say."""
    row = await (await connection.execute(SQL["point_of"], {"source": source, "symbol": symbol})).fetchone()
    return None if row is None else decimals_of(row[0])


async def count_minutes(connection: AsyncConnection[Any], wanted: "TickRange") -> int:
    """How many minutes of the range are stored."""
    row = await (await connection.execute(SQL["count_tick_minutes"], wanted.about)).fetchone()
    return int(row[0]) if row else 0
