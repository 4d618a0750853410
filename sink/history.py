"""History by COPY: candles that are newer than all that is stored of their symbol go straight into `market_data`.

They go in the binary form of the PostgreSQL manual ("COPY", Binary Format); every value is what the receive function of
its type takes. Sending the same rows as datetimes, range objects and text takes the sink three times as long
(measured).
"""

import struct
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final

import psycopg

from marketdata.candle import Candle
from marketdata.rule import Reduced
from sink.columns import EPOCH_2000_MS, packed_int4, packed_multirange, packed_texts
from sink.db.connection import Connection
from sink.db.session import SQL
from sink.times import time_msc, utc

#: A batch with this many minutes per symbol is history. Live batches hold one or two of each, nearly all stored
#: already, so asking for the newest would be wasted.
_MINUTES_OF_HISTORY: Final = 4

#: Symbol, timeframe and source.
_Group = tuple[str, str, str]
_group: Final = attrgetter("symbol", "timeframe", "source")

#: As `store_candles` sorts.
_order: Final = attrgetter("symbol", "timeframe", "ts", "source")

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"

#: As many as `append_candles` names columns.
_FIELDS: Final = 19

# Each value follows its length in bytes. Texts and ranges, which vary in length, come between these groups.
_minute = struct.Struct("!hiq").pack
_prices = struct.Struct("!idididid" + "iq" + "id").pack
_ticks = struct.Struct("!ib" + "iq" + "iq").pack
_received = struct.Struct("!iqiq").pack


def is_history(candles: Sequence[Reduced]) -> bool:
    """Whether a batch, with one candle a key, may be of minutes that the table does not reach yet."""
    return len(candles) >= _MINUTES_OF_HISTORY * max(1, len({_group(reduced.candle) for reduced in candles}))


async def append_history(connection: Connection, candles: Sequence[Reduced], packed: Sequence[bytes]) -> list[int]:
    """Copy what is newer than every stored row of its symbol, timeframe and source; return the indexes of the rest.

    A replay into an empty table, or of years that it does not hold yet, consists of such candles. They need no
    judging, and to copy them straight into `market_data` takes PostgreSQL half the time. Runs inside the
    caller's transaction. `candles` has one candle a key, `packed` the same by `pack_candle`.

    Raises:
        psycopg.errors.UniqueViolation: when another transaction stored one of them meanwhile.
        psycopg.errors.DeadlockDetected: when another transaction waits for one of them, and this one for one of its.
        psycopg.DataError, psycopg.IntegrityError: when the database refuses a value.
    """
    newest = await _newest(connection, _spans(candles))
    rest: list[int] = []
    fresh: list[int] = []
    for place, reduced in enumerate(candles):
        candle = reduced.candle
        # A candle that wants more offsets than it has needs a refold, which only judging requests.
        is_fresh = candle.ts > newest.get(_group(candle), -1) and reduced.wanted == candle.offsets
        (fresh if is_fresh else rest).append(place)
    if fresh:
        # In the order of `store_candles`, so that two sinks appending at once lock rows in the same order.
        fresh.sort(key=lambda place: _order(candles[place].candle))
        async with connection.cursor() as cursor, cursor.copy(SQL["append_candles"]) as copy:
            await copy.write(folded_rows(packed[place] for place in fresh))
    return rest


def _spans(candles: Sequence[Reduced]) -> dict[_Group, tuple[int, int]]:
    """First and last period of each symbol, timeframe and source (UTC epoch milliseconds)."""
    spans: dict[_Group, tuple[int, int]] = {}
    for reduced in candles:
        candle = reduced.candle
        group, ts = _group(candle), candle.ts
        span = spans.get(group)
        if span is None:
            spans[group] = (ts, ts)
        elif ts > span[1]:
            spans[group] = (span[0], ts)
        elif ts < span[0]:
            spans[group] = (ts, span[1])
    return spans


async def _newest(connection: Connection, spans: dict[_Group, tuple[int, int]]) -> dict[_Group, int]:
    """The newest stored period of each group within its span; groups without one are missing."""
    symbols, timeframes, sources = zip(*spans, strict=True)
    firsts, lasts = zip(*spans.values(), strict=True)
    found = await connection.execute(
        SQL["newest_stored"],
        {
            "symbols": list(symbols), "timeframes": list(timeframes), "sources": list(sources),
            "firsts": list(map(utc, firsts)), "lasts": list(map(utc, lasts)),
            "first_ts": utc(min(firsts)), "last_ts": utc(max(lasts)),
        },
    )  # fmt: skip
    return {(symbol, timeframe, source): time_msc(ts) for symbol, timeframe, source, ts in await found.fetchall()}


def pack_candle(candle: Candle) -> bytes:
    """All fields but the last of a row of COPY; the connection speaks UTF-8.

    Raises:
        psycopg.DataError: when a number is beyond its column's type.
        UnicodeEncodeError: when a text is not encodable, such as half a surrogate pair.
    """
    try:
        return b"".join(
            (
                _minute(_FIELDS, 8, (candle.ts - EPOCH_2000_MS) * 1000), packed_texts(candle.symbol, candle.timeframe),
                _prices(
                    8, candle.open, 8, candle.high, 8, candle.low, 8, candle.close, 8, candle.volume,
                    8, candle.real_volume,
                ),
                packed_int4(candle.spread), packed_texts(candle.source),
                _ticks(
                    1, candle.closed, 8, (candle.first_tick - EPOCH_2000_MS) * 1000,
                    8, (candle.last_tick - EPOCH_2000_MS) * 1000,
                ),
                packed_texts(candle.log), packed_multirange(candle.offsets),
                _received(
                    8, (candle.received - EPOCH_2000_MS) * 1000, 8, (candle.emitted - EPOCH_2000_MS) * 1000
                ),
            )
        )  # fmt: skip
    except struct.error as exc:
        raise psycopg.DataError(f"a number is out of range: {exc}") from exc


def folded_rows(rows: Iterable[bytes]) -> bytes:
    """What `append_candles` takes, of packed candles: their origin is the ticks."""
    origin = packed_texts("ticks")
    return b"".join((_HEADER, *(packed + origin for packed in rows), _TRAILER))
