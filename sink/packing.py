"""Candles in the binary form of PostgreSQL's COPY.

The form is that of the PostgreSQL manual ("COPY", Binary Format); every value is what the receive function of its type
takes. Datetimes, range objects and texts on the way to the same rows cost the sink three times the time (measured).
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import psycopg

from marketdata.offsets import Ranges
from sink.rule import Reduced

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"

#: As many as `copy_candles` names columns.
_FIELDS: Final = 20

#: PostgreSQL's time begins with the year 2000 (UTC epoch milliseconds), and counts microseconds.
_EPOCH_2000_MS: Final = 946_684_800_000

# A value stands behind its length in bytes. Texts and ranges, whose length differs, stand between these groups.
_minute = struct.Struct("!hiq").pack
_prices = struct.Struct("!idididid" + "iq" + "id").pack
_int4 = struct.Struct("!ii").pack
_ticks = struct.Struct("!ib" + "iq" + "iq").pack
_received = struct.Struct("!iqiq").pack
_length = struct.Struct("!i").pack
_range = struct.Struct("!iBiqiq").pack

_NULL: Final = _length(-1)
_RANGE_BYTES: Final = 25
_LOWER_IS_INSIDE: Final = 0x02


def pack_candles(candles: Sequence[Reduced], encoding: str = "utf-8") -> bytes:
    """What `copy_candles` takes: the same rows as `insert_candle` writes one by one.

    Args:
        encoding: Python's name of the connection's client encoding.

    Raises:
        psycopg.DataError: when a number is beyond its column's type.
        UnicodeEncodeError: when the encoding has no such character.
    """
    parts: list[bytes] = [_HEADER]
    try:
        for reduced in candles:
            _pack(reduced, parts, encoding)
    except struct.error as exc:
        raise psycopg.DataError(f"a number is out of range: {exc}") from exc
    parts.append(_TRAILER)
    return b"".join(parts)


def _pack(reduced: Reduced, parts: list[bytes], encoding: str) -> None:
    candle = reduced.candle
    offsets = _multirange(candle.offsets)
    wanted = offsets if reduced.wanted is candle.offsets else _multirange(reduced.wanted)
    parts += (
        _minute(_FIELDS, 8, _moment(candle.ts)), _text(candle.symbol, encoding), _text(candle.timeframe, encoding),
        _prices(
            8, candle.open, 8, candle.high, 8, candle.low, 8, candle.close, 8, candle.volume, 8, candle.real_volume
        ),
        _NULL if candle.spread is None else _int4(4, candle.spread), _text(candle.source, encoding),
        _ticks(1, candle.closed, 8, _moment(candle.first_tick), 8, _moment(candle.last_tick)),
        _text(candle.log, encoding), _int4(4, candle.partition), offsets,
        _received(8, _moment(candle.received), 8, _moment(candle.emitted)), wanted,
    )  # fmt: skip


def _moment(time_msc: int) -> int:
    return (time_msc - _EPOCH_2000_MS) * 1000


# Symbols, sources and logs repeat.
@lru_cache(maxsize=4096)
def _text(text: str, encoding: str) -> bytes:
    encoded = text.encode(encoding)
    return _length(len(encoded)) + encoded


def _multirange(ranges: Ranges) -> bytes:
    packed = b"".join([_range(_RANGE_BYTES, _LOWER_IS_INSIDE, 8, first, 8, last + 1) for first, last in ranges])
    return _length(4 + len(packed)) + _length(len(ranges)) + packed
