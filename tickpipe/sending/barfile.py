"""MetaTrader's bar exports as a stream of bars, and what the name of an exported file says."""

import re
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Final, NamedTuple

from tickpipe.sending.columnfile import ColumnFile, day_ms_of, ms_of_day

_PRICES: Final = ("open", "high", "low", "close")

#: What MetaTrader 5 calls its columns of volumes and the spread, and what older exports did.
_TICK_VOLUME: Final = ("tickvol", "tick_volume", "volume", "vol")

#: How MetaTrader writes the timeframes that have other names in its file names.
_NAMED: Final = {"DAILY": "D1", "WEEKLY": "W1", "MONTHLY": "MN1"}

#: `EURUSD_M1_201902040000_201902042359.csv` of bars, `EURUSD_201902040000_201902042359.csv` of ticks.
_FILE_NAME: Final = re.compile(r"(?P<symbol>.+?)(?:_(?P<timeframe>[A-Za-z]+\d*))?_\d{8,14}_\d{8,14}(?:\..*)?")


class Bar(NamedTuple):
    """A bar as its file has it (MT5: MqlRates)."""

    #: Opening time by the clock of the file (milliseconds, as if it were UTC).
    time_msc: int
    open: float
    high: float
    low: float
    close: float
    #: Ticks.
    tick_volume: int
    real_volume: float | None
    spread: int | None


class BarFile(ColumnFile[Bar]):
    """The bars of a file, as `with BarFile(path) as bars`. Times are those of the broker's clock, as of a tick file."""

    forms = (
        "a file of bars is what MetaTrader 5 exports, and starts with "
        "<DATE> <TIME> <OPEN> <HIGH> <LOW> <CLOSE> <TICKVOL> <VOL> <SPREAD>"
    )

    def _items(self, rows: Iterator[list[str]], column: dict[str, int]) -> Iterator[Bar]:
        if "date" not in column or any(name not in column for name in _PRICES):
            raise self._unknown()
        self.form = "MetaTrader's bars"
        return self._bars(rows, column)

    def _bars(self, rows: Iterator[list[str]], column: dict[str, int]) -> Iterator[Bar]:
        date_at, time_at = column["date"], column.get("time")
        prices_at = [column[name] for name in _PRICES]
        volume_at = next((column[name] for name in _TICK_VOLUME if name in column), None)
        # Beside the number of ticks `vol` is the volume of the deals; MetaTrader writes 0 where there are none.
        real_at = column.get("vol") if volume_at != column.get("vol") else None
        spread_at = column.get("spread")
        for cells in rows:
            try:
                time_ms = day_ms_of(cells[date_at]) + (0 if time_at is None else ms_of_day(cells[time_at]))
                open_, high, low, close = (float(cells[index]) for index in prices_at)
                ticks = 0 if volume_at is None else int(cells[volume_at])
                real = None if real_at is None else float(cells[real_at]) or None
                spread = None if spread_at is None else int(cells[spread_at])
            except (ValueError, OverflowError) as exc:
                raise self._bad_line(str(exc)) from exc
            if not (isfinite(high) and 0 < low <= min(open_, close) and max(open_, close) <= high):
                raise self._bad_line("low, open, close and high are no prices of one bar")
            yield Bar(time_ms, open_, high, low, close, ticks, real, spread)


class FileName(NamedTuple):
    """What MetaTrader's name of an exported file says; None where it says nothing."""

    symbol: str | None
    timeframe: str | None


def named_by(path: Path) -> FileName:
    """Symbol and timeframe of a file that MetaTrader named."""
    found = _FILE_NAME.fullmatch(path.name)
    if found is None:
        return FileName(None, None)
    symbol, named = found["symbol"], found["timeframe"]
    timeframe = _NAMED.get(named.upper(), named.upper()) if named else None
    if timeframe is not None and not re.fullmatch(r"M\d+|H\d+|D1|W1|MN1", timeframe):
        # It belongs to the symbol, as in `US_TECH`.
        return FileName(f"{symbol}_{named}", None)
    return FileName(symbol, timeframe)
