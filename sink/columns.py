"""Columns of many rows as PostgreSQL takes them with one statement: arrays in binary form, one for each column.

The form is that of `array_recv`; every value in it is what the receive function of its type takes, as with COPY
(`sink/history.py`). The statement's cast says of which type an array is. Lists of datetimes and range objects take the
sink several times as long.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

from marketdata.candle import BrokerBar, Candle
from marketdata.offsets import Ranges, position, spans
from marketdata.rule import Reduced

#: PostgreSQL counts microseconds from the year 2000 (UTC epoch milliseconds).
EPOCH_2000_MS: Final = 946_684_800_000

#: Dimensions, whether there are nulls (which it finds out by itself), type of the elements, how many, first index.
_array = struct.Struct("!iiIii").pack
_length = struct.Struct("!i").pack
_int4 = struct.Struct("!ii").pack
_float8 = struct.Struct("!id").pack
_range = struct.Struct("!iBiqiq").pack
_one_range = struct.Struct("!iiiBiqiq").pack

_NULL: Final = _length(-1)
_RANGE_BYTES: Final = 25
_LOWER_IS_INSIDE: Final = 0x02


class Column(bytes):
    """An array in binary form."""


class _ColumnDumper(Dumper):
    format = Format.BINARY
    #: None: the server takes the type from the cast.
    oid = 0

    def dump(self, obj: Column) -> bytes:
        return obj


psycopg.adapters.register_dumper(Column, _ColumnDumper)

Columns = dict[str, Column]

Pack = Callable[[Sequence[Any]], Column]


def _oid(type_name: str) -> int:
    return psycopg.adapters.types[type_name].oid


def _fixed(type_name: str, code: str) -> Pack:
    """Packs values of one size."""
    oid, size = _oid(type_name), struct.calcsize(f"!{code}")

    def pack(values: Sequence[Any]) -> Column:
        flat = [size] * (2 * len(values))
        flat[1::2] = values
        return Column(_array(1, 0, oid, len(values), 1) + struct.pack("!" + f"i{code}" * len(values), *flat))

    return pack


def _varying(type_name: str, pack_one: Callable[[Any], bytes]) -> Pack:
    """Packs values that bring their length."""
    oid = _oid(type_name)

    def pack(values: Sequence[Any]) -> Column:
        return Column(_array(1, 0, oid, len(values), 1) + b"".join(map(pack_one, values)))

    return pack


# Symbols, sources, logs and spreads repeat.
@lru_cache(maxsize=4096)
def packed_texts(*texts: str) -> bytes:
    """Each text after its length."""
    encoded = [text.encode() for text in texts]
    return b"".join(_length(len(text)) + text for text in encoded)


@lru_cache(maxsize=4096)
def packed_int4(value: int | None) -> bytes:
    """An integer, or NULL, after its length."""
    return _NULL if value is None else _int4(4, value)


def packed_multirange(ranges: Ranges) -> bytes:
    """The positions of the ranges after their length, an int8multirange."""
    if len(ranges) == 1:
        [(partition, first, last)] = ranges
        first, last = position(partition, first), position(partition, last)
        return _one_range(8 + _RANGE_BYTES, 1, _RANGE_BYTES, _LOWER_IS_INSIDE, 8, first, 8, last + 1)
    packed = b"".join([_range(_RANGE_BYTES, _LOWER_IS_INSIDE, 8, first, 8, last + 1) for first, last in spans(ranges)])
    return _length(4 + len(packed)) + _length(len(ranges)) + packed


_texts = _varying("text", packed_texts)
_prices = _fixed("float8", "d")
_volumes = _fixed("int8", "q")
_spreads = _varying("int4", packed_int4)
_flags = _fixed("bool", "?")
_proofs = _varying("int8multirange", packed_multirange)
_optional_prices = _varying("float8", lambda value: _NULL if value is None else _float8(8, value))
_microseconds = _fixed("timestamptz", "q")


def _times(values: Iterable[int]) -> Column:
    return _microseconds([(value - EPOCH_2000_MS) * 1000 for value in values])


def _of_rows(rows: Sequence[Candle] | Sequence[BrokerBar]) -> Iterator[tuple[str, Column]]:
    """The columns that candles and bars share, but for `real_volume`."""
    yield "ts", _times([row.ts for row in rows])
    yield "symbol", _texts([row.symbol for row in rows])
    yield "timeframe", _texts([row.timeframe for row in rows])
    yield "source", _texts([row.source for row in rows])
    yield "open", _prices([row.open for row in rows])
    yield "high", _prices([row.high for row in rows])
    yield "low", _prices([row.low for row in rows])
    yield "close", _prices([row.close for row in rows])
    yield "volume", _volumes([row.volume for row in rows])
    yield "spread", _spreads([row.spread for row in rows])
    yield "closed", _flags([row.closed for row in rows])
    yield "received_at", _times([row.received for row in rows])


def candle_columns(reduced: Sequence[Reduced]) -> Iterator[tuple[str, Column]]:
    """The columns of `incoming_candles`, one after the other, each with its name.

    Raises:
        psycopg.DataError: when a number is beyond its column's type.
        UnicodeEncodeError: when a text is not encodable, such as half a surrogate pair.
    """
    candles = [one.candle for one in reduced]
    try:
        yield from _of_rows(candles)
        yield "real_volume", _prices([candle.real_volume for candle in candles])
        yield "first_tick", _times([candle.first_tick for candle in candles])
        yield "last_tick", _times([candle.last_tick for candle in candles])
        yield "folded_at", _times([candle.emitted for candle in candles])
        yield "log", _texts([candle.log for candle in candles])
        offsets = _proofs([candle.offsets for candle in candles])
        yield "offsets", offsets
        is_same = all(one.wanted is one.candle.offsets for one in reduced)
        yield "wanted", offsets if is_same else _proofs([one.wanted for one in reduced])
    except struct.error as exc:
        raise psycopg.DataError(f"a number is out of range: {exc}") from exc


def bar_columns(bars: Sequence[BrokerBar]) -> Columns:
    """The columns of `incoming_bars`.

    Raises:
        psycopg.DataError, UnicodeEncodeError: as `candle_columns`.
    """
    try:
        return dict(_of_rows(bars)) | {"real_volume": _optional_prices([bar.real_volume for bar in bars])}
    except struct.error as exc:
        raise psycopg.DataError(f"a number is out of range: {exc}") from exc
