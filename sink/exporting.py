"""The candles of a database as a stream for export: series by series, in order of time, from one snapshot."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from psycopg import AsyncConnection, IsolationLevel

from sink.db.statements import SQL

#: Rows that the server-side cursor fetches at once: memory grows with this, not with the history.
_FETCH_ROWS: Final = 10_000

#: What every candle says, in the order of `exported_candles`; the symbol is the series'.
CANDLE_COLUMNS: Final = (
    "source", "timeframe", "ts", "open", "high", "low", "close", "volume", "real_volume", "spread", "closed",
)  # fmt: skip

#: What an M1 says besides: where it comes from, and its proof (`exported_minutes`).
PROOF_COLUMNS: Final = (
    "origin", "first_tick", "last_tick", "log", "offsets", "received_at", "folded_at",
    "stored_at",
)  # fmt: skip

Row = tuple[Any, ...]


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

    async def rows(self, series: Series, first: datetime, end: datetime) -> AsyncGenerator[Row, None]:
        """The candles of the series that begin at or after `first` and before `end`, in order of time."""
        about = {
            "symbol": series.symbol, "source": series.source, "timeframe": self._timeframe, "from_": first, "to": end,
        }  # fmt: skip
        statement = SQL["exported_minutes" if self._timeframe == "M1" else "exported_candles"]
        async with self._connection.cursor(name="exported") as cursor:
            cursor.itersize = _FETCH_ROWS
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
