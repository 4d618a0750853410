"""Finds and mends what no longer equals what it was derived from: minutes filled from the broker's bars, and hours and
days rolled up from minutes.

The sink and the triggers keep them equal. Where somebody deletes or changes rows, or disables the triggers for a while,
they are not, and the log of ticks cannot tell.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, astuple
from datetime import timedelta
from functools import partial
from typing import Any, Final

from sink.completeness import Key, Selection
from sink.db.connection import Connection, Database
from sink.db.session import SQL

#: Days whose minutes are rolled up at once: those of a hundred symbols are 4 million.
_DAYS: Final = timedelta(days=31)

#: Rows that one transaction writes.
_ROWS: Final = 5_000


async def unfilled_bars(connection: Connection, selection: Selection) -> list[Key]:
    """The broker's bars of which market_data has neither a fold nor the same bar."""
    rows = await (await connection.execute(SQL["unfilled_bars"], asdict(selection))).fetchall()
    return [Key(*row) for row in rows]


async def wrong_roll_ups(connection: Connection, selection: Selection) -> AsyncIterator[list[Key]]:
    """Hours that are not the roll-up of their minutes, and days that are not that of their hours."""
    row = await (await connection.execute(SQL["span_of_hours"])).fetchone()
    if row is None or row[0] is None:
        return
    first, last = row
    newest = last if selection.to is None else selection.to - timedelta(microseconds=1)
    lo, end = selection.from_ or first, newest + timedelta(days=1)
    while lo < end:
        hi = min(lo + _DAYS, end)
        rows = await (
            await connection.execute(SQL["wrong_roll_ups"], {**asdict(selection), "lo": lo, "hi": hi})
        ).fetchall()
        yield [Key(*row) for row in rows]
        lo = hi


async def fill_bars(database: Database, rows: Sequence[Key]) -> int:
    """Store these bars of the broker in market_data; returns how many rows changed."""
    return await _write(database, "fill_from_bars", rows)


async def roll_up_again(database: Database, rows: Sequence[Key]) -> int:
    """Have these hours and days rolled up again: by whoever reads them at once, and by the sink for good."""
    await _write(database, "make_stale", rows)
    return len(rows)


def key_columns(rows: Sequence[Key]) -> dict[str, list[Any]]:
    """What the statements take that write by names of rows, of which there must be one."""
    sources, symbols, times, timeframes = map(list, zip(*map(astuple, rows), strict=True))
    return {"source": sources, "symbol": symbols, "timeframe": timeframes, "ts": times}


async def _write(database: Database, statement: str, rows: Sequence[Key]) -> int:
    async def execute(connection: Connection, about: dict[str, Any]) -> int:
        return (await connection.execute(SQL[statement], about)).rowcount

    written = 0
    for start in range(0, len(rows), _ROWS):
        written += await database.run(partial(execute, about=key_columns(rows[start : start + _ROWS])))
    return written
