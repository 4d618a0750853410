"""History by COPY: candles that are newer than all that is stored of their symbol go straight into `market_data`.

They go in the binary form of the PostgreSQL manual ("COPY", Binary Format); every value is what the receive function of
its type takes. Sending the same rows as datetimes, range objects and text takes the sink three times as long
(measured).
"""

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Final

import psycopg

from marketdata.candle import Candle
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

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"

#: As many as `append_candles` names columns.
_FIELDS: Final = 19

#: PostgreSQL counts from the year 2000 (UTC epoch microseconds).
_EPOCH: Final = EPOCH_2000_MS * 1000

_ORIGIN: Final = packed_texts("ticks")

# Each value follows its length in bytes. Texts and ranges, which vary in length, come between these groups.
_minute = struct.Struct("!hiq").pack
_prices = struct.Struct("!idididid" + "iq" + "id").pack
_ticks = struct.Struct("!ib" + "iq" + "iq").pack
_received = struct.Struct("!iqiq").pack


class Series:
    """Where the candles of one symbol, timeframe and source are."""

    __slots__ = ("places", "times")

    def __init__(self) -> None:
        #: Their periods (UTC epoch milliseconds).
        self.times: list[int] = []
        #: Their indexes.
        self.places: list[int] = []

    def sort(self) -> None:
        """Put them in order of time, in which a replay brings them."""
        if self.times != sorted(self.times):
            pairs = sorted(zip(self.times, self.places, strict=True))
            self.times, self.places = [time for time, _ in pairs], [place for _, place in pairs]


class History:
    """Candles that are appended where the table does not reach their minutes.

    They are looked at, packed and freed in the order in which they came. Of so many that they do not stay in the
    processor's cache, to do that one series after the other takes half as long again.
    """

    def __init__(self) -> None:
        self.candles: Final[list[Candle]] = []
        #: The candles by `pack_candle`, as far as they are packed.
        self.rows: Final[list[bytes]] = []
        self.series: Final[dict[_Group, Series]] = {}

    def add(self, candles: Sequence[Candle]) -> None:
        """Add each candle to its series."""
        for place, candle in enumerate(candles, len(self.candles)):
            group = _group(candle)
            series = self.series.get(group)
            if series is None:
                series = self.series[group] = Series()
            series.times.append(candle.ts)
            series.places.append(place)
        self.candles.extend(candles)

    @property
    def is_single(self) -> bool:
        """Whether no key comes twice."""
        return all(len(set(series.times)) == len(series.times) for series in self.series.values())

    @property
    def is_long(self) -> bool:
        """Whether it may be of minutes that the table does not reach yet."""
        return len(self.candles) >= _MINUTES_OF_HISTORY * max(1, len(self.series))

    def pack(self, piece: int) -> Iterator[None]:
        """Sort and pack the candles, so many at a time.

        Raises:
            psycopg.DataError, UnicodeEncodeError: as `pack_candle`.
        """
        for series in self.series.values():
            series.sort()
        for start in range(0, len(self.candles), piece):
            self.rows.extend(map(pack_candle, self.candles[start : start + piece]))
            yield

    def ordered(self, begins: Mapping[_Group, int]) -> Iterator[bytes]:
        """The rows of each series from its `begins` on, in the order of `store_candles`, in which sinks lock them."""
        for _, groups in groupby(sorted(self.series), key=lambda group: group[:2]):
            some = list(groups)
            places = self.series[some[0]].places[begins[some[0]] :]
            if len(some) > 1:
                by_time = [
                    (series.times[n], group[2], series.places[n])
                    for group in some
                    for series in (self.series[group],)
                    for n in range(begins[group], len(series.places))
                ]
                places = [place for *_, place in sorted(by_time)]
            yield from map(self.rows.__getitem__, places)


async def append_history(connection: Connection, history: History) -> list[Candle]:
    """Copy what is newer than every stored row of its symbol, timeframe and source; return the rest.

    A replay into an empty table, or of years that it does not hold yet, consists of such candles. They need no
    judging, and to copy them straight into `market_data` takes PostgreSQL half the time. Runs inside the
    caller's transaction. No key comes twice, and everything is packed.

    Raises:
        psycopg.errors.UniqueViolation: when another transaction stored one of them meanwhile.
        psycopg.errors.DeadlockDetected: when another transaction waits for one of them, and this one for one of its.
        psycopg.DataError, psycopg.IntegrityError: when the database refuses a value.
    """
    if not history.series:
        return []
    newest = await _newest(connection, history.series)
    begins = {group: bisect_right(one.times, newest.get(group, -1)) for group, one in history.series.items()}
    rest = [history.candles[place] for group, one in history.series.items() for place in one.places[: begins[group]]]
    if len(rest) < len(history.candles):
        async with connection.cursor() as cursor, cursor.copy(SQL["append_candles"]) as copy:
            await copy.write(folded_rows(history.ordered(begins)))
    return rest


async def _newest(connection: Connection, series: Mapping[_Group, Series]) -> dict[_Group, int]:
    """The newest stored period of each group within its span; groups without one are missing."""
    symbols, timeframes, sources = zip(*series, strict=True)
    firsts, lasts = zip(*((one.times[0], one.times[-1]) for one in series.values()), strict=True)
    found = await connection.execute(
        SQL["newest_stored"],
        {
            "symbols": list(symbols), "timeframes": list(timeframes), "sources": list(sources),
            "firsts": list(map(utc, firsts)), "lasts": list(map(utc, lasts)),
            "first_ts": utc(min(firsts)), "last_ts": utc(max(lasts)),
        },
    )  # fmt: skip
    return {(symbol, timeframe, source): time_msc(ts) for symbol, timeframe, source, ts in await found.fetchall()}


# The names of a series repeat, and so does its log.
@lru_cache(maxsize=4096)
def _names(symbol: str, timeframe: str, source: str, log: str) -> tuple[bytes, bytes, bytes]:
    return packed_texts(symbol, timeframe), packed_texts(source), packed_texts(log)


def pack_candle(candle: Candle) -> bytes:
    """A row of COPY; the connection speaks UTF-8.

    Raises:
        psycopg.DataError: when a number is beyond its column's type.
        UnicodeEncodeError: when a text is not encodable, such as half a surrogate pair.
    """
    names, source, log = _names(candle.symbol, candle.timeframe, candle.source, candle.log)
    try:
        return b"".join(
            (
                _minute(_FIELDS, 8, candle.ts * 1000 - _EPOCH), names,
                _prices(
                    8, candle.open, 8, candle.high, 8, candle.low, 8, candle.close, 8, candle.volume,
                    8, candle.real_volume,
                ),
                packed_int4(candle.spread), source,
                _ticks(1, candle.closed, 8, candle.first_tick * 1000 - _EPOCH, 8, candle.last_tick * 1000 - _EPOCH),
                log, packed_multirange(candle.offsets),
                _received(8, candle.received * 1000 - _EPOCH, 8, candle.emitted * 1000 - _EPOCH), _ORIGIN,
            )
        )  # fmt: skip
    except struct.error as exc:
        raise psycopg.DataError(f"a number is out of range: {exc}") from exc


def folded_rows(rows: Iterable[bytes]) -> bytes:
    """What `append_candles` takes, of packed candles."""
    return b"".join((_HEADER, *rows, _TRAILER))
