"""Candles in the binary form of PostgreSQL's COPY.

The form is that of the PostgreSQL manual ("COPY", Binary Format); every value is what the receive function of its type
takes. Datetimes, range objects and texts on the way to the same rows cost the sink three times the time (measured).

A candle is packed once, without its last field: for the staging table that is `wanted`, for `market_data` the origin.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import psycopg

from marketdata.candle import Candle
from marketdata.offsets import Ranges, position, spans

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"

#: As many as `copy_candles` and `append_candles` name columns.
_FIELDS: Final = 19

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
_one_range = struct.Struct("!iiiBiqiq").pack

_NULL: Final = _length(-1)
_RANGE_BYTES: Final = 25
_LOWER_IS_INSIDE: Final = 0x02


def pack_candle(candle: Candle) -> bytes:
    """All fields but the last of a row of COPY; the connection speaks UTF-8.

    Raises:
        psycopg.DataError: when a number is beyond its column's type.
        UnicodeEncodeError: when a text is none, such as half a surrogate.
    """
    try:
        return b"".join(
            (
                _minute(_FIELDS, 8, (candle.ts - _EPOCH_2000_MS) * 1000), _names(candle.symbol, candle.timeframe),
                _prices(
                    8, candle.open, 8, candle.high, 8, candle.low, 8, candle.close, 8, candle.volume,
                    8, candle.real_volume,
                ),
                _spread(candle.spread), _names(candle.source),
                _ticks(
                    1, candle.closed, 8, (candle.first_tick - _EPOCH_2000_MS) * 1000,
                    8, (candle.last_tick - _EPOCH_2000_MS) * 1000,
                ),
                _names(candle.log), _multirange(candle.offsets),
                _received(
                    8, (candle.received - _EPOCH_2000_MS) * 1000, 8, (candle.emitted - _EPOCH_2000_MS) * 1000
                ),
            )
        )  # fmt: skip
    except struct.error as exc:
        raise psycopg.DataError(f"a number is out of range: {exc}") from exc


def staged_rows(rows: Iterable[tuple[bytes, Ranges]]) -> bytes:
    """What `copy_candles` takes, of packed candles and the offsets that each one's row should come to hold."""
    return _copied(packed + _multirange(wanted) for packed, wanted in rows)


def folded_rows(rows: Iterable[bytes]) -> bytes:
    """What `append_candles` takes, of packed candles: their origin is the ticks."""
    origin = _names("ticks")
    return _copied(packed + origin for packed in rows)


def _copied(rows: Iterable[bytes]) -> bytes:
    return b"".join((_HEADER, *rows, _TRAILER))


# Symbols, sources, logs and spreads repeat.
@lru_cache(maxsize=4096)
def _names(*texts: str) -> bytes:
    encoded = [text.encode() for text in texts]
    return b"".join(_length(len(text)) + text for text in encoded)


@lru_cache(maxsize=4096)
def _spread(spread: int | None) -> bytes:
    return _NULL if spread is None else _int4(4, spread)


def _multirange(ranges: Ranges) -> bytes:
    if len(ranges) == 1:
        [(partition, first, last)] = ranges
        first, last = position(partition, first), position(partition, last)
        return _one_range(8 + _RANGE_BYTES, 1, _RANGE_BYTES, _LOWER_IS_INSIDE, 8, first, 8, last + 1)
    packed = b"".join([_range(_RANGE_BYTES, _LOWER_IS_INSIDE, 8, first, 8, last + 1) for first, last in spans(ranges)])
    return _length(4 + len(packed)) + _length(len(ranges)) + packed
