"""Reads records of a few ticks, most often one, to an array: the records of a whole poll in one go. Pure.

`marketdata.wire.encode` ends it with `"request":"…","received":…,"ticks":[[time,bid,ask,last,volume,flags]]}`.
Python would take longer for a look at each than simdjson takes for all numbers, so numpy looks at the bytes of many
records at once. A record is read when these are the ones that the producer writes; no other is judged here.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from simdjson import Parser

from marketdata.tick import FIELDS
from stream_app.outlines import Places

#: What simdjson raises: no JSON, another type, a number of more than 64 bits.
NOT_PLAIN: Final = (ValueError, TypeError, KeyError, AttributeError, RuntimeError)

#: Records that are read together: more have left the processor's cache when they are looked at again.
_PIECE_RECORDS: Final = 2_000

#: Places of fields among those of a tick.
VOLUME: Final = FIELDS.index("volume")
_FLAGS: Final = FIELDS.index("flags")

_COUNT: Final = len(FIELDS)

#: Quotes in a record, and how many of them come before the name of the request.
_QUOTES: Final = 24
_QUOTES_BEFORE: Final = 16

#: What is between the request's quotes and the ticks.
_REQUEST: Final = b'"request":"'
_RECEIVED: Final = b'","received":'
_TICKS: Final = b',"ticks":[['
_END: Final = b"]]}"

#: Times are written with so many digits from 2001 to 2286 (UTC epoch milliseconds).
TIME_DIGITS: Final = 13

#: Flags with more digits are not read; those that are documented have three at most.
_FLAG_DIGITS: Final = 4

_RECEIVED_AT: Final = len(_RECEIVED)
_TICKS_AT: Final = _RECEIVED_AT + TIME_DIGITS
_ROWS_AT: Final = _TICKS_AT + len(_TICKS) - 1

_Bools = NDArray[np.bool_]
_Bytes = NDArray[np.uint8]

_HIGH, _DIGITS, _SIX = (np.uint64(byte * 0x0101010101010101) for byte in (0xF0, 0x30, 0x06))


class Rows(NamedTuple):
    """Ticks of records."""

    #: What the records begin with, up to the names of their requests.
    beginnings: list[bytes]
    #: Which of these each record has; -1 for one that is not plain.
    which: Places
    #: Number of ticks of each record, 0 for one that is not plain.
    counts: Places
    #: The fields of each tick.
    values: NDArray[np.float64]


class _Text:
    """Bytes, of which numpy compares eight at a time."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.bytes: _Bytes = np.frombuffer(text, np.uint8)
        self._eights: NDArray[np.uint64] = np.ndarray((max(0, len(text) - 7),), "<u8", text, 0, (1,))

    def has(self, literal: bytes, places: Places) -> _Bools:
        """At which of the places these eight bytes or more are."""
        found: _Bools = self._eights[places] == int.from_bytes(literal[:8], "little")
        found &= self._eights[places + (len(literal) - 8)] == int.from_bytes(literal[-8:], "little")
        return found

    def are_times(self, places: Places) -> _Bools:
        """At which of the places a time is that does not begin with a zero."""
        found: _Bools = self.bytes[places] != ord("0")
        for begin in (places, places + (TIME_DIGITS - 8)):
            eight = self._eights[begin]
            found &= (eight & _HIGH) == _DIGITS
            found &= ((eight + _SIX) & _HIGH) == _DIGITS
        return found

    def are_flags(self, commas: Places) -> _Bools:
        """Behind which of the commas a few digits are, and nothing else of the number."""
        found = np.zeros(len(commas), np.bool_)
        digits = _is_digit(self.bytes[commas + 1])
        for count in range(2, _FLAG_DIGITS + 2):
            byte = self.bytes[np.minimum(commas + count, len(self.bytes) - 1)]
            found |= digits & ((byte == ord(",")) | (byte == ord("]")))
            digits &= _is_digit(byte)
        return found


def _is_digit(values: _Bytes) -> _Bools:
    return (values - np.uint8(ord("0"))) < 10


def rows_of(parser: Parser, values: Sequence[bytes]) -> Rows:
    """The ticks of all records that are plain."""
    numbers: dict[bytes, int] = {}
    which = np.full(len(values), -1)
    counts = np.zeros(len(values), np.int64)
    found = [
        _fill(parser, values[begin : begin + _PIECE_RECORDS], numbers, which[begin:], counts[begin:])
        for begin in range(0, len(values), _PIECE_RECORDS)
    ]
    return Rows(list(numbers), which, counts, np.concatenate(found))


def _fill(
    parser: Parser, values: Sequence[bytes], numbers: dict[bytes, int], which: Places, counts: Places
) -> NDArray[np.float64]:
    """The ticks of these records; sets their `which`, a number of `numbers`, and `counts`."""
    text = _Text(b"".join(values))
    ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
    starts = np.concatenate(([0], ends[:-1]))
    plain, seams, begins = _places(text, starts, ends)
    if not len(plain):
        return np.empty((0, _COUNT))
    try:
        rows, counts[plain] = _numbers(parser, text.text, begins, ends[plain] - (len(_END) - 1))
    except NOT_PLAIN:
        return np.empty((0, _COUNT))
    whole, number = text.text, numbers.setdefault
    spans = zip(starts[plain].tolist(), seams.tolist(), strict=True)
    which[plain] = [number(whole[begin:end], len(numbers)) for begin, end in spans]
    return rows


def _places(text: _Text, starts: Places, ends: Places) -> tuple[Places, Places, Places]:
    """Which records are plain up to their ticks and end so, where their requests are named, where their ticks begin."""
    quotes = np.flatnonzero(text.bytes == ord('"'))
    firsts = np.searchsorted(quotes, starts)
    which = np.flatnonzero(np.diff(firsts, append=len(quotes)) == _QUOTES)
    firsts = firsts[which] + _QUOTES_BEFORE
    # The third quote after it opens the request, the next one closes it.
    seams, closes = quotes[firsts], quotes[firsts + 3]
    is_plain = closes + (_ROWS_AT + len(_END)) < ends[which]
    if not is_plain.all():
        which, seams, closes = which[is_plain], seams[is_plain], closes[is_plain]
    lasts = ends[which] - 1
    is_plain = text.has(_REQUEST, seams) & text.has(_RECEIVED, closes) & text.has(_TICKS, closes + _TICKS_AT)
    is_plain &= text.are_times(closes + _RECEIVED_AT)
    for back, byte in enumerate(reversed(_END)):
        is_plain &= text.bytes[lasts - back] == byte
    if not text.text.isascii() or b"\\" in text.text or text.bytes.min() < ord(" "):
        odd = np.flatnonzero((text.bytes < ord(" ")) | (text.bytes > 126) | (text.bytes == ord("\\")))
        # In what a record begins with they are no matter: that is decoded.
        is_plain &= np.searchsorted(odd, seams) == np.searchsorted(odd, lasts)
    if not is_plain.all():
        which, seams, closes = which[is_plain], seams[is_plain], closes[is_plain]
    return which, seams, closes + _ROWS_AT


def _numbers(parser: Parser, whole: bytes, firsts: Places, lasts: Places) -> tuple[NDArray[np.float64], Places]:
    """The numbers of each tick, and how many ticks each record has, from where its rows begin to where they end.

    Raises one of `NOT_PLAIN` where any record is another one.
    """
    spans = zip(firsts.tolist(), lasts.tolist(), strict=True)
    text = _Text(b"[" + b",".join([whole[begin:end] for begin, end in spans]) + b"]")
    array: Any = parser.parse(text.text)
    values = np.frombuffer(array.as_buffer(of_type="d"))
    commas = np.flatnonzero(text.bytes == ord(","))
    # Behind each record.
    seams = np.cumsum(lasts - firsts + 1)
    count = len(values) // _COUNT
    # Behind each tick.
    ends = np.append(commas[_COUNT - 1 :: _COUNT], len(text.text) - 1)
    begins = np.concatenate(([1], ends[:-1] + 1))
    after = np.searchsorted(ends, seams)
    if not (
        count > 0
        and len(values) == len(commas) + 1 == _COUNT * count
        and text.text.count(b"[") == count + 1
        and (text.bytes[begins] == ord("[")).all()
        and (text.bytes[ends - 1] == ord("]")).all()
        and (ends[after] == seams).all()
        and (text.bytes[begins + TIME_DIGITS + 1] == ord(",")).all()
        and text.are_times(begins + 1).all()
        and text.are_flags(commas[_FLAGS - 1 :: _COUNT]).all()
    ):
        raise ValueError("not as the producer writes it")
    return values.reshape(count, _COUNT), np.diff(after, prepend=-1)
