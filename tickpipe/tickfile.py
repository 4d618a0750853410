"""Tick files as a stream of ticks: CSV in two forms and MetaTrader's own export, each also compressed by gzip."""

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from decimal import Decimal
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

from marketdata.errors import TickpipeError
from marketdata.tick import MAX_TIME_MSC, Tick
from tickpipe.times import epoch_ms

#: MT5: TICK_FLAG_BID, TICK_FLAG_ASK, TICK_FLAG_LAST, TICK_FLAG_VOLUME, by the column whose change they announce.
_FLAG_OF_COLUMN: Final = {"bid": 2, "ask": 4, "last": 8, "volume": 16}

#: Flags of a quote in a file that has no flags: bid and ask, as an EA sends them for forex.
_QUOTE_FLAGS: Final = 2 | 4

_MS_COLUMNS: Final = ("time_msc", "ts_msc")
_ISO_COLUMNS: Final = ("timestamp", "time", "ts")

#: A first line longer than this is no header (characters).
_LONGEST_HEADER: Final = 10_000

#: More decimals than any instrument has: the file holds computed prices, and the size of a point is unknown.
_MOST_DIGITS: Final = 8

_FORMS: Final = (
    "a tick file starts with a line that names its columns: `time_msc,bid,ask`, `timestamp,bid,ask` "
    "or MetaTrader's <DATE> <TIME> <BID> <ASK> <LAST> <VOLUME> <FLAGS>"
)

TimeReader = Callable[[Sequence[str]], int]


class TickFileError(TickpipeError):
    """A line of a tick file cannot be used; the message names the line and what is wrong with it."""


class NotATickFile(TickFileError):
    """The first line names no known columns; the message lists the forms that are read."""

    is_wrong_use = True


class TickFile:
    """A tick file opened for one pass; memory does not grow with the file.

    Use it as `with TickFile(path) as ticks`. `-` is the standard input. Times are handed on as they are written: of
    MetaTrader's export that is the broker's clock, which the producer converts by the zone of the source.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Size on disk (bytes); None for the standard input.
        self.total_bytes: int | None = None
        #: What the header says the file is, for people.
        self.form = ""
        self._open = ExitStack()
        self._raw: BinaryIO | None = None
        self._line = 0
        self._ticks: Iterator[Tick] = iter(())

    def __enter__(self) -> Self:
        """Open the file and read its header.

        Raises:
            NotATickFile: when the header names no known columns.
            OSError: when the file cannot be opened.
        """
        try:
            if str(self.path) == "-":
                self._raw = sys.stdin.buffer
            else:
                self._raw = self._open.enter_context(self.path.open("rb"))
                self.total_bytes = self.path.stat().st_size
            self._ticks = self._read(self._raw)
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._open.close()

    def __iter__(self) -> Iterator[Tick]:
        return self

    def __next__(self) -> Tick:
        """The next tick.

        Raises:
            TickFileError: naming the line that cannot be read.
        """
        try:
            return next(self._ticks)
        except (gzip.BadGzipFile, EOFError, zlib.error) as exc:
            raise TickFileError(f"{self.path}: damaged or cut off after line {self._line:,}: {exc}") from exc
        except (UnicodeDecodeError, csv.Error) as exc:
            raise TickFileError(f"{self.path}: line {self._line + 1:,} is no text of a tick file: {exc}") from exc

    @property
    def read_bytes(self) -> int:
        """How far the reading is in the file on disk, for a progress bar."""
        return self._raw.tell() if self._raw is not None and self.total_bytes is not None else 0

    def _read(self, raw: BinaryIO) -> Iterator[Tick]:
        stream = cast(io.BufferedReader, raw)
        if stream.peek(2)[:2] == b"\x1f\x8b":
            stream = cast(io.BufferedReader, gzip.GzipFile(fileobj=raw))
        try:
            text = io.TextIOWrapper(stream, encoding=_encoding(stream.peek(4)[:4]), newline="")
            # The file is closed by its own context; a wrapper that is collected first would close it with a warning.
            self._open.callback(text.detach)
            header = text.readline(_LONGEST_HEADER)
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as exc:
            raise NotATickFile(f"{self.path}: {exc}; {_FORMS}") from exc
        self._line = 1
        delimiter = next((mark for mark in "\t;" if mark in header), ",")
        names = [cell.strip().strip("<>\"'").lower() for cell in header.rstrip("\r\n").split(delimiter)]
        column = {name: index for index, name in reversed(list(enumerate(names)))}
        if "bid" not in column or "ask" not in column:
            raise NotATickFile(f"{self.path}: the first line is {header[:80]!r}; {_FORMS}")
        rows = csv.reader(text, delimiter=delimiter)
        if "date" in column and "time" in column:
            self.form = "MetaTrader's export"
            return self._carried(rows, names, column)
        for name in _MS_COLUMNS:
            if name in column:
                self.form = "CSV with milliseconds"
                return self._complete(rows, names, column, _ms_reader(column[name]))
        for name in _ISO_COLUMNS:
            if name in column:
                self.form = "CSV with ISO times"
                return self._complete(rows, names, column, _iso_reader(column[name]))
        raise NotATickFile(f"{self.path}: no column of {names} is a time; {_FORMS}")

    def _rows(self, rows: Iterator[list[str]], names: list[str]) -> Iterator[list[str]]:
        width = len(names)
        start = self._line
        for cells in rows:
            self._line = start + rows.line_num  # type: ignore[attr-defined]  # csv.reader has no public type
            if len(cells) < width:
                if not any(cells):
                    continue
                raise self._bad_line(f"it has {len(cells)} cells, the first line names {width} columns")
            yield cells

    def _complete(
        self, rows: Iterator[list[str]], names: list[str], column: dict[str, int], time_of: TimeReader
    ) -> Iterator[Tick]:
        """Rows that say everything: an empty price is an error."""
        bid_at, ask_at = column["bid"], column["ask"]
        last_at, volume_at, flags_at = column.get("last"), column.get("volume"), column.get("flags")
        for cells in self._rows(rows, names):
            try:
                time_msc = time_of(cells)
                bid, ask = float(cells[bid_at]), float(cells[ask_at])
                last = 0.0 if last_at is None else float(cells[last_at] or 0.0)
                volume = 0.0 if volume_at is None else float(cells[volume_at] or 0.0)
                flags = _QUOTE_FLAGS if flags_at is None else int(cells[flags_at] or _QUOTE_FLAGS)
            except (ValueError, OverflowError) as exc:
                raise self._bad_line(str(exc)) from exc
            yield self._checked(Tick(time_msc, bid, ask, last, volume, flags))

    def _carried(self, rows: Iterator[list[str]], names: list[str], column: dict[str, int]) -> Iterator[Tick]:
        """MetaTrader's rows, in which an empty cell means that the value is the previous one (as in MqlTick)."""
        date_at, time_at, flags_at = column["date"], column["time"], column.get("flags")
        at = {name: column[name] for name in _FLAG_OF_COLUMN if name in column}
        value = dict.fromkeys(_FLAG_OF_COLUMN, 0.0)
        date, day_ms = "", 0
        for cells in self._rows(rows, names):
            try:
                if cells[date_at] != date:
                    day_ms = epoch_ms(datetime.strptime(cells[date_at].strip(), "%Y.%m.%d"))  # noqa: DTZ007  # as UTC
                    date = cells[date_at]
                time_msc = day_ms + _ms_of_day(cells[time_at])
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

    def _bad_line(self, why: str) -> TickFileError:
        return TickFileError(f"{self.path}: line {self._line:,}: {why}")


def _encoding(start: bytes) -> str:
    # MT5 exports as UTF-16-LE with a mark, or as UTF-8; without a mark a zero byte beside the first letter tells.
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if start[1:2] == b"\0":
        return "utf-16-le"
    return "utf-8-sig"


def _ms_reader(index: int) -> TimeReader:
    def read(cells: Sequence[str]) -> int:
        return int(cells[index])

    return read


def _iso_reader(index: int) -> TimeReader:
    def read(cells: Sequence[str]) -> int:
        return epoch_ms(datetime.fromisoformat(cells[index].strip()))

    return read


def _ms_of_day(text: str) -> int:
    """Milliseconds since midnight of `00:00:01.234`, of `00:00:01` and of `00:00`."""
    clock, _, fraction = text.strip().partition(".")
    parts = clock.split(":")
    if len(parts) == 2:
        parts.append("0")
    if len(parts) == 3 and all(part.isdecimal() for part in parts) and (fraction.isdecimal() or not fraction):
        hour, minute, second = map(int, parts)
        if hour < 24 and minute < 60 and second < 60:
            return (hour * 3_600 + minute * 60 + second) * 1_000 + int(fraction[:3].ljust(3, "0"))
    raise ValueError(f"{text!r} is no time of day such as 00:00:01.234")


def digits_of(ticks: Iterable[Tick]) -> int | None:
    """Decimals of the prices (MT5: SYMBOL_DIGITS); None when there are no prices or they are no decimal fractions."""
    digits = -1
    for tick in ticks:
        for price in (tick.bid, tick.ask, tick.last):
            if price > 0.0:
                exponent = Decimal(repr(price)).normalize().as_tuple().exponent
                digits = max(digits, -int(exponent), 0)
    return digits if 0 <= digits <= _MOST_DIGITS else None
