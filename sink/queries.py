"""What the command line reads from the database: candles of a stretch of time, the five queries, the newest candles."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import class_row

from sink.statements import SQL

#: Rows that a server-side cursor fetches at once.
_FETCH_ROWS = 5_000


class CandleRow(NamedTuple):
    """The first eight columns of `market_data`, in another order."""

    ts: datetime
    symbol: str
    timeframe: str
    open: float
    high: float
    low: float
    close: float
    #: Ticks.
    volume: int


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

    Streams with a server-side cursor inside a transaction: use up the iterator, or close it, before anything else is
    done with the connection.
    """
    about = {"symbol": symbol, "from_": from_, "to": to, "timeframe": timeframe, "source": source}
    async with (
        connection.transaction(),
        connection.cursor(name="candles", row_factory=class_row(CandleRow)) as cursor,
    ):
        cursor.itersize = _FETCH_ROWS
        await cursor.execute(SQL["candles"], about)
        async for row in cursor:
            yield row


async def run_query(connection: AsyncConnection[Any], number: int) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the columns and the rows of query 1 to 5.

    1 the last 20 rows; 2 rows and newest time per symbol over 24 h; 3 latency per symbol (seconds, p50 and p99, of its
    newest 1,440 minutes); 4 the table's structure; 5 timeline per symbol.

    Raises:
        ValueError: when there is no such query.
    """
    statement = SQL.get(f"query_{number}")
    if statement is None:
        raise ValueError(f"there is no query {number}; they are 1 to 5")
    cursor = await connection.execute(statement)
    return [column.name for column in cursor.description or ()], await cursor.fetchall()


async def newest_candles(connection: AsyncConnection[Any]) -> list[NewestCandle]:
    """The newest M1 candle of each symbol, by symbol."""
    async with connection.cursor(row_factory=class_row(NewestCandle)) as cursor:
        await cursor.execute(SQL["newest_candles"])
        return await cursor.fetchall()
