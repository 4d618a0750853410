"""Decodes large bodies piece by piece: as Python objects a body takes six times its size, and no step may be long."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from marketdata.contract.body import (
    FORM_DATA,
    MAX_VALUES,
    OFFSET,
    PADDING,
    UTF8_MARK,
    UTF16_MARKS,
    Body,
    FieldName,
    arrays_in,
    check_count,
    check_values,
    decode,
    field_name,
    fields_of,
    is_form_data,
    utc_offset_in,
)
from marketdata.contract.http import Unusable

#: What a body of so many bytes becomes fills the memory; such bodies are stored one at a time.
LARGE_BYTES: Final = 5_000_000

#: A longer body is decoded piece by piece: whole it would hold up everybody else.
_WHOLE_BYTES: Final = 64 * 1024

#: How much is decoded at once: 2 ms of JSON. What is only nearly JSON takes ten times as long, or more.
_PIECE_BYTES: Final = 128 * 1024
_NEARLY_PIECE_BYTES: Final = 32 * 1024

#: The longest item that a body may be cut behind.
_ITEM_BYTES: Final = 256 * 1024

#: A body that cannot be cut is decoded in one go, 20 ms, when it is no longer and has no more values.
_UNCUT_BYTES: Final = 4 * 1024 * 1024
_UNCUT_VALUES: Final = 500_000

#: Values are counted in steps of so many bytes.
_COUNTED_BYTES: Final = 4 * 1024 * 1024

#: How far into a body the first bracket of its items, and from its end the last, is looked for. No other field holds a
#: bracket of its own, but for an empty array.
_WRAPPER_BYTES: Final = 4_096
_BEGIN: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?[\s\0]*"
    rb'(?:\{(?:[^\[\]{}]*?"(?:ticks|items)"\s*:\s*\[\s*\])?[^\[\]{}]*?"(?:ticks|items)"\s*:\s*)?\['
)
_END: Final = re.compile(rb'\](?=\s*,\s*"(?:ticks|items)"\s*:\s*\[\s*\][^\[\]]*\Z|[^\[\]]*\Z)')

#: Where one item may end and the next begin: between two objects. It may as well stand in a string or in an item.
_BETWEEN: Final = re.compile(rb"\}\s*,\s*\{")


class Piece(NamedTuple):
    """Some of the items of a body."""

    #: An array of them as they came; empty where `items` is all that is known.
    raw: bytes
    #: What `read` made of the array, or else `decode`.
    items: Any
    #: See `Body`; of the whole body.
    utc_offset_seconds: int | None = None


#: What stands behind the last piece of a body, for those who take one piece at a time.
NO_MORE: Final = Piece(b"", None)

#: Decodes an array of items, or says by None that it cannot.
Read = Callable[[bytes], Any | None]


def _leaves_it_to_decode(_: bytes) -> None:
    return None


def large_pieces(body: bytes, read: Read = _leaves_it_to_decode) -> Iterator[Piece | None]:
    """The items of a body, decoded piece by piece where it is long.

    Each step takes some milliseconds; None stands for one that has brought nothing yet. The last brings a piece.

    Args:
        body: as it came, unpacked.
        read: tried on each piece before `decode` is.

    Raises:
        Unusable, TooLarge: as `decode`, from any step.
    """
    if len(body) >= _WHOLE_BYTES and body[-1:] in PADDING and not body.startswith(UTF16_MARKS):
        body = body.rstrip(PADDING)
    if len(body) < _WHOLE_BYTES:
        items = read(body)
        if items is None:
            items = decode(body)
        yield Piece(body, items, items.utc_offset_seconds)
        return
    values = 0
    if len(body) > MAX_VALUES:
        for at in range(0, len(body), _COUNTED_BYTES):
            values = check_values(body, at, at + _COUNTED_BYTES, values)
            yield None
    cut = _Cut.of(body)
    if cut is not None:
        yield from cut.pieces(read)
        if cut.is_done:
            return
    for piece in _uncut(body, 0 if cut is None else cut.count):
        # An offset may stand between two arrays of items, and holds for all of them.
        if cut is not None and cut.count and piece.utc_offset_seconds != cut.utc_offset_seconds:
            raise Unusable(f"`{OFFSET}` must stand before the items, or behind the last of them, in so long a body")
        yield piece


def _uncut(body: bytes, known: int) -> Iterator[Piece]:
    """The items of a body of another form, without those that are known already."""
    if len(body) > _UNCUT_BYTES or check_values(body) > _UNCUT_VALUES:
        if is_form_data(body):
            raise Unusable(FORM_DATA)
        raise Unusable(
            f'so long a body must be one array of items, such as {{"ticks":[…]}}; one of them is cut off, or longer '
            f"than {_ITEM_BYTES // 1024} kB"
        )
    found = _arrays_of(body)
    if found is None:
        whole = decode(body)
        yield Piece(b"", Body(whole.items[known:], None), whole.utc_offset_seconds)
        return
    arrays, utc_offset_seconds = found
    check_count(sum(map(len, arrays)))
    yield Piece(b"", Body([], None), utc_offset_seconds)
    for raw in _joined(islice(chain.from_iterable(arrays), known, None)):
        yield Piece(raw, decode(raw), utc_offset_seconds)


def _arrays_of(body: bytes) -> tuple[list[list[Raw]], int | None] | None:
    """The arrays of items in a body, and what it says of the clock; None where that takes `decode`."""
    try:
        decoded = _decoder.decode(_bare(body))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if isinstance(decoded, list):
        return [decoded], None
    fields = fields_of(decoded)
    arrays = arrays_in(fields)
    return None if arrays is None else (arrays, utc_offset_in(fields))


#: What may stand in a field beside the items; its own arrays stay undecoded as well.
_Field = list[Raw] | dict[str, Raw] | str | float | int | bool | None

_decoder: Final = msgspec.json.Decoder(dict[FieldName, _Field] | list[Raw], dec_hook=field_name)


def _bare(body: bytes) -> memoryview:
    """The body without the byte order mark that some senders put before it; no copy of it is made."""
    return memoryview(body)[len(UTF8_MARK) if body.startswith(UTF8_MARK) else 0 :]


def _joined(items: Iterable[Raw]) -> Iterator[bytes]:
    """Arrays of some items each."""
    piece: list[Raw] = []
    size_bytes = 0
    for item in items:
        piece.append(item)
        size_bytes += len(memoryview(item))
        if size_bytes >= _PIECE_BYTES:
            yield b"[%b]" % b",".join(piece)
            piece, size_bytes = [], 0
    if piece:
        yield b"[%b]" % b",".join(piece)


class _Cut:
    """A body cut where one item seems to end and the next begins.

    A cut at a wrong place leaves a bracket or a quotation mark open, so that the piece cannot be decoded.
    """

    def __init__(self, body: bytes, begin: int, end: int, utc_offset_seconds: int | None) -> None:
        self.utc_offset_seconds = utc_offset_seconds
        #: Items so far, and whether these are all.
        self.count = 0
        self.is_done = False
        self._body = body
        self._begin, self._end = begin, end

    @classmethod
    def of(cls, body: bytes) -> "_Cut | None":
        """The body, or None when its items cannot be told from what is around them."""
        found = _BEGIN.match(body, 0, _WRAPPER_BYTES)
        last = _END.search(body, max(0, len(body) - _WRAPPER_BYTES))
        if found is None or last is None or last.start() < found.end():
            return None
        begin, end = found.end(), last.start()
        edges = body[:begin] + body[end:]
        try:
            around = decode(edges)
        except Unusable:
            return None
        if around.items:
            return None
        return cls(body, begin, end, around.utc_offset_seconds)

    def pieces(self, read: Read) -> Iterator[Piece | None]:
        """The items, until a piece cannot be decoded."""
        at, size_bytes, is_json = self._begin, _PIECE_BYTES, True
        while at < self._end:
            comma = self._comma(at, size_bytes, _ITEM_BYTES if is_json else size_bytes)
            piece = None if comma is None else self._piece(at, comma, read, mends=not is_json)
            if piece is not None and comma is not None:
                self.count += len(piece.items.items)
                check_count(self.count)
                at = comma + 1
                size_bytes = _PIECE_BYTES if is_json else _NEARLY_PIECE_BYTES
            elif is_json:
                is_json, size_bytes = False, _NEARLY_PIECE_BYTES
            elif comma == self._end or size_bytes >= _ITEM_BYTES:
                return
            else:
                # An item that holds such a place has spoilt the piece, or it is a long one.
                size_bytes *= 2
            yield piece
        self.is_done = True

    def _piece(self, at: int, comma: int, read: Read, *, mends: bool) -> Piece | None:
        raw = b"[%b]" % self._body[at:comma]
        items = read(raw)
        if items is None:
            try:
                items = decode(raw, mends=mends)
            except Unusable:
                return None
        return Piece(raw, items, self.utc_offset_seconds)

    def _comma(self, at: int, size_bytes: int, further_bytes: int) -> int | None:
        """Where a piece of about this size ends; None when no item ends within so many more bytes."""
        least, most = at + size_bytes, at + size_bytes + further_bytes
        between = _BETWEEN.search(self._body, least, most) if least < self._end else None
        if between is not None and between.end() <= self._end:
            return self._body.index(b",", between.start())
        return self._end if most >= self._end else None
