"""Tick files as a stream of ticks: MetaTrader's own export, and CSV of data sites and scripts."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from marketdata.contract.times import WallTime
from marketdata.errors import InvalidItem
from marketdata.tick import MAX_TIME_MSC, Tick
from tickpipe.sending.columnfile import ColumnFile, day_ms_of, is_time, ms_of_day, number_in

#: MT5: TICK_FLAG_BID, TICK_FLAG_ASK, TICK_FLAG_LAST, TICK_FLAG_VOLUME, by the column whose change they announce.
_FLAG_OF_COLUMN: Final = {"bid": 2, "ask": 4, "last": 8, "volume": 16}

#: Flags of a quote in a file that has no flags: bid and ask, as an EA sends them for forex.
_QUOTE_FLAGS: Final = 2 | 4

_MS_COLUMNS: Final = ("time_msc", "ts_msc")
_TIME_COLUMNS: Final = ("timestamp", "time", "ts")

#: More decimals than any instrument has: the file holds computed prices, and the size of a point is unknown.
_MOST_DIGITS: Final = 8

#: Lines whose prices tell how many decimals they have.
_SAMPLED_LINES: Final = 1_000

TimeReader = Callable[[Sequence[str]], int]


class TickFile(ColumnFile[Tick]):
    """The ticks of a file, as `with TickFile(path) as ticks`.

    Times without an offset are handed on as they are written: of MetaTrader's export that is the broker's clock, which
    the producer converts by the zone of the source.
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
        # More of them are open, high, low, close and volume.
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
        """Rows that say everything: an empty price is an error."""
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
                self._refuse(exc)
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
                self._refuse(exc)
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
