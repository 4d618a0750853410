"""Reads what EAs and relays have put aside as JSON: whole requests, one in each line or in each file.

`PDC_outbound_YYYYMMDD.jsonl` has lines of `{"ts", "kind", "body"}`, a relay's `queue/*.json` has `{"url", "payload",
"headers"}`, and the `PDC_fallback_*` and `PDC_batch_fallback_*` files hold bodies. The items are passed on as they were
written; the server judges them.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from marketdata.contract.body import decode
from marketdata.contract.fields import is_bar, is_said, timeframe_of, with_names
from marketdata.contract.http import BARS_ROUTE, TICKS_ROUTE, TooLarge, Unusable
from marketdata.errors import InvalidItem, TickpipeError
from tickpipe.sending.bodies import Times, bodies_in, join, usual_in
from tickpipe.sending.columnfile import BadLine, SkippingFile
from tickpipe.sending.columnnames import field_of
from tickpipe.sending.dialects import UnknownForm, parse_file_name
from tickpipe.sending.document import Document, Written
from tickpipe.sending.textfile import DataFileError, TextFile

#: Short requests are sent together until they have so much, about as a request of other files: what a request costs
#: besides hardly counts then (bytes).
_TOGETHER_BYTES: Final = 800_000

#: Short lines are decoded together until they have so much (bytes).
_BLOCK_BYTES: Final = 64 * 1024

#: Lines in which the first JSON is looked for; where none is whole, a long file is one document.
_LOOKED_AT: Final = 50

#: A line, or a document that is read at once, may be as long as this (characters); decoded, it takes six times as much.
_LONGEST_TEXT: Final = 8_000_000

#: Where programs put the rows of a table, beside the names of its columns.
_TABLE: Final = ("data", "columns", "candles")
_NO_TABLE: Final = (
    "it is a table by its columns; write one object for each item, as pandas does with orient='records', lines=True"
)


class Origin(NamedTuple):
    """What a request said beside its items."""

    route: str
    source: str | None
    agent: str | None
    utc_offset_seconds: int | None


class Posted(NamedTuple):
    """Items that were, and are again, posted together."""

    origin: Origin
    items: Written
    #: Of ticks; bars may be joined with any others.
    times: Times


class ArchiveFile(SkippingFile):
    """An archive opened for one pass, `with ArchiveFile(path) as requests`.

    Args:
        symbol: the only one that is wanted, and that of items that name none; None for all.
        timeframe: the same of bars.
        on_bad: told every line that is skipped.
        is_strict: whether the first such line ends the reading.
    """

    def __init__(
        self,
        path: Path,
        *,
        symbol: str | None = None,
        timeframe: str | None = None,
        on_bad: Callable[[BadLine], None] = lambda line: None,
        is_strict: bool = False,
    ) -> None:
        super().__init__(path, TextFile(path), on_bad, is_strict)
        self._file: TextFile
        self._symbol, self._timeframe = symbol, timeframe
        name = parse_file_name(path)
        #: Of items that name none, and of bars that name none.
        self._default = symbol or name.symbol
        self._default_timeframe = timeframe or name.timeframe

    def __iter__(self) -> Iterator[Posted]:
        """The requests in the order of the file; short ones of one origin that follow each other are joined.

        Raises:
            UnknownForm: when the file holds no JSON.
            DataFileError: when it is damaged, or a line is bad and none may be.
        """
        waiting: Posted | None = None
        try:
            for request in self._requests():
                if waiting is not None and (
                    waiting.origin != request.origin
                    or waiting.items.size_bytes >= _TOGETHER_BYTES
                    or not join(waiting.times, request.times)
                ):
                    yield waiting
                    waiting = None
                if waiting is None:
                    waiting = request
                else:
                    waiting.items.extend(request.items)
        except TickpipeError:
            if waiting is not None:
                yield waiting
            raise
        if waiting is not None:
            yield waiting

    def _requests(self) -> Iterator[Posted]:
        for block in _blocks(self._texts()):
            usual = None
            if len(block) > 1:
                with suppress(TooLarge):
                    usual = usual_in([text for _, text in block], self._symbol)
            if usual is not None:
                written, times, offset = usual
                if written:
                    yield Posted(Origin(TICKS_ROUTE, None, None, offset), written, times)
                continue
            for line, text in block:
                try:
                    yield from self._posted(line, text)
                except (Unusable, TooLarge) as exc:
                    self._skip_line(line, text.decode().strip(), exc.message)

    def _posted(self, line: int, text: bytes) -> Iterator[Posted]:
        """The requests in one text.

        Raises:
            Unusable, TooLarge: before the first, when it is no body.
        """
        for written, items, times, source, agent, offset in list(bodies_in(text, self._symbol)):
            if items is None:
                yield Posted(Origin(TICKS_ROUTE, source, agent, offset), written, times)
                continue
            by_route = {TICKS_ROUTE: Written(), BARS_ROUTE: Written()}
            for item, as_written in zip(items, written, strict=True):
                if self._is_wanted(line, item, as_written):
                    route = BARS_ROUTE if is_bar(item) else TICKS_ROUTE
                    by_route[route].add(self._completed(item, as_written))
            for route, wanted in by_route.items():
                if wanted:
                    yield Posted(Origin(route, source, agent, offset), wanted, times if route == TICKS_ROUTE else {})

    def _texts(self) -> Iterator[tuple[int, str]]:
        """The JSON texts, with the number of the line that each begins in; a long document comes in pieces.

        Raises:
            UnknownForm: when the file is one long document and not a list of items.
            DataFileError: when it is damaged.
        """
        start = _start_of(self.path)
        is_short = sum(map(len, start)) < _LONGEST_TEXT
        if is_short and len(start) > 1 and _is_json("".join(start)):
            yield 1, "".join(start)
        elif any(len(line) < _LONGEST_TEXT and _is_json(line) for line in start[:_LOOKED_AT]) or (
            is_short and len(start) == 1
        ):
            numbered = enumerate(self._file.lines(_LONGEST_TEXT), 1)
            yield from ((number, line) for number, line in numbered if line.strip())
        elif is_short:
            yield 1, "".join(self._file.chunks())
        else:
            yield from self._in_pieces()

    def _in_pieces(self) -> Iterator[tuple[int, str]]:
        """A document with some of its items at a time, read twice: what is said behind the items holds for all."""
        document = Document(self.path)
        with TextFile(self.path) as file:
            for _ in document.pieces(file.chunks()):
                pass
        if not _is_empty(document.around("")):
            raise UnknownForm(f"{self.path}: no line is JSON, and as one document it has several lists of items")
        for line, piece in document.pieces(self._file.chunks()):
            text = document.around(piece)
            if usual_in((text.encode(),), None) is not None or _is_json(text):
                yield line, text
            else:
                yield from ((line, document.around(item)) for item in document.items(piece))

    def _completed(self, item: Any, written: bytes) -> bytes:
        """The item with the symbol and, of a bar, the timeframe that it does not name."""
        if not isinstance(item, dict):
            return written
        named, added = with_names(item), {}
        if self._default is not None and "symbol" not in named:
            added["symbol"] = self._default
        if self._default_timeframe is not None and not is_said(named.get("timeframe")) and is_bar(item):
            added["timeframe"] = self._default_timeframe
        return json.dumps(item | added).encode() if added else written

    def _is_wanted(self, line: int, item: Any, written: bytes) -> bool:
        if why := _NO_TABLE if _is_table(item) else self._why_unwanted(item):
            self._skip_line(line, written.decode(), why)
        return not why

    def _why_unwanted(self, item: Any) -> str:
        """What keeps an item from being one of those that are wanted; empty when nothing does."""
        if not isinstance(item, dict):
            return ""
        named = with_names(item)
        symbol = named.get("symbol")
        if self._symbol is not None and symbol not in (None, self._symbol):
            return f"it is of {symbol}, not of {self._symbol}"
        if "symbol" not in named and self._default is None:
            return "it names no symbol; say it with --symbol"
        return self._why_of_another_timeframe(named.get("timeframe")) if is_bar(item) else ""

    def _why_of_another_timeframe(self, named: Any) -> str:
        if not is_said(named):
            return "" if self._default_timeframe else "it is a bar without a timeframe; say it with --timeframe"
        with suppress(InvalidItem):  # the server says what is wrong
            if self._timeframe is not None and timeframe_of(named) != timeframe_of(self._timeframe):
                return f"it is of {named}, not of {self._timeframe}"
        return ""


def _blocks(texts: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, bytes]]]:
    """The texts with their numbers, short ones together; those before an error are given out first.

    Raises:
        TickpipeError: as the texts.
    """
    block: list[tuple[int, bytes]] = []
    size_bytes = 0
    try:
        for line, text in texts:
            block.append((line, text.encode()))
            size_bytes += len(text)
            if size_bytes >= _BLOCK_BYTES:
                yield block
                block, size_bytes = [], 0
    except TickpipeError:
        if block:
            yield block
        raise
    if block:
        yield block


def is_archive(path: Path) -> bool:
    """Whether a file holds JSON, by its first characters; `[SP500]` is the beginning of a symbol."""
    try:
        with TextFile(path) as file:
            first = next((line.strip() for line in file.lines() if line.strip()), "")
    except (UnknownForm, DataFileError):
        return False
    return first.startswith("{") or first[:1] + first[1:].lstrip()[:1] in ("[", "[{", "[[")


def _start_of(path: Path) -> list[str]:
    """The first lines of a file that are not empty, up to where it is damaged; with a longer one it is cut there."""
    lines: list[str] = []
    size = 0
    with TextFile(path) as file, suppress(DataFileError):
        for line in file.lines(_LONGEST_TEXT):
            if line.strip():
                lines.append(line)
            if (size := size + len(line)) >= _LONGEST_TEXT:
                break
    return lines


def _is_json(line: str) -> bool:
    try:
        decode(line.encode())
    except (Unusable, TooLarge):
        return False
    return True


def _is_empty(document: str) -> bool:
    """Whether a document without its items holds no others."""
    try:
        return not any(body.written for body in bodies_in(document.encode(), None))
    except (Unusable, TooLarge):
        return False


def _is_table(item: Any) -> bool:
    """Whether what stands for an item has the values of many, under the names of columns or none."""
    if not isinstance(item, dict):
        return isinstance(item, list)
    # What has a price of a tick or of a bar is judged by the server, as it comes.
    if any(name in item and not isinstance(item[name], (list, dict)) for name in ("bid", "open", "ask")):
        return False
    nested = [name for name, value in item.items() if isinstance(value, (list, dict))]
    is_item = any(field_of(name) for name in item.keys() - {*nested})
    return bool(nested) and (not is_item or any(name in _TABLE or field_of(name) for name in nested))
