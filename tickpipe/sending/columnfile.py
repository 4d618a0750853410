"""Reads files with one tick or bar per line in one pass: text in any of MetaTrader's encodings, compressed or not.

A line that cannot be used is skipped: it is counted and reported with its number and the reason.
"""

import csv
import gzip
import io
import os
import re
import stat
import sys
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import chain
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, ClassVar, Final, Generic, Self, TypeVar, cast

from marketdata.contract.numbers import finite, quoted
from marketdata.contract.times import Clock, Instant, Time, WallTime, parse_time, time_in
from marketdata.errors import InvalidItem, TickpipeError

Item = TypeVar("Item")

#: A first line longer than this is not a header (characters).
_LONGEST_HEADER: Final = 10_000

#: Skipped lines that are reported with their reasons; more would not help the reader.
_REPORTED_LINES: Final = 20

#: Other names of columns.
_ALIASES: Final = {
    "askprice": "ask", "bidprice": "bid", "local time": "time", "gmt time": "time", "datetime": "time",
    "ticker": "symbol", "tickvol": "tick_volume",
}  # fmt: skip

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

#: HistData: Eastern Standard Time without summer time, whatever the instrument.
_EST: Final = timezone(timedelta(hours=-5))
_HISTDATA: Final = re.compile(r"([0-9]{8}) ([0-9]{6})([0-9]{3})?")

#: Dukascopy's pages: `01.03.2013 00:00:00.605 GMT+0100`.
_DAY_FIRST: Final = re.compile(
    r"([0-9]{2})\.([0-9]{2})\.([0-9]{4}) ([0-9:.]{8,12})(?: (?:GMT|UTC)([+-][0-9]{2}):?([0-9]{2}))?"
)

_DAY: Final = re.compile(r"([0-9]{4})([.\-/]?)([0-9]{2})\2([0-9]{2})")


class DataFileError(TickpipeError):
    """A file cannot be read on from some line; the message names the line and what is wrong with it."""


class UnknownForm(DataFileError):
    """The first line names no known columns; the message lists the forms that are read."""

    is_wrong_use = True


class ColumnFile(ABC, Generic[Item]):
    """A file opened for one pass, `with … as items`; memory does not grow with it. `-` is the standard input.

    Args:
        symbol: whose ticks or bars are wanted, where a column names symbols.
        zone: of the clock of the file; its times become moments. Without one they stay as they are written, for the
            server to convert by the zone of the source.
    """

    #: What the header has to look like; shown to the user.
    forms: ClassVar[str]

    def __init__(self, path: Path, *, symbol: str | None = None, zone: tzinfo | None = None) -> None:
        self.path = path
        self.symbol = symbol
        #: Whether the times of the items are moments (UTC), not those of the clock of the file; known with the first.
        self.are_instants = zone is not None
        #: How many lines were skipped, and the reasons of the first of them.
        self.skipped = 0
        self.reasons: list[str] = []
        self._clock = None if zone is None else Clock(zone, None)
        self._saw_time = False
        self._times_are_utc = False
        #: Size on disk (bytes); None for the standard input.
        self.total_bytes: int | None = None
        #: Whether the items come through a pipe or a terminal, which may pause and resume.
        self.is_live = False
        #: The kind of file according to its header; shown to the user.
        self.form = ""
        self._open = ExitStack()
        self._raw: BinaryIO | None = None
        self._line = 0
        self._header = ""
        self._found: Iterator[Item] = iter(())

    def __enter__(self) -> Self:
        """Open the file and read its header.

        Raises:
            UnknownForm: when the header names no known columns.
            OSError: when the file cannot be opened.
        """
        try:
            if str(self.path) == "-":
                self._raw = self._standard_input()
            else:
                self._raw = self._open.enter_context(self.path.open("rb"))
                self.total_bytes = self.path.stat().st_size
            self._found = self._read(self._raw)
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._open.close()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        """The next item.

        Raises:
            DataFileError: when the file cannot be read beyond some line.
        """
        try:
            return next(self._found)
        except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error) as exc:
            raise DataFileError(f"{self.path}: damaged or cut off after line {self._line:,}: {exc}") from exc
        except (UnicodeDecodeError, csv.Error) as exc:
            raise DataFileError(f"{self.path}: line {self._line + 1:,} is not text of such a file: {exc}") from exc

    @property
    def read_bytes(self) -> int:
        """How far the reading is in the file on disk, for a progress bar."""
        return self._raw.tell() if self._raw is not None and self.total_bytes is not None else 0

    @abstractmethod
    def _items(self, rows: Iterator[list[str]], column: dict[str, int]) -> Iterator[Item]:
        """The items of the rows; `column` is the place of each name of the header, in lower case.

        Raises:
            UnknownForm: at once, when the names are not those of such a file.
        """

    def _read(self, raw: BinaryIO) -> Iterator[Item]:
        try:
            text = self._text(raw)
            header = text.readline(_LONGEST_HEADER)
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, UnicodeDecodeError) as exc:
            raise UnknownForm(f"{self.path}: {exc}; {self.forms}") from exc
        delimiter = next((mark for mark in "\t;" if mark in header), ",")
        names = names_of(header, delimiter)
        lines: Iterator[str] = text
        self._header = header
        if not any(is_time(cell) for cell in names[:2]):
            self._line = 1
            self._times_are_utc = "gmt time" in header.lower()
        else:
            # There is no header: the first line is a tick or a bar.
            names = self._names_without_header(names)
            lines = chain([header], text)
        column = {_ALIASES.get(name, name): index for index, name in reversed(list(enumerate(names)))}
        return self._items(self._rows(csv.reader(lines, delimiter=delimiter), len(names), column), column)

    def _standard_input(self) -> BinaryIO:
        try:
            descriptor = sys.stdin.fileno()
        except io.UnsupportedOperation:  # something in memory was put in its place
            return sys.stdin.buffer
        self.is_live = not stat.S_ISREG(os.fstat(descriptor).st_mode)
        # A reader of its own: Python dies at exit when a thread still reads from sys.stdin.
        return open(descriptor, "rb", closefd=False)

    def _text(self, raw: BinaryIO) -> io.TextIOWrapper:
        stream = cast(io.BufferedReader, raw)
        magic = stream.peek(4)[:4]
        if magic[:2] == b"\x1f\x8b":
            stream = cast(io.BufferedReader, gzip.GzipFile(fileobj=raw))
        elif magic == b"PK\x03\x04" and raw.seekable():
            archive = self._open.enter_context(zipfile.ZipFile(raw))
            names = [name for name in archive.namelist() if name.lower().endswith((".csv", ".txt"))]
            if len(names) != 1:
                raise UnknownForm(f"{self.path}: the archive has {len(names)} files of text; one is read; {self.forms}")
            stream = cast(io.BufferedReader, io.BufferedReader(self._open.enter_context(archive.open(names[0]))))
        text = io.TextIOWrapper(stream, encoding=_encoding(stream.peek(4)[:4]), newline="")
        if not self.is_live:
            # The file is closed by its own context; a wrapper that is collected first would close it with a warning.
            # From a pipe, a thread may be reading: it alone has the wrapper, and the descriptor stays open.
            self._open.callback(text.detach)
        return text

    def _names_without_header(self, cells: list[str]) -> list[str]:
        """The names of the columns of a file without a header, by its first line.

        Raises:
            UnknownForm: when the line does not say.
        """
        raise self._unknown()

    def _rows(self, rows: Iterator[list[str]], width: int, column: dict[str, int]) -> Iterator[list[str]]:
        start, symbol_at = self._line, column.get("symbol")
        for cells in rows:
            self._line = start + rows.line_num  # type: ignore[attr-defined]  # csv.reader has no public type
            if not any(cells):
                continue
            if len(cells) < width or any(cells[width:]):
                self._skip(f"it has {len(cells)} cells, the first line names {width} columns")
            elif symbol_at is not None and not self._is_wanted(cells[symbol_at].strip()):
                self._skip(f"it is of {cells[symbol_at].strip()}, not of {self.symbol}")
            else:
                yield cells

    def _is_wanted(self, symbol: str) -> bool:
        # Some write EUR/USD where others write EURUSD.
        return self.symbol in (None, symbol) or symbol.replace("/", "") == self.symbol

    def _skip(self, why: str | InvalidItem) -> None:
        """Skip the line that was read last."""
        self.skipped += 1
        if len(self.reasons) < _REPORTED_LINES:
            if isinstance(why, InvalidItem):
                why = f"{why.field}: {why.message}" if why.field else why.message
            self.reasons.append(f"{self.path}: line {self._line:,}: {why}")

    def _ms_of(self, time: Time) -> int:
        """The milliseconds of a time: UTC where `are_instants`, else of the clock of the file.

        Raises:
            InvalidItem: when some times of the file have an offset and some have none.
        """
        if self._clock is not None:
            return self._clock.utc_ms(time)
        is_instant = isinstance(time, Instant)
        if is_instant is not self.are_instants:
            if self._saw_time:
                raise InvalidItem(time.field, "some times of the file have an offset and some have none")
            self.are_instants = is_instant
        self._saw_time = True
        return time.ms

    def _time_in(self, cell: str, field: str) -> int:
        """As `_ms_of`, of the time in a cell."""
        return self._ms_of(file_time(cell, field, is_utc=self._times_are_utc))

    def _unknown(self) -> UnknownForm:
        return UnknownForm(f"{self.path}: the first line is {self._header[:80]!r}; {self.forms}")


def number_in(cell: str, field: str) -> float:
    """The number in a cell.

    Raises:
        InvalidItem: when there is none, or it is not finite.
    """
    try:
        number = float(cell)
    except ValueError:
        return finite(cell, field)  # raises with what is wrong
    return number if isfinite(number) else finite(number, field)


def file_time(cell: str, field: str, *, is_utc: bool = False) -> Time:
    """The time in one cell; `is_utc` says that a time without an offset is one of UTC.

    Raises:
        InvalidItem: naming `field` when it is none.
    """
    text = cell.strip()
    if found := _HISTDATA.fullmatch(text):
        moment = _parsed(f"{found[1]}{found[2]}", "%Y%m%d%H%M%S", field).replace(tzinfo=_EST)
        return Instant((moment - _EPOCH) // _MILLISECOND + int(found[3] or 0), found[3] is None, field)
    if found := _DAY_FIRST.fullmatch(text):
        day, month, year, clock, hours, minutes = found.groups()
        offset = f"{hours}:{minutes}" if hours else ""
        time = parse_time(f"{year}-{month}-{day}T{clock}{offset}", field)
    else:
        time = time_in(text, field)
    return Instant(time.ms, time.coarse, field) if is_utc and isinstance(time, WallTime) else time


def day_ms_of(text: str) -> int:
    """The start of the day `2019.02.04`, `2019-02-04` or `20190204` (milliseconds, of the clock that it is of).

    Raises:
        InvalidItem: when it is none.
    """
    if found := _DAY.fullmatch(text.strip()):
        moment = _parsed(f"{found[1]}{found[3]}{found[4]}", "%Y%m%d", "date")
        return (moment.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
    raise InvalidItem("date", f"{quoted(text)} is no date such as 2019.02.04")


def ms_of_day(text: str) -> int:
    """Milliseconds since midnight of `00:00:01.234`, of `00:00:01`, of `00:00` and of `000001`.

    Raises:
        InvalidItem: when it is none.
    """
    clock, _, fraction = text.strip().partition(".")
    parts = [clock[:2], clock[2:4], clock[4:]] if len(clock) == 6 and clock.isdecimal() else clock.split(":")
    if len(parts) == 2:
        parts.append("0")
    if len(parts) == 3 and all(part.isdecimal() for part in parts) and (fraction.isdecimal() or not fraction):
        hour, minute, second = map(int, parts)
        if hour < 24 and minute < 60 and second < 60:
            return (hour * 3_600 + minute * 60 + second) * 1_000 + int(fraction[:3].ljust(3, "0"))
    raise InvalidItem("time", f"{quoted(text)} is no time of day such as 00:00:01.234")


def is_time(cell: str) -> bool:
    """Whether a cell of a line without header is a date, or a date with a time of day; numbers are none."""
    text = cell.strip()
    if _DAY.fullmatch(text):
        return "." in text or "-" in text
    if text.replace(".", "", 1).isdecimal():
        return False
    try:
        file_time(text, "")
    except InvalidItem:
        return False
    return True


def _parsed(text: str, form: str, field: str) -> datetime:
    try:
        return datetime.strptime(text, form)  # noqa: DTZ007  # the caller knows the zone
    except ValueError:
        raise InvalidItem(field, f"{quoted(text)} is no date") from None


def names_of(header: str, delimiter: str) -> list[str]:
    """The names of a first line, in lower case and without MetaTrader's angle brackets."""
    return [cell.strip().strip("<>\"'").lower() for cell in header.rstrip("\r\n").split(delimiter)]


def _encoding(start: bytes) -> str:
    # MT5 exports as UTF-16-LE with a byte order mark, or as UTF-8; without the mark, a zero byte beside the first
    # letter shows it.
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if start[1:2] == b"\0":
        return "utf-16-le"
    return "utf-8-sig"
