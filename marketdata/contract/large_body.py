"""Decodes large bodies piece by piece: as Python objects a body takes six times its size."""

import re
from collections.abc import Iterator
from itertools import chain
from typing import Final, Protocol

import msgspec
from msgspec import Raw

from marketdata.contract.body import (
    OFFSET,
    PADDING,
    UTF8_MARK,
    Body,
    FieldName,
    arrays_in,
    check_count,
    check_values,
    decode,
    field_name,
    fields_of,
    utc_offset_in,
)
from marketdata.contract.http import Unusable

#: What a body of so many bytes becomes fills the memory; such bodies are stored one at a time.
LARGE_BYTES: Final = 5_000_000

#: A longer body is decoded piece by piece: whole it would hold up everybody else.
_WHOLE_BYTES: Final = 256 * 1024

#: How much is decoded at once: 2 ms of JSON. What is only nearly JSON may take ten times as long.
_PIECE_BYTES: Final = 128 * 1024

#: How far into a body its first bracket, and from its end the last, is looked for.
_EDGE_BYTES: Final = 64

#: The same where other fields stand around the items; none holds a bracket of its own.
_WRAPPER_BYTES: Final = 4_096
_BEGIN: Final = re.compile(rb'(?:\xef\xbb\xbf)?[\s\0]*(?:\{[^\[\]{}]*?"(?:ticks|items)"\s*:\s*)?\[')
_OFFSET: Final = OFFSET.encode()

#: Where one item may end and the next begin: between two objects. It may as well stand in a string or in an item.
_BETWEEN: Final = re.compile(rb"\}\s*,\s*\{")

#: How often a piece is extended when an item that contains such a place has spoilt it.
_EXTENSIONS: Final = 2


class LargeBody(Protocol):
    """A large body whose items are not decoded yet."""

    #: See `Body`.
    utc_offset_seconds: int | None

    def pieces(self) -> Iterator[bytes | Body]:
        """The items in pieces: arrays that `decode` takes, or what they were found to hold.

        Raises:
            Unusable, TooLarge: as `decode`.
        """


def decode_large(body: bytes) -> LargeBody | None:
    """The items of a long body, to be decoded piece by piece; None for `decode` to take it whole.

    Raises:
        Unusable, TooLarge: as `decode`.
    """
    if len(body) <= _WHOLE_BYTES:
        return None
    check_values(body)
    try:
        decoded = _decoder.decode(_bare(body))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _NearlyJson.of(body)
    if isinstance(decoded, list):
        arrays, utc_offset_seconds = [decoded], None
    else:
        fields = fields_of(decoded)
        found = arrays_in(fields)
        if found is None:
            return None
        arrays, utc_offset_seconds = found, utc_offset_in(fields)
    check_count(sum(map(len, arrays)))
    return _Json(arrays, utc_offset_seconds)


#: What may stand in a field beside the items; its own arrays stay undecoded as well.
_Field = list[Raw] | dict[str, Raw] | str | float | int | bool | None

_decoder: Final = msgspec.json.Decoder(dict[FieldName, _Field] | list[Raw], dec_hook=field_name)


def _bare(body: bytes) -> memoryview:
    """The body without the byte order mark and the NUL that some senders put around it; no copy of it is made."""
    head, tail = body[:_EDGE_BYTES], body[-_EDGE_BYTES:]
    begin = len(UTF8_MARK) if head.startswith(UTF8_MARK) else 0
    return memoryview(body)[begin : len(body) - len(tail) + len(tail.rstrip(PADDING))]


def _offsets_in(body: bytes) -> int:
    """How often the name of the offset stands there, in any letter case; piece by piece, for lower() copies."""
    ends = range(_PIECE_BYTES, len(body) + _PIECE_BYTES, _PIECE_BYTES)
    return sum(body[end - _PIECE_BYTES : end + len(_OFFSET) - 1].lower().count(_OFFSET) for end in ends)


class _Json:
    """The usual: items that point into the body's bytes."""

    def __init__(self, arrays: list[list[Raw]], utc_offset_seconds: int | None) -> None:
        self.utc_offset_seconds = utc_offset_seconds
        self._arrays = arrays

    def pieces(self) -> Iterator[bytes | Body]:
        piece: list[Raw] = []
        size_bytes = 0
        for item in chain.from_iterable(self._arrays):
            piece.append(item)
            size_bytes += len(memoryview(item))
            if size_bytes >= _PIECE_BYTES:
                yield b"[" + b",".join(piece) + b"]"
                piece, size_bytes = [], 0
        if piece:
            yield b"[" + b",".join(piece) + b"]"


class _NearlyJson:
    """A body with something that is no JSON in it, such as a NaN, cut where one item seems to end and the next begins.

    A cut at a wrong place leaves a bracket or a quotation mark open, so that the piece cannot be decoded.
    """

    def __init__(self, body: bytes, begin: int, end: int, utc_offset_seconds: int | None) -> None:
        self.utc_offset_seconds = utc_offset_seconds
        self._body = body
        self._begin, self._end = begin, end

    @classmethod
    def of(cls, body: bytes) -> "_NearlyJson | None":
        """The body, or None when its items cannot be told from what is around them."""
        found = _BEGIN.match(body, 0, _WRAPPER_BYTES)
        end = body.rfind(b"]", max(0, len(body) - _WRAPPER_BYTES))
        if found is None or end < found.end():
            return None
        edges = body[: found.end()] + body[end:]
        if _offsets_in(edges) != _offsets_in(body):
            # It may stand between two arrays of items, and holds for all of them.
            return None
        try:
            around = decode(edges)
        except Unusable:
            return None
        return None if around.items else cls(body, found.end(), end, around.utc_offset_seconds)

    def pieces(self) -> Iterator[bytes | Body]:
        at, count = self._begin, 0
        while at < self._end:
            found = self._piece(at)
            if found is None:
                yield Body(decode(self._body).items[count:], self.utc_offset_seconds)
                return
            piece, at = found
            count += len(piece.items)
            check_count(count)
            yield piece

    def _piece(self, at: int) -> tuple[Body, int] | None:
        """The items from `at` on and where the next begin; None when no piece can be decoded."""
        for extension in range(_EXTENSIONS + 1):
            between = _BETWEEN.search(self._body, at + (_PIECE_BYTES << extension), self._end)
            comma = self._end if between is None else self._body.index(b",", between.start())
            try:
                return decode(b"[" + self._body[at:comma] + b"]"), comma + 1
            except Unusable:
                if between is None:
                    return None
        return None
