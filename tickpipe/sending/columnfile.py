"""Files of one line a tick or bar, opened for one pass: text in any of MetaTrader's encodings, compressed or not."""

import csv
import gzip
import io
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, ClassVar, Final, Generic, Self, TypeVar, cast

from marketdata.errors import TickpipeError
from tickpipe.times import epoch_ms

Item = TypeVar("Item")

#: A first line longer than this is no header (characters).
_LONGEST_HEADER: Final = 10_000


class DataFileError(TickpipeError):
    """A line of a file cannot be used; the message names the line and what is wrong with it."""


class UnknownForm(DataFileError):
    """The first line names no known columns; the message lists the forms that are read."""

    is_wrong_use = True


class ColumnFile(ABC, Generic[Item]):
    """A file opened for one pass, `with … as items`; memory does not grow with it. `-` is the standard input."""

    #: What the header has to look like, for people.
    forms: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Size on disk (bytes); None for the standard input.
        self.total_bytes: int | None = None
        #: What the header says the file is, for people.
        self.form = ""
        self._open = ExitStack()
        self._raw: BinaryIO | None = None
        self._line = 0
        self._found: Iterator[Item] = iter(())

    def __enter__(self) -> Self:
        """Open the file and read its header.

        Raises:
            UnknownForm: when the header names no known columns.
            OSError: when the file cannot be opened.
        """
        try:
            if str(self.path) == "-":
                self._raw = sys.stdin.buffer
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
            DataFileError: naming the line that cannot be read.
        """
        try:
            return next(self._found)
        except (gzip.BadGzipFile, EOFError, zlib.error) as exc:
            raise DataFileError(f"{self.path}: damaged or cut off after line {self._line:,}: {exc}") from exc
        except (UnicodeDecodeError, csv.Error) as exc:
            raise DataFileError(f"{self.path}: line {self._line + 1:,} is no text of such a file: {exc}") from exc

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
        stream = cast(io.BufferedReader, raw)
        if stream.peek(2)[:2] == b"\x1f\x8b":
            stream = cast(io.BufferedReader, gzip.GzipFile(fileobj=raw))
        try:
            text = io.TextIOWrapper(stream, encoding=_encoding(stream.peek(4)[:4]), newline="")
            # The file is closed by its own context; a wrapper that is collected first would close it with a warning.
            self._open.callback(text.detach)
            header = text.readline(_LONGEST_HEADER)
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as exc:
            raise UnknownForm(f"{self.path}: {exc}; {self.forms}") from exc
        self._line = 1
        delimiter = next((mark for mark in "\t;" if mark in header), ",")
        names = names_of(header, delimiter)
        column = {name: index for index, name in reversed(list(enumerate(names)))}
        self._header = header
        return self._items(self._rows(csv.reader(text, delimiter=delimiter), len(names)), column)

    def _rows(self, rows: Iterator[list[str]], width: int) -> Iterator[list[str]]:
        start = self._line
        for cells in rows:
            self._line = start + rows.line_num  # type: ignore[attr-defined]  # csv.reader has no public type
            if len(cells) < width:
                if not any(cells):
                    continue
                raise self._bad_line(f"it has {len(cells)} cells, the first line names {width} columns")
            yield cells

    def _unknown(self) -> UnknownForm:
        return UnknownForm(f"{self.path}: the first line is {self._header[:80]!r}; {self.forms}")

    def _bad_line(self, why: str) -> DataFileError:
        return DataFileError(f"{self.path}: line {self._line:,}: {why}")


def names_of(header: str, delimiter: str) -> list[str]:
    """The names of a first line, in lower case and without MetaTrader's angle brackets."""
    return [cell.strip().strip("<>\"'").lower() for cell in header.rstrip("\r\n").split(delimiter)]


def day_ms_of(text: str) -> int:
    """The start of MetaTrader's `2019.02.04` (milliseconds, of the clock that it is of)."""
    return epoch_ms(datetime.strptime(text.strip(), "%Y.%m.%d"))  # noqa: DTZ007  # as UTC


def ms_of_day(text: str) -> int:
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


def _encoding(start: bytes) -> str:
    # MT5 exports as UTF-16-LE with a mark, or as UTF-8; without a mark a zero byte beside the first letter tells.
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if start[1:2] == b"\0":
        return "utf-16-le"
    return "utf-8-sig"
