"""Reads files with one tick or bar per line in one pass.

A line that cannot be used is skipped: it is counted, and handed out with its number and the reason.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Generic, NamedTuple, Protocol, Self, TypeVar

from marketdata.contract.fields import quoted, symbol_of
from marketdata.contract.times import Clock
from marketdata.errors import InvalidItem
from marketdata.tick import DAY_MS
from tickpipe.sending.arrowfile import ArrowFile, is_arrow
from tickpipe.sending.dialects import Dialect, Kind, Said, UnknownForm, parse_file_name
from tickpipe.sending.headers import columns_named, is_comment, split_cells
from tickpipe.sending.recognition import FORMS, SAMPLE_LINES, recognise
from tickpipe.sending.textfile import BYTE_ORDER_MARK, DataFileError, TextFile
from tickpipe.sending.timeforms import TooEarly, is_time, reader_of


class Timed(Protocol):
    """An item with a time."""

    @property
    def time_msc(self) -> int:
        """Milliseconds since 1970."""


Item = TypeVar("Item", bound=Timed)

#: Skipped lines that are reported with their reasons; more would not help the reader.
_REPORTED_LINES: Final = 20

#: How much of a skipped line is handed out (characters).
_MOST_TEXT: Final = 1_000

#: A time that goes back further than a day, or ahead further than this, is wrong when the line after it is where the
#: line before it was. Weekends and holidays lie between (milliseconds).
_FAR_AHEAD_MS: Final = 7 * DAY_MS

#: Lines that have to be there before one without its end is compared with them.
_ENOUGH_LINES: Final = 3

#: What tells how a file is written where its first lines do not.
_CURE: Final = "say how it is written with --columns, --skip-rows, --date-format, --decimal or --encoding"

#: A second has 999 milliseconds at most.
_MILLISECONDS_DIGITS: Final = 3

#: Columns that a header within a file may not move.
_PLACED: Final = frozenset({"date", "time", "time_msc", "bid", "ask", "last", "open", "high", "low", "close"})

#: Some write EUR/USD where MetaTrader writes EURUSD.
_PAIR: Final = re.compile("([A-Z]{3})/([A-Z]{3})")


class BadLine(NamedTuple):
    """A line that was skipped."""

    number: int
    text: str
    reason: str


class Unwanted(InvalidItem):
    """A line is of another symbol or timeframe than the wanted one."""


class SkippingFile:
    """A file opened for one pass, of which lines that cannot be used are skipped.

    Args:
        path: of the file.
        file: that reads it.
        on_bad: told every line that is skipped.
        is_strict: whether the first such line ends the reading.
    """

    def __init__(
        self, path: Path, file: TextFile | ArrowFile, on_bad: Callable[[BadLine], None], is_strict: bool
    ) -> None:
        self.path = path
        #: How many lines were skipped, and the reasons of the first of them.
        self.skipped = 0
        self.reasons: list[str] = []
        self._file = file
        self._open = ExitStack()
        self._on_bad, self._is_strict = on_bad, is_strict

    def __enter__(self) -> Self:
        """Open the file.

        Raises:
            OSError: when it cannot be opened.
        """
        self._open.enter_context(self._file)
        return self

    def __exit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._open.close()

    @property
    def total_bytes(self) -> int | None:
        """Size on disk (bytes); None for the standard input."""
        return self._file.total_bytes

    @property
    def read_bytes(self) -> int:
        """How far the reading is in the file on disk, for a progress bar."""
        return self._file.read_bytes

    def _skip_line(self, line: int, text: str, why: str) -> None:
        reason = f"{self.path}: line {line:,}: {why}"
        if self._is_strict:
            raise DataFileError(reason)
        self.skipped += 1
        if len(self.reasons) < _REPORTED_LINES:
            self.reasons.append(reason)
        self._on_bad(BadLine(line, text[:_MOST_TEXT], why))


class ColumnFile(SkippingFile, ABC, Generic[Item]):
    """A file opened for one pass, `with … as items`; memory does not grow with it. `-` is the standard input.

    Args:
        said: what the user says about the file; the rest is recognised.
        on_bad: told every line that is skipped.
        is_strict: whether the first such line ends the reading.
    """

    kind: ClassVar[Kind]

    def __init__(
        self,
        path: Path,
        said: Said | None = None,
        *,
        on_bad: Callable[[BadLine], None] = lambda line: None,
        is_strict: bool = False,
    ) -> None:
        super().__init__(path, _opened(path, said or Said()), on_bad, is_strict)
        self.said = said or Said()
        #: Of every item, where no column says it.
        self.symbol = self.said.symbol
        self.dialect: Dialect
        self._symbols: dict[str, str] = {}
        self._shortest = 0
        self._line, self._text = 0, ""
        #: While the first lines are tried: what is wrong with those that cannot be used, with their numbers.
        self._tried: list[tuple[int, InvalidItem]] | None = None
        self._damage: DataFileError | None = None
        self._found: Iterator[Item] = iter(())

    def __enter__(self) -> Self:
        """Open the file and recognise its dialect.

        Raises:
            UnknownForm: when its first lines do not tell, or contradict what the user says.
            DataFileError: when they cannot be read.
            OSError: when the file cannot be opened.
        """
        super().__enter__()
        try:
            lines = self._file.lines()
            sample = self._sample(lines)
            self.dialect = dialect = recognise(self.path, sample, self.said)
            if dialect.kind is not self.kind:
                raise UnknownForm(f"{self.path} holds {dialect.kind}; {FORMS}")
            if "symbol" not in dialect.column_of:
                self.symbol = self.symbol or parse_file_name(self.path).symbol
            self._time = reader_of(dialect.form, "time")
            self._clock = None if dialect.zone is None else Clock(dialect.zone, None)
            #: Whether the times are put from the clock of the file to UTC.
            self._is_shifted = dialect.zone is not None and not (dialect.form is not None and dialect.form.has_offset)
            filled = [line for line in sample[dialect.first_row :] if line.strip()]
            rows = [split_cells(line, dialect.separator, dialect.quote) for line in filled]
            whole = [row for row, line in zip(rows, filled, strict=True) if line[-1] in "\r\n"]
            if len(whole) >= _ENOUGH_LINES:
                self._shortest = min(len(row[-1]) for row in whole)
            self._milliseconds_at = dialect.column_of.get("milliseconds")
            self._begin(rows)
            if not self.is_live:
                self._try(sample)
                self._begin(rows)
            self._clock = None if dialect.zone is None else Clock(dialect.zone, None)
            rest = lines if self._damage is None else _raising(self._damage)
            self._found = self._in_order(self._all_items(chain(sample, rest)))
        except BaseException:
            self._open.close()
            raise
        return self

    def __iter__(self) -> Iterator[Item]:
        return self._found

    def __next__(self) -> Item:
        """The next item; DataFileError where none can be read beyond some line, or a line is bad and none may be."""
        return next(self._found)

    @property
    def are_instants(self) -> bool:
        """Whether the times of the items are moments (UTC), not those of the clock of the file."""
        return self.dialect.are_instants

    @property
    def is_live(self) -> bool:
        """Whether the items come through a pipe or a terminal, which may pause and resume."""
        return self._file.is_live

    def _begin(self, rows: list[list[str]]) -> None:
        """Look at the first rows.

        Raises:
            UnknownForm: when they contradict what the user or the name of the file says.
        """

    def _all_items(self, lines: Iterator[str]) -> Iterator[Item]:
        """The items of all lines of the file."""
        return self._items(self._rows(lines))

    @abstractmethod
    def _items(self, rows: Iterator[list[str]]) -> Iterator[Item]:
        """The items of the rows; one that cannot be used is reported to `_skip`."""

    def _sample(self, lines: Iterator[str]) -> list[str]:
        """The first lines; of a live feed no more than are needed, so that its first tick does not wait."""
        sample: list[str] = []
        try:
            while len(sample) < SAMPLE_LINES + self.said.skip_rows and (line := next(lines, "")):
                sample.append(line)
                if self.is_live:
                    cells = re.split("[\t;|,]", line)[:3]
                    filled = sum(bool(text.strip()) for text in sample)
                    if filled > self.said.skip_rows + 1 or any(map(is_time, cells)):
                        break
        except DataFileError as exc:
            if not sample:
                raise
            self._damage = exc  # for when the lines before it were used
        return sample

    def _try(self, sample: list[str]) -> None:
        """Read the first lines without reporting any.

        Raises:
            UnknownForm: when most of them cannot be used: then it is not they that are wrong.
        """
        tried = self._tried = []
        used = 0
        with suppress(DataFileError):
            for _ in self._items(self._rows(iter(sample))):
                used += 1
        self._tried = None
        # Who names a symbol may want the few lines of it, and the first lines of a long history are its oldest.
        wrong = [(line, exc) for line, exc in tried if not isinstance(exc, (TooEarly, Unwanted) if used else TooEarly)]
        if len(wrong) >= _ENOUGH_LINES and len(wrong) > used:
            line, exc = wrong[0]
            cure = "" if isinstance(exc, Unwanted) else f"; {_CURE}"
            raise UnknownForm(
                f"{self.path}: {len(wrong)} of its first {used + len(tried)} lines cannot be used; line {line}: "
                f"{_told(exc)}{cure}"
            )

    def _rows(self, lines: Iterable[str], number: int = 1) -> Iterator[list[str]]:
        """The cells of the lines, of which the first has this number."""
        separator, quote = self.dialect.separator, self.dialect.quote
        width, first = len(self.dialect.columns), self.dialect.first_row
        for at, read in enumerate(lines, number):
            if at <= first:
                continue
            line = read if read[0] != BYTE_ORDER_MARK else read[1:] or "\n"
            self._line, self._text = at, line
            cells = line.rstrip("\r\n").split(separator) if quote not in line else split_cells(line, separator, quote)
            if len(cells) != width and not self._has_all(cells, width):
                continue
            if line[-1] not in "\r\n" and len(cells[-1]) < self._shortest:
                self._skip(InvalidItem("", "the file ends within this line"))
                continue
            yield cells

    def _has_all(self, cells: list[str], width: int) -> bool:
        """Whether a row of another number of cells has all that are named, and none besides."""
        if not any(map(str.strip, cells)) or is_comment(self._text):
            return False
        if len(cells) < width or any(cells[width:]):
            self._skip(InvalidItem("", f"it has {len(cells)} cells, the first line names {width} columns"))
            return False
        return True

    def _in_order(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items but those whose time is far from the times before and after it."""
        before: int | None = None
        for item in items:
            time_ms = item.time_msc
            if before is None or before - DAY_MS <= time_ms <= before + _FAR_AHEAD_MS:
                before = time_ms
                yield item
                continue
            line, text = self._line, self._text
            after = next(items, None)
            if after is not None and abs(after.time_msc - before) < abs(time_ms - after.time_msc):
                days = round(abs(time_ms - before) / DAY_MS)
                why = f"its time is {days:,} days from those of the lines before and after it"
                self._skip(InvalidItem("", why), line, text)
            else:
                yield item
            if after is not None:
                before = after.time_msc
                yield after

    def _skip(self, exc: InvalidItem, line: int = 0, text: str | None = None) -> None:
        """Skip a line, by default the one that was read last.

        Raises:
            DataFileError: when it names other columns, so that what follows would be read wrong.
        """
        line, text = line or self._line, self._text if text is None else text
        if self._tried is not None:
            self._tried.append((line, exc))
            return
        why = _told(exc)
        if named := columns_named(split_cells(text, self.dialect.separator, self.dialect.quote)):
            why = "it names the columns once more"
            if self.said.columns is None and _read_from(named) != _read_from(self.dialect.columns):
                raise DataFileError(
                    f"{self.path}: line {line:,}: it names other columns; import what follows by itself"
                )
        self._skip_line(line, text.rstrip("\r\n"), why)

    def _symbol_in(self, cell: str) -> str:
        """The symbol that a cell names.

        Raises:
            InvalidItem: when it is another than the wanted one, or none.
        """
        if (known := self._symbols.get(cell)) is not None:
            return known
        name = cell.strip()
        pair = _PAIR.fullmatch(name)
        symbol = symbol_of(name if pair is None or name == self.said.symbol else pair[1] + pair[2])
        if self.said.symbol not in (None, symbol):
            raise Unwanted("", f"it is of {name}, not of {self.said.symbol}")
        self._symbols[cell] = symbol
        return symbol

    def _utc_ms(self, wall_ms: int, symbol: str) -> int:
        """What is sent as the time: UTC where `are_instants`, else that of the clock of the file."""
        if (clock := self._clock) is None or not self._is_shifted:
            return wall_ms
        return clock.checked(wall_ms - clock.shift_at(wall_ms, symbol), "time")

    def _milliseconds(self, cells: list[str]) -> int:
        """The milliseconds of the second where they have a column of their own.

        Raises:
            InvalidItem: when there are none in it.
        """
        text = "0" if self._milliseconds_at is None else cells[self._milliseconds_at].strip()
        if not text.isdecimal() or len(text) > _MILLISECONDS_DIGITS:
            raise InvalidItem("milliseconds", f"a whole number below 1000 is expected, not {quoted(text)}")
        return int(text)


def _raising(error: DataFileError) -> Iterator[str]:
    yield from ()
    raise error


def _told(exc: InvalidItem) -> str:
    return f"{exc.field}: {exc.message}" if exc.field else exc.message


def _read_from(columns: Sequence[str]) -> dict[str, int]:
    return {field: at for at, field in enumerate(columns) if field in _PLACED}


def kind_of(path: Path, said: Said) -> Kind:
    """What the lines of a file are.

    Raises:
        UnknownForm, DataFileError, OSError: as opening it.
    """
    with _opened(path, said) as file:
        sample: list[str] = []
        try:
            sample.extend(islice(file.lines(), SAMPLE_LINES + said.skip_rows))
        except DataFileError:
            if not sample:
                raise
    return recognise(path, sample, said).kind


def _opened(path: Path, said: Said) -> TextFile | ArrowFile:
    return ArrowFile(path) if is_arrow(path) else TextFile(path, said.encoding)
