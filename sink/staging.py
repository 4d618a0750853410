"""Brings rows into the database by COPY: into the staging tables, or history straight into `market_data`.

Candles go in the binary form of the PostgreSQL manual ("COPY", Binary Format); every value is what the receive function
of its type takes. Sending the same rows as datetimes, range objects and text takes the sink three times as long
(measured). A candle is packed once, without its last field: for the staging table that is `wanted`, for `market_data`
the origin.
"""

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Final

import psycopg

from marketdata.candle import BrokerBar, Candle
from marketdata.offsets import Ranges, position, spans
from marketdata.rule import Reduced
from sink.db.connection import Connection, StagingTable, provide
from sink.db.session import SQL

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: A batch with this many minutes per symbol is history. Live batches hold one or two of each, nearly all stored
#: already, so asking for the newest would be wasted.
_MINUTES_OF_HISTORY: Final = 4

#: Symbol, timeframe and source.
_Group = tuple[str, str, str]
_group: Final = attrgetter("symbol", "timeframe", "source")

#: As `apply_candles` sorts.
_order: Final = attrgetter("symbol", "timeframe", "ts", "source")

Row = tuple[object, ...]

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"

#: As many as `copy_candles` and `append_candles` name columns.
_FIELDS: Final = 19

#: PostgreSQL counts microseconds from the year 2000 (UTC epoch milliseconds).
_EPOCH_2000_MS: Final = 946_684_800_000

# Each value follows its length in bytes. Texts and ranges, which vary in length, come between these groups.
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


def utc(time_msc: int) -> datetime:
    """The exact datetime of epoch milliseconds."""
    return _EPOCH + timedelta(milliseconds=time_msc)


def time_msc(moment: datetime) -> int:
    """The exact epoch milliseconds of an aware datetime."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


class Staging:
    """Fills `incoming_candles` and `incoming_bars`, which are empty when a transaction begins."""

    #: Whether rows may go straight into `market_data` as well.
    appends = True

    def pack(self, candles: Sequence[Reduced]) -> list[bytes]:
        """Each candle as COPY takes it.

        Raises:
            psycopg.DataError, UnicodeEncodeError: when a column cannot hold a value.
        """
        return [pack_candle(reduced.candle) for reduced in candles]

    async def stage_candles(self, connection: Connection, candles: Sequence[Reduced], packed: Sequence[bytes]) -> None:
        """Stage one row per key; `packed` are the same candles by `pack`."""
        wanted = (reduced.wanted for reduced in candles)
        await provide(connection, StagingTable.CANDLES)
        await _copy(connection, "copy_candles", staged_rows(zip(packed, wanted, strict=True)))

    async def append_candles(self, connection: Connection, packed: Sequence[bytes]) -> None:
        """Copy candles into `market_data` itself.

        Raises:
            psycopg.errors.UniqueViolation: when a row of one of their keys exists.
        """
        await _copy(connection, "append_candles", folded_rows(packed))

    async def stage_bars(self, connection: Connection, bars: Sequence[BrokerBar]) -> None:
        """Stage one row per key."""
        await provide(connection, StagingTable.BARS)
        async with connection.cursor() as cursor, cursor.copy(SQL["copy_bars"]) as copy:
            for bar in bars:
                await copy.write_row(bar_row(bar))


async def append_history(
    connection: Connection, staging: Staging, candles: Sequence[Reduced], packed: Sequence[bytes]
) -> list[int]:
    """Copy what is newer than every stored row of its symbol, timeframe and source; return the indexes of the rest.

    A replay into an empty table, or of years that it does not hold yet, consists of such candles. They need no staging
    and no judging, and to copy them straight into `market_data` takes PostgreSQL half the time. Runs inside the
    caller's transaction. `candles` has one candle a key, `packed` the same by `Staging.pack`.

    Raises:
        psycopg.errors.UniqueViolation: when another transaction stored one of them meanwhile.
        psycopg.errors.DeadlockDetected: when another transaction waits for one of them, and this one for one of its.
        psycopg.DataError, psycopg.IntegrityError: when the database refuses a value.
    """
    everything = list(range(len(candles)))
    spans = _spans(candles)
    if not staging.appends or len(candles) < _MINUTES_OF_HISTORY * max(1, len(spans)):
        return everything
    newest = await _newest(connection, spans)
    rest: list[int] = []
    fresh: list[int] = []
    for place, reduced in enumerate(candles):
        candle = reduced.candle
        # A candle that wants more offsets than it has needs a refold, which only judging requests.
        is_fresh = candle.ts > newest.get(_group(candle), -1) and reduced.wanted == candle.offsets
        (fresh if is_fresh else rest).append(place)
    if fresh:
        # In the order of `apply_candles`, so that two sinks appending at once lock rows in the same order.
        fresh.sort(key=lambda place: _order(candles[place].candle))
        await staging.append_candles(connection, [packed[place] for place in fresh])
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


async def _copy(connection: Connection, name: str, rows: bytes) -> None:
    async with connection.cursor() as cursor, cursor.copy(SQL[name]) as copy:
        await copy.write(rows)


def bar_row(bar: BrokerBar) -> Row:
    """The row of `incoming_bars`."""
    return (
        bar.source, bar.symbol, bar.timeframe, utc(bar.ts), bar.open, bar.high, bar.low, bar.close, bar.volume,
        bar.real_volume, bar.spread, bar.closed, utc(bar.received),
    )  # fmt: skip


def pack_candle(candle: Candle) -> bytes:
    """All fields but the last of a row of COPY; the connection speaks UTF-8.

    Raises:
        psycopg.DataError: when a number is beyond its column's type.
        UnicodeEncodeError: when a text is not encodable, such as half a surrogate pair.
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
