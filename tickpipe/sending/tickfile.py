"""Tick files as a stream of ticks: CSV in two forms and MetaTrader's own export, each also compressed by gzip."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import Final

from marketdata.tick import MAX_TIME_MSC, Tick
from tickpipe.sending.columnfile import ColumnFile, day_ms_of, ms_of_day
from tickpipe.times import epoch_ms

#: MT5: TICK_FLAG_BID, TICK_FLAG_ASK, TICK_FLAG_LAST, TICK_FLAG_VOLUME, by the column whose change they announce.
_FLAG_OF_COLUMN: Final = {"bid": 2, "ask": 4, "last": 8, "volume": 16}

#: Flags of a quote in a file that has no flags: bid and ask, as an EA sends them for forex.
_QUOTE_FLAGS: Final = 2 | 4

_MS_COLUMNS: Final = ("time_msc", "ts_msc")
_ISO_COLUMNS: Final = ("timestamp", "time", "ts")

#: More decimals than any instrument has: the file holds computed prices, and the size of a point is unknown.
_MOST_DIGITS: Final = 8


TimeReader = Callable[[Sequence[str]], int]


class TickFile(ColumnFile[Tick]):
    """The ticks of a file, as `with TickFile(path) as ticks`.

    Times are handed on as they are written: of MetaTrader's export that is the broker's clock, which the producer
    converts by the zone of the source.
    """

    forms = (
        "a tick file starts with a line that names its columns: `time_msc,bid,ask`, `timestamp,bid,ask` "
        "or MetaTrader's <DATE> <TIME> <BID> <ASK> <LAST> <VOLUME> <FLAGS>"
    )

    def _items(self, rows: Iterator[list[str]], column: dict[str, int]) -> Iterator[Tick]:
        if "bid" not in column or "ask" not in column:
            raise self._unknown()
        if "date" in column and "time" in column:
            self.form = "MetaTrader's export"
            return self._carried(rows, column)
        for name in _MS_COLUMNS:
            if name in column:
                self.form = "CSV with milliseconds"
                return self._complete(rows, column, _ms_reader(column[name]))
        for name in _ISO_COLUMNS:
            if name in column:
                self.form = "CSV with ISO times"
                return self._complete(rows, column, _iso_reader(column[name]))
        raise self._unknown()

    def _complete(self, rows: Iterator[list[str]], column: dict[str, int], time_of: TimeReader) -> Iterator[Tick]:
        """Rows that say everything: an empty price is an error."""
        bid_at, ask_at = column["bid"], column["ask"]
        last_at, volume_at, flags_at = column.get("last"), column.get("volume"), column.get("flags")
        for cells in rows:
            try:
                time_msc = time_of(cells)
                bid, ask = float(cells[bid_at]), float(cells[ask_at])
                last = 0.0 if last_at is None else float(cells[last_at] or 0.0)
                volume = 0.0 if volume_at is None else float(cells[volume_at] or 0.0)
                flags = _QUOTE_FLAGS if flags_at is None else int(cells[flags_at] or _QUOTE_FLAGS)
            except (ValueError, OverflowError) as exc:
                raise self._bad_line(str(exc)) from exc
            yield self._checked(Tick(time_msc, bid, ask, last, volume, flags))

    def _carried(self, rows: Iterator[list[str]], column: dict[str, int]) -> Iterator[Tick]:
        """MetaTrader's rows, in which an empty cell means that the value is the previous one (as in MqlTick)."""
        date_at, time_at, flags_at = column["date"], column["time"], column.get("flags")
        at = {name: column[name] for name in _FLAG_OF_COLUMN if name in column}
        value = dict.fromkeys(_FLAG_OF_COLUMN, 0.0)
        date, day_ms = "", 0
        for cells in rows:
            try:
                if cells[date_at] != date:
                    day_ms = day_ms_of(cells[date_at])
                    date = cells[date_at]
                time_msc = day_ms + ms_of_day(cells[time_at])
                changed = 0
                for name, index in at.items():
                    if cells[index]:
                        value[name] = float(cells[index])
                        changed |= _FLAG_OF_COLUMN[name]
                flags = int(cells[flags_at]) if flags_at is not None and cells[flags_at] else changed
            except (ValueError, OverflowError) as exc:
                raise self._bad_line(str(exc)) from exc
            yield self._checked(Tick(time_msc, value["bid"], value["ask"], value["last"], value["volume"], flags))

    def _checked(self, tick: Tick) -> Tick:
        if not isfinite(tick.bid + tick.ask + tick.last + tick.volume):
            raise self._bad_line("a price or the volume is not a finite number")
        if not 0 <= tick.time_msc <= MAX_TIME_MSC:
            raise self._bad_line(f"the time {tick.time_msc} is not between 1970 and the year 9999 (milliseconds)")
        return tick


def _ms_reader(index: int) -> TimeReader:
    def read(cells: Sequence[str]) -> int:
        return int(cells[index])

    return read


def _iso_reader(index: int) -> TimeReader:
    def read(cells: Sequence[str]) -> int:
        return epoch_ms(datetime.fromisoformat(cells[index].strip()))

    return read


def digits_of(ticks: Iterable[Tick]) -> int | None:
    """Decimals of the prices (MT5: SYMBOL_DIGITS); None when there are no prices or they are no decimal fractions."""
    digits = -1
    for tick in ticks:
        for price in (tick.bid, tick.ask, tick.last):
            if price > 0.0:
                exponent = Decimal(repr(price)).normalize().as_tuple().exponent
                digits = max(digits, -int(exponent), 0)
    return digits if 0 <= digits <= _MOST_DIGITS else None
