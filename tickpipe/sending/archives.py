"""Reads what EAs and relays have put aside as JSON: whole requests, one in each line or in each file.

`PDC_outbound_YYYYMMDD.jsonl` has lines of `{"ts", "kind", "body"}`, a relay's `queue/*.json` has `{"url", "payload",
"headers"}`, and the `PDC_fallback_*` and `PDC_batch_fallback_*` files hold bodies. The items are passed on as they are:
a long document is cut between two of them, so that numbers stay as they were written.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from marketdata.contract.body import WRAPPERS, Body, decode
from marketdata.contract.fields import is_bar, with_names
from marketdata.contract.http import BARS_ROUTE, TICKS_ROUTE, TooLarge, Unusable
from marketdata.errors import TickpipeError
from tickpipe.sending.columnfile import BadLine, SkippingFile
from tickpipe.sending.dialects import UnknownForm, field_of, parse_file_name
from tickpipe.sending.textfile import DataFileError, TextFile

#: Items of a piece (characters).
_PIECE: Final = 1_000_000

#: One item, and what stands before and behind all of them, may be as long as this (characters).
_LONGEST_ITEM: Final = 1_000_000
_LONGEST_EDGE: Final = 100_000

#: Objects and arrays in an item that are told apart; deeper ones make the document unreadable.
_DEPTH: Final = 5

_STRING: Final = r'"(?:[^"\\]++|\\.)*+"'
_SIGN: Final = re.compile(rf"{_STRING}|[\[\]{{}}]", re.DOTALL)


def _value() -> str:
    """Matches an object, an array, a string, or anything else between two commas; nothing is looked at twice."""
    nested = "(?!)"
    for _ in range(_DEPTH):
        inside = rf'(?:[^\[\]{{}}"]++|{_STRING}|{nested})*+'
        nested = rf"(?:\{{{inside}\}}|\[{inside}\])"
    return rf'(?:{nested}|{_STRING}|[^\[\]{{}}",\s]++)'


_VALUE: Final = _value()

#: An item up to what shows that it has ended: the comma behind it, or the bracket that closes the list.
_ITEM: Final = re.compile(rf"\s*+({_VALUE})\s*+(?:,|(?=\]))", re.DOTALL)
_ITEMS: Final = re.compile(rf"(?:\s*+{_VALUE}\s*+(?:,|(?=\])))++", re.DOTALL)
_END: Final = re.compile(r"\s*+\]")


class Document:
    """A document that is a list of items, or in which such a list is the field `ticks` or `items` of an object.

    `pieces` is called twice: what stands behind the items is known when it has ended for the first time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        #: The text up to the bracket that opens the list, and from the one that closes it.
        self._before, self._behind = "", ""

    def around(self, items: str) -> str:
        """The whole document with these items alone."""
        return f"{self._before}{items.strip().removesuffix(',')}{self._behind}"

    def items(self, piece: str) -> Iterator[str]:
        """Each item of a piece."""
        return (found[1] for found in _ITEM.finditer(f"{piece.strip().removesuffix(',')},"))

    def pieces(self, chunks: Iterator[str]) -> Iterator[tuple[int, str]]:
        """The items in pieces, each with the number of the line in which it begins.

        Raises:
            UnknownForm: when the text is no such document, or something in it is longer than any item.
            DataFileError: as the chunks.
        """
        text, end = self._begin(chunks)
        line = 1 + text.count("\n", 0, end)
        text = text[end:]
        is_more = True
        while _END.match(text) is None:
            while is_more and len(text) < _PIECE:
                chunk = next(chunks, "")
                is_more = bool(chunk)
                text += chunk
            found = _ITEMS.match(text)
            if found is None:
                if _END.match(text) is not None:
                    break
                raise self._unreadable(f"what begins in line {line:,} is no item, or too long a one")
            yield line, found[0]
            line += found[0].count("\n")
            text = text[found.end() :]
        for chunk in chunks:
            text += chunk
            if len(text) > _LONGEST_EDGE + _PIECE:
                raise self._unreadable("much stands behind its list of items")
        self._behind = text.strip()

    def _begin(self, chunks: Iterator[str]) -> tuple[str, int]:
        """The text so far, and where in it the items begin."""
        text = ""
        for chunk in chunks:
            text += chunk
            if (end := _opening(text)) is not None:
                self._before = text[:end]
                return text, end
            if len(text) > _LONGEST_EDGE:
                break
        raise self._unreadable("it has no list of items")

    def _unreadable(self, why: str) -> UnknownForm:
        return UnknownForm(f"{self._path}: no line is JSON, and as one document it cannot be read: {why}")


def _opening(text: str) -> int | None:
    """Where the list of items begins, behind its bracket; None when it is not in the text."""
    depth, name = 0, ""
    for found in _SIGN.finditer(text):
        sign = found[0]
        if sign == "[" and (depth == 0 or name in WRAPPERS):
            return found.end()
        if sign[0] == '"':
            name = sign[1:-1]
        else:
            depth += 1 if sign in "[{" else -1
    return None


#: Items of short requests that are sent together.
_TOGETHER: Final = 200

#: Lines in which the first JSON is looked for; where none is whole, a long file is one document.
_LOOKED_AT: Final = 50

#: A line, or a document that is read at once, may be as long as this (characters); decoded, it takes six times as much.
_LONGEST_TEXT: Final = 8_000_000

#: Where programs put the rows of a table, beside the names of its columns.
_TABLE: Final = ("data", "columns", "candles")
_NO_TABLE: Final = (
    "it is a table by its columns; write one object for each item, as pandas does with orient='records', lines=True"
)

#: Requests in requests: a relay that archives what another one queued.
_DEEPEST: Final = 4


class Origin(NamedTuple):
    """What a request said beside its items."""

    route: str
    source: str | None
    agent: str | None
    utc_offset_seconds: int | None


class Posted(NamedTuple):
    """Items that were, and are again, posted together."""

    origin: Origin
    items: list[Any]


class ArchiveFile(SkippingFile):
    """An archive opened for one pass, `with ArchiveFile(path) as requests`.

    Args:
        symbol: the only one that is wanted, and that of items that name none; None for all.
        on_bad: told every line that is skipped.
        is_strict: whether the first such line ends the reading.
    """

    def __init__(
        self,
        path: Path,
        *,
        symbol: str | None = None,
        on_bad: Callable[[BadLine], None] = lambda line: None,
        is_strict: bool = False,
    ) -> None:
        super().__init__(path, TextFile(path), on_bad, is_strict)
        self._file: TextFile
        self._symbol = symbol
        #: Of items that name none.
        self._default = symbol or parse_file_name(path).symbol

    def __iter__(self) -> Iterator[Posted]:
        """The requests in the order of the file; short ones of one origin are joined.

        Raises:
            UnknownForm: when the file holds no JSON.
            DataFileError: when it is damaged, or a line is bad and none may be.
        """
        waiting: Posted | None = None
        try:
            for request in self._requests():
                if waiting is not None and (waiting.origin != request.origin or len(waiting.items) >= _TOGETHER):
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
        for line, text in self._texts():
            try:
                yield from self._posted(line, text)
            except (Unusable, TooLarge) as exc:
                self._skip_line(line, text.strip(), exc.message)

    def _posted(self, line: int, text: str) -> Iterator[Posted]:
        """The requests in one text.

        Raises:
            Unusable, TooLarge: before the first, when it is no body.
        """
        for body, source, agent in list(_bodies(decode(text.encode()), None, None, 0)):
            wanted = [self._with_symbol(item) for item in body.items if self._is_wanted(line, item)]
            for route in (TICKS_ROUTE, BARS_ROUTE):
                items = [item for item in wanted if is_bar(item) is (route == BARS_ROUTE)]
                if items:
                    yield Posted(Origin(route, source, agent, body.utc_offset_seconds), items)

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
            if _is_json(text):
                yield line, text
            else:
                yield from ((line, document.around(item)) for item in document.items(piece))

    def _with_symbol(self, item: Any) -> Any:
        if self._default is None or not isinstance(item, dict) or "symbol" in with_names(item):
            return item
        return {"symbol": self._default, **item}

    def _is_wanted(self, line: int, item: Any) -> bool:
        if _is_table(item):
            self._skip_line(line, json.dumps(item), _NO_TABLE)
            return False
        said = item.get("symbol") if isinstance(item, dict) else None
        if self._symbol is None or said is None or said == self._symbol:
            return True
        self._skip_line(line, json.dumps(item), f"it is of {said}, not of {self._symbol}")
        return False


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
        return not any(body.items for body, _, _ in _bodies(decode(document.encode()), None, None, 0))
    except (Unusable, TooLarge):
        return False


def _bodies(
    body: Body, source: str | None, agent: str | None, depth: int
) -> Iterator[tuple[Body, str | None, str | None]]:
    """The bodies that hold items, taken out of what they were archived in.

    Raises:
        Unusable, TooLarge: when what is archived is no body.
    """
    plain = []
    for item in body.items:
        inner = _inner(item)
        if inner is None or depth >= _DEEPEST:
            plain.append(item)
            continue
        headers = item.get("headers")
        named = {str(name).lower(): str(value) for name, value in headers.items()} if isinstance(headers, dict) else {}
        yield from _bodies(decode(inner), named.get("x-source") or source, named.get("user-agent") or agent, depth + 1)
    if plain:
        yield Body(plain, body.utc_offset_seconds), source, agent


def _is_table(item: Any) -> bool:
    """Whether what stands for an item has the values of many, under the names of columns or none."""
    if not isinstance(item, dict):
        return isinstance(item, list)
    nested = [name for name, value in item.items() if isinstance(value, (list, dict))]
    is_item = any(field_of(name) for name in item.keys() - {*nested})
    return bool(nested) and (not is_item or any(name in _TABLE or field_of(name) for name in nested))


def _inner(item: Any) -> bytes | None:
    """The body in the envelope of an archive or a queue; None for an item."""
    said = item.get("payload", item.get("body")) if isinstance(item, dict) else None
    if isinstance(said, str):
        return said.encode()
    return json.dumps(said).encode() if isinstance(said, (dict, list)) else None
