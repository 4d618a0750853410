"""Reads many lines of ticks at once, column by column, where nothing about them is unusual.

That takes half the time of reading them one by one. Whatever is unusual about one line of a block, such as another
number of cells, a quoted one or a price that is none, leaves the block to the reader of single lines, which alone
decides what is skipped and why.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, repeat
from math import isfinite
from typing import Final

from marketdata.contract.tick import MAX_FLAGS
from marketdata.errors import InvalidItem
from marketdata.tick import ADDED, DAY_MS, MAX_PRICE, MAX_TIME_MSC, Tick
from tickpipe.sending.dialects import Dialect
from tickpipe.sending.numberforms import NumberForm
from tickpipe.sending.textfile import BYTE_ORDER_MARK, DataFileError
from tickpipe.sending.timeforms import TimeReader, read_numbers

#: Lines of a block: with the longest lines there are, 10 million characters.
BLOCK_LINES: Final = 500

#: Ticks of one block are not further apart than this: so only its first can be far from the tick before it (ms).
_WIDEST_MS: Final = 43_200_000

#: What may be lost or gained where a clock is put to UTC (milliseconds).
_DAYS_OF_ZONES_MS: Final = 2 * DAY_MS
_EARLIEST_MS: Final = 366 * DAY_MS

#: MT5: TICK_FLAG_BID and TICK_FLAG_ASK, of a quote in a file that has no flags.
QUOTE_FLAGS: Final = 2 | 4

#: What Python's own numbers may have in them, and no other program writes.
_UNDERSCORE: Final = "_"


class FileTick(Tick, frozen=True, array_like=True, gc=False):
    """A tick of a file."""

    symbol: str = ""


class _Unusual(Exception):
    """The lines have to be read one by one."""


def in_blocks(lines: Iterator[str]) -> Iterator[list[str]]:
    """The lines in blocks; those before one that cannot be read are given out first.

    Raises:
        DataFileError: as the lines.
    """
    while True:
        block: list[str] = []
        try:
            block.extend(islice(lines, BLOCK_LINES))
        except DataFileError:
            if block:
                yield block
            raise
        if not block:
            return
        yield block


class BlockReader:
    """Reads blocks of one file.

    Args:
        dialect: of the file.
        read_time: reads a time, and `to_utc` puts it from the clock of the file to UTC; None where that is not done.
        symbol: of ticks that no column names.
        symbols: those that cells name, as far as they are known.
        sampled: symbols whose prices were inspected; only their ticks are read.
        carried: MetaTrader's empty cells mean the value before: bid, ask, last and volume by symbol. None where an
            empty cell has no value.
    """

    def __init__(
        self,
        dialect: Dialect,
        read_time: TimeReader,
        to_utc: Callable[[int, str], int] | None,
        *,
        symbol: str,
        symbols: dict[str, str],
        sampled: set[str],
        carried: dict[str, list[float]] | None,
    ) -> None:
        self._dialect, self._column = dialect, dialect.column_of
        self._read_time, self._to_utc = read_time, to_utc
        self._symbol, self._symbols, self._sampled, self._carried = symbol, symbols, sampled, carried
        column = self._column
        is_known = dialect.numbers == NumberForm() and "milliseconds" not in column and dialect.form is not None
        # Without flags it is the cells that are not empty which tell what a tick of MetaTrader's changed.
        self._is_usual = is_known and (carried is None or "flags" in column)

    def ticks(self, block: Sequence[str]) -> list[FileTick] | None:
        """The ticks of the lines; None where they have to be read one by one."""
        if not self._is_usual:
            return None
        try:
            return self._ticks(self._columns_of(block))
        except (_Unusual, InvalidItem, ValueError, KeyError):
            return None

    def _columns_of(self, block: Sequence[str]) -> list[tuple[str, ...]]:
        text = "".join(block).replace("\r\n", "\n")
        unusual = (self._dialect.quote, "\r", BYTE_ORDER_MARK, _UNDERSCORE)
        if text[-1:] != "\n" or any(sign in text for sign in unusual):
            raise _Unusual
        separator = self._dialect.separator
        rows = [line.split(separator) for line in text[:-1].split("\n")]
        if {*map(len, rows)} != {len(self._dialect.columns)}:
            raise _Unusual
        return list(zip(*rows, strict=True))

    def _ticks(self, cells: list[tuple[str, ...]]) -> list[FileTick]:
        column, count = self._column, len(cells[0])
        symbol_at, flags_at = column.get("symbol"), column.get("flags")
        symbols = [self._symbol] * count if symbol_at is None else [self._symbols[cell] for cell in cells[symbol_at]]
        if not self._sampled.issuperset(symbols):
            raise _Unusual
        times = self._times(cells)
        now: list[float] = []
        if self._carried is None:
            bids, asks, lasts, volumes = self._complete(cells, count)
        else:
            if len({*symbols}) > 1:
                raise _Unusual
            before = self._carried.get(symbols[0], [0.0] * 4)
            bids, asks, lasts, volumes = (
                _filled(cells[column[name]], value) if name in column else [value] * count
                for name, value in zip(("bid", "ask", "last", "volume"), before, strict=True)
            )
            now = [bids[-1], asks[-1], lasts[-1], volumes[-1]]
        for prices in (bids, asks, lasts):
            _check(prices, -MAX_PRICE, MAX_PRICE)
        _check(volumes, 0.0, MAX_PRICE)
        flags: Iterable[int]
        if flags_at is not None:
            flags = _wholes(cells[flags_at], len(str(MAX_FLAGS)) - 1)
        else:
            flags = [0 if last or volume else QUOTE_FLAGS for last, volume in zip(lasts, volumes, strict=True)]
        # Last of all: in the hour that a clock shows twice the order tells, so each time is put to UTC once.
        if self._to_utc is not None:
            times = list(map(self._to_utc, times, symbols))
        if self._carried is not None:
            self._carried[symbols[0]] = now
        return list(map(FileTick, times, bids, asks, lasts, volumes, flags, *map(repeat, ADDED.values()), symbols))

    def _complete(self, cells: list[tuple[str, ...]], count: int) -> list[list[float]]:
        """Bids, asks, last prices and volumes where an empty cell has no value."""
        column, nothing = self._column, [0.0] * count
        bids = list(map(float, cells[column["bid"]])) if "bid" in column else nothing
        asks = list(map(float, cells[column["ask"]])) if "ask" in column else nothing
        lasts = volumes = nothing
        if "last" in column and "bid" not in column:
            lasts = list(map(float, cells[column["last"]]))
            if 0.0 in lasts:
                raise _Unusual
        elif "last" in column:
            lasts = [float(cell) if cell else 0.0 for cell in cells[column["last"]]]
        said = [column[name] for name in ("volume_real", "volume") if name in column and any(cells[column[name]])]
        if len(said) == 1:
            volumes = [float(cell) if cell else 0.0 for cell in cells[said[0]]]
        elif said:  # the second counts where a cell of the first is empty
            volumes = list(map(float, cells[said[0]]))
        return [bids, asks, lasts, volumes]

    def _times(self, cells: list[tuple[str, ...]]) -> list[int]:
        column = self._column
        if "date" in column and "time" in column:
            times = list(map(self._read_time, cells[column["date"]], cells[column["time"]]))
        else:
            at = column["time_msc" if "time_msc" in column else "time"]
            read = read_numbers(cells[at], form.unit) if (form := self._dialect.form) and form.unit else None
            times = read or list(map(self._read_time, cells[at], repeat("")))
        first, last = min(times), max(times)
        if last - first > _WIDEST_MS or first < _EARLIEST_MS + _DAYS_OF_ZONES_MS:
            raise _Unusual
        if last > MAX_TIME_MSC - _DAYS_OF_ZONES_MS:
            raise _Unusual
        return times


def _filled(cells: Sequence[str], before: float) -> list[float]:
    """The numbers in the cells, in an empty one that before it."""
    if not any(cells):
        return [before] * len(cells)
    values = []
    for cell in cells:
        if cell:
            before = float(cell)
        values.append(before)
    return values


def _wholes(cells: Sequence[str], most_digits: int) -> list[int]:
    if not "".join(cells).isdecimal() or max(map(len, cells)) > most_digits:
        raise _Unusual
    return list(map(int, cells))


def _check(values: Sequence[float], least: float, most: float) -> None:
    """Raises _Unusual where one is no number (NaN), or lies outside."""
    if not (isfinite(sum(values)) and min(values) >= least and max(values) <= most):
        raise _Unusual
