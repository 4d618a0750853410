"""MetaTrader's bar exports as a stream of bars, and what the name of an exported file says."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from marketdata.contract.bar import check_prices
from marketdata.contract.times import WallTime
from marketdata.errors import InvalidItem
from marketdata.timeframes import TIMEFRAMES
from tickpipe.sending.columnfile import ColumnFile, day_ms_of, ms_of_day, number_in

_PRICES: Final = ("open", "high", "low", "close")

#: What MetaTrader 5 calls its columns of volumes and the spread, and what older exports did.
_TICK_VOLUME: Final = ("tick_volume", "volume", "vol")

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
        "a file of bars is what MetaTrader exports, and starts with "
        "<DATE> <TIME> <OPEN> <HIGH> <LOW> <CLOSE> <TICKVOL> <VOL> <SPREAD>"
    )

    def _names_without_header(self, cells: list[str]) -> list[str]:
        times = ["date", "time"] if len(cells) > 1 and _is_clock(cells[1]) else ["time"]
        if len(cells) - len(times) not in (4, 5):
            raise self._unknown()
        return [*times, *_PRICES, "volume"][: len(cells)]

    def _items(self, rows: Iterator[list[str]], column: dict[str, int]) -> Iterator[Bar]:
        if not column.keys() & {"date", "time"} or any(name not in column for name in _PRICES):
            raise self._unknown()
        self.form = "bars"
        return self._bars(rows, column)

    def _bars(self, rows: Iterator[list[str]], column: dict[str, int]) -> Iterator[Bar]:
        volume_at = next((column[name] for name in _TICK_VOLUME if name in column), None)
        # Beside the number of ticks `vol` is the volume of the deals; MetaTrader writes 0 where there are none.
        real_at = column.get("real_volume", column.get("vol"))
        if real_at == volume_at:
            real_at = None
        spread_at = column.get("spread")
        for cells in rows:
            try:
                time_msc = self._opening(cells, column)
                open_, high, low, close = (number_in(cells[column[name]], name) for name in _PRICES)
                volume = 0.0 if volume_at is None else number_in(cells[volume_at] or "0", "volume")
                real = None if real_at is None else number_in(cells[real_at] or "0", "real_volume") or None
                if not volume.is_integer():
                    volume, real = 0.0, volume  # no number of ticks has a fraction
                spread = None if spread_at is None or not cells[spread_at] else number_in(cells[spread_at], "spread")
                if spread is not None and not spread.is_integer():
                    spread = None  # a price difference
                check_prices(open_, high, low, close, int(volume))
            except InvalidItem as exc:
                self._refuse(exc)
                continue
            yield Bar(
                time_msc, open_, high, low, close, int(volume), real, None if spread is None else int(spread)
            )  # fmt: skip

    def _opening(self, cells: list[str], column: dict[str, int]) -> int:
        if "date" not in column:
            return self._time_in(cells[column["time"]], "time")
        time_at = column.get("time")
        wall_ms = day_ms_of(cells[column["date"]]) + (0 if time_at is None else ms_of_day(cells[time_at]))
        return self._ms_of(WallTime(wall_ms, True, "time"))


def timeframe_told_by(bars: Sequence[Bar]) -> str | None:
    """The longest timeframe on whose opening times all of these bars lie, with none between two of them.

    None when they are too few, or out of order: three bars of M1 lie on whole hours by chance once in 200,000 times.
    """
    steps = [after.time_msc - before.time_msc for before, after in pairwise(bars)]
    if len(bars) < 3 or min(steps) <= 0:
        return None
    fitting = [
        timeframe.name
        for timeframe in TIMEFRAMES.values()
        if (width_ms := timeframe.width_ms) is not None
        and width_ms <= min(steps)
        and all(bar.time_msc % width_ms == 0 for bar in bars)
    ]
    return fitting[-1] if fitting else None


def _is_clock(cell: str) -> bool:
    try:
        ms_of_day(cell)
    except InvalidItem:
        return False
    return ":" in cell


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
