"""Files of history as streams of ticks or of bars: MetaTrader's exports, and CSV of data sites and scripts."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from marketdata.contract.bar import check_prices
from marketdata.contract.times import WallTime
from marketdata.errors import InvalidItem
from marketdata.tick import MAX_TIME_MSC, Tick
from marketdata.timeframes import TIMEFRAMES
from tickpipe.sending.columnfile import ColumnFile, day_ms_of, is_time, ms_of_day, number_in

#: MT5: TICK_FLAG_BID, TICK_FLAG_ASK, TICK_FLAG_LAST, TICK_FLAG_VOLUME, by the column whose change they announce.
_FLAG_OF_COLUMN: Final = {"bid": 2, "ask": 4, "last": 8, "volume": 16}

#: Flags of a quote in a file that has no flags: bid and ask, as an EA sends them for forex.
_QUOTE_FLAGS: Final = 2 | 4

_MS_COLUMNS: Final = ("time_msc", "ts_msc")
_TIME_COLUMNS: Final = ("timestamp", "time", "ts")

#: More decimals than any instrument has: the file holds computed prices, and the size of a point is unknown.
_MOST_DIGITS: Final = 8

#: Lines whose prices are inspected for the number of decimals.
_SAMPLED_LINES: Final = 1_000

_PRICES: Final = ("open", "high", "low", "close")

#: What MetaTrader 5 calls its columns of volumes and the spread, and what older exports did.
_TICK_VOLUME: Final = ("tick_volume", "volume", "vol")

#: How MetaTrader writes the timeframes that have other names in its file names.
_NAMED: Final = {"DAILY": "D1", "WEEKLY": "W1", "MONTHLY": "MN1"}

#: `EURUSD_M1_201902040000_201902042359.csv` of bars, `EURUSD_201902040000_201902042359.csv` of ticks.
_FILE_NAME: Final = re.compile(r"(?P<symbol>.+?)(?:_(?P<timeframe>[A-Za-z]+\d*))?_\d{8,14}_\d{8,14}(?:\..*)?")

TimeReader = Callable[[Sequence[str]], int]


class TickFile(ColumnFile[Tick]):
    """The ticks of a file, as `with TickFile(path) as ticks`.

    Times without an offset are passed on as they are written: in MetaTrader's export they are those of the broker's
    clock, which the producer converts by the zone of the source.
    """

    forms = (
        "a tick file starts with a line that names its columns: `time_msc,bid,ask`, `timestamp,bid,ask` "
        "or MetaTrader's <DATE> <TIME> <BID> <ASK> <LAST> <VOLUME> <FLAGS>"
    )

    @property
    def digits(self) -> int | None:
        """Most decimals of a price in the first lines (MT5: SYMBOL_DIGITS); None when they are computed prices."""
        return self._digits if 0 <= self._digits <= _MOST_DIGITS else None

    def _names_without_header(self, cells: list[str]) -> list[str]:
        at = next(index for index, cell in enumerate(cells) if is_time(cell))
        try:
            prices = [number_in(cell, "price") for cell in cells[at + 1 :]]
        except InvalidItem as exc:
            raise self._unknown() from exc
        # Five or more are open, high, low, close and volume.
        if not 2 <= len(prices) <= 4 or not prices[0] or not prices[1]:
            raise self._unknown()
        quote = ["bid", "ask"] if prices[0] <= prices[1] else ["ask", "bid"]
        return [*["symbol"][:at], "time", *quote, *["size"] * (len(prices) - 2)]

    def _items(self, rows: Iterator[list[str]], column: dict[str, int]) -> Iterator[Tick]:
        self._digits, self._sampled = -1, 0
        if "bid" not in column or "ask" not in column:
            raise self._unknown()
        if "date" in column and "time" in column:
            self.form = "MetaTrader's export"
            return self._carried(rows, column)
        for names, form in ((_MS_COLUMNS, "CSV with milliseconds"), (_TIME_COLUMNS, "CSV with times")):
            for name in names:
                if name in column:
                    self.form = form
                    return self._complete(rows, column, self._time_reader(column[name], name))
        raise self._unknown()

    def _time_reader(self, index: int, name: str) -> TimeReader:
        are_ms = name in _MS_COLUMNS

        def read(cells: Sequence[str]) -> int:
            cell = cells[index]
            if are_ms and cell.isdecimal():
                return self._ms_of(WallTime(int(cell), False, name))
            return self._time_in(cell, name)

        return read

    def _complete(self, rows: Iterator[list[str]], column: dict[str, int], time_of: TimeReader) -> Iterator[Tick]:
        """Rows that are complete: an empty price is an error."""
        bid_at, ask_at = column["bid"], column["ask"]
        last_at, flags_at = column.get("last"), column.get("flags")
        volumes_at = [column[name] for name in ("volume_real", "volume") if name in column]
        for cells in rows:
            try:
                time_msc = time_of(cells)
                bid, ask = number_in(cells[bid_at], "bid"), number_in(cells[ask_at], "ask")
                last = 0.0 if last_at is None else number_in(cells[last_at] or "0", "last")
                volume = next((number_in(cells[at], "volume") for at in volumes_at if cells[at]), 0.0)
                # Without flags a tick with a last price or a volume is taken for a deal (marketdata/fold.py).
                missing = 0 if last or volume else _QUOTE_FLAGS
                flags = missing if flags_at is None else _flags_in(cells[flags_at], missing)
                tick = _checked(Tick(time_msc, bid, ask, last, volume, flags))
            except InvalidItem as exc:
                self._skip(exc)
                continue
            if self._sampled < _SAMPLED_LINES:
                self._sample(cells[bid_at], cells[ask_at])
            yield tick

    def _carried(self, rows: Iterator[list[str]], column: dict[str, int]) -> Iterator[Tick]:
        """MetaTrader's rows, in which an empty cell means that the value is the previous one (as in MqlTick)."""
        date_at, time_at, flags_at = column["date"], column["time"], column.get("flags")
        at = {name: column[name] for name in _FLAG_OF_COLUMN if name in column}
        prices_at = [index for name, index in at.items() if name != "volume"]
        value = dict.fromkeys(_FLAG_OF_COLUMN, 0.0)
        date, day_ms = "", 0
        for cells in rows:
            try:
                if cells[date_at] != date:
                    day_ms = day_ms_of(cells[date_at])
                    date = cells[date_at]
                time_msc = self._ms_of(WallTime(day_ms + ms_of_day(cells[time_at]), False, "time"))
                new = {name: number_in(cells[index], name) for name, index in at.items() if cells[index]}
                changed = sum(_FLAG_OF_COLUMN[name] for name in new)
                flags = changed if flags_at is None else _flags_in(cells[flags_at], changed)
                now = value | new
                tick = _checked(Tick(time_msc, now["bid"], now["ask"], now["last"], now["volume"], flags))
            except InvalidItem as exc:
                self._skip(exc)
                continue
            value = now
            if self._sampled < _SAMPLED_LINES:
                self._sample(*(cells[index] for index in prices_at))
            yield tick

    def _sample(self, *prices: str) -> None:
        self._sampled += 1
        for text in prices:
            # The text has the digits: 49500.00 is a price of two.
            self._digits = max(self._digits, len(text.strip().partition(".")[2]) if text else -1)


def _flags_in(cell: str, missing: int) -> int:
    if not cell:
        return missing
    if cell.isdecimal():
        return int(cell)
    number = number_in(cell, "flags")  # pandas writes 6.0
    if not number.is_integer() or number < 0:
        raise InvalidItem("flags", f"a whole number is expected, not {cell}")
    return int(number)


def _checked(tick: Tick) -> Tick:
    if not 0 <= tick.time_msc <= MAX_TIME_MSC:
        raise InvalidItem("", f"the time {tick.time_msc} is not between 1970 and the year 9999 (milliseconds)")
    return tick


class Bar(NamedTuple):
    """A bar as it stands in a file (MT5: MqlRates)."""

    #: Opening time by the clock of the file (milliseconds, as if it were UTC).
    time_msc: int
    open: float
    high: float
    low: float
    close: float
    #: Number of ticks.
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
                    spread = None  # a difference of prices, not points
                check_prices(open_, high, low, close, int(volume))
            except InvalidItem as exc:
                self._skip(exc)
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


def inferred_timeframe(bars: Sequence[Bar]) -> str | None:
    """The longest timeframe that fits the opening times of all these bars; it is at most their smallest distance.

    None when they are too few or out of order: three bars of M1 lie on whole hours by chance once in 200,000 times.
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
    """What the name of a file that MetaTrader exported says; None where it says nothing."""

    symbol: str | None
    timeframe: str | None


def parse_file_name(path: Path) -> FileName:
    """Symbol and timeframe from the name that MetaTrader gives an exported file."""
    found = _FILE_NAME.fullmatch(path.name)
    if found is None:
        return FileName(None, None)
    symbol, named = found["symbol"], found["timeframe"]
    timeframe = _NAMED.get(named.upper(), named.upper()) if named else None
    if timeframe is not None and not re.fullmatch(r"M\d+|H\d+|D1|W1|MN1", timeframe):
        # The part behind the underscore belongs to the symbol, as in `US_TECH`.
        return FileName(f"{symbol}_{named}", None)
    return FileName(symbol, timeframe)
