"""Items of JSON that are passed on as they were written, so that their numbers stay as they are.

A long document is cut between two items of its list, so that memory does not grow with it.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, overload

import msgspec
from msgspec import Raw

from marketdata.contract.body import WRAPPERS
from tickpipe.sending.dialects import UnknownForm

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


#: Between two items there is a comma and no more white space than this (characters).
_BETWEEN: Final = 100

#: Openings of objects from the end of a text on that are tried for that of an item.
_TRIED: Final = 10

_items_decoder: Final = msgspec.json.Decoder(list[Raw])


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
            end = _end_of_objects(text)
            if not end and (found := _ITEMS.match(text)) is not None:
                end = found.end()
            if not end:
                if _END.match(text) is not None:
                    break
                raise self._unreadable(f"what begins in line {line:,} is no item, or too long a one")
            yield line, text[:end]
            line += text.count("\n", 0, end)
            text = text[end:]
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


def _end_of_objects(text: str) -> int:
    """Where the objects end with which a text begins, behind the comma; 0 where that takes a look at each.

    It may be cut where an object within an item begins, or behind the list; what stands before is no list then.
    """
    at = len(text)
    for _ in range(_TRIED):
        at = text.rfind("{", 0, at)
        if at <= 0:
            return 0
        between = text[max(0, at - _BETWEEN) : at].rstrip()
        if between.endswith(",") and between[:-1].rstrip().endswith("}"):
            end = at - (min(at, _BETWEEN) - len(between))
            try:
                _items_decoder.decode(f"[{text[: end - 1]}]".encode())
            except (msgspec.MsgspecError, ValueError, RecursionError):
                return 0
            return end
    return 0


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


class Written(Sequence[bytes]):
    """Items, each the JSON that somebody wrote for it; those of one list stay together until one of them is wanted."""

    def __init__(self) -> None:
        #: Items with the commas between them, and how many.
        self.lists: list[tuple[bytes | Raw, int]] = []
        self.size_bytes = 0
        self._count = 0

    def add(self, items: bytes | Raw, count: int = 1) -> None:
        """Add so many items with the commas between them; one alone may be only nearly JSON."""
        self.lists.append((items, count))
        self.size_bytes += len(memoryview(items))
        self._count += count

    def extend(self, other: "Written") -> None:
        """Add the items of another."""
        self.lists += other.lists
        self.size_bytes += other.size_bytes
        self._count += len(other)

    @property
    def text(self) -> bytes:
        """All of them with commas between."""
        return b",".join([items for items, _ in self.lists])

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> "Written": ...
    def __getitem__(self, at: int | slice) -> "bytes | Written":
        items = list(self)
        if isinstance(at, int):
            return items[at]
        part = Written()
        for item in items[at]:
            part.add(item)
        return part

    def __iter__(self) -> Iterator[bytes]:
        for items, count in self.lists:
            yield from [bytes(items)] if count == 1 else map(bytes, _items_decoder.decode(b"[%b]" % items))
