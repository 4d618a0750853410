"""History on its way into the table: candles that are newer than all that is stored need no staging and no judging.

A replay into an empty table, or of years that it does not hold yet, consists of them. To copy them straight into
`market_data` takes PostgreSQL half the time of staging, judging and inserting them.
"""

from collections.abc import Sequence
from typing import Final

from marketdata.rule import Reduced
from sink.db.connection import Connection
from sink.db.statements import SQL
from sink.staging import Staging, time_msc, utc

#: Minutes of each symbol in a batch that make it history. Live batches hold one or two of each, nearly all stored
#: already, and asking for those would be in vain.
_MINUTES_OF_HISTORY: Final = 4

#: Symbol, timeframe and source.
_Group = tuple[str, str, str]


async def append_history(
    connection: Connection, staging: Staging, candles: Sequence[Reduced], packed: Sequence[bytes]
) -> list[int]:
    """Copy what is newer than every stored row of its symbol, timeframe and source; the places of the rest.

    Runs inside the caller's transaction. `candles` has one candle a key, `packed` the same by `Staging.pack`.

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
        # A candle that wants more offsets than it has is to be folded again, which is found out by judging it.
        is_fresh = (
            candle.ts > newest.get((candle.symbol, candle.timeframe, candle.source), -1)
            and reduced.wanted == candle.offsets
        )
        (fresh if is_fresh else rest).append(place)
    if fresh:
        # In the order of `apply_candles`, so that two sinks that append at once lock in one order.
        fresh.sort(key=lambda place: _order(candles[place]))
        await staging.append_candles(connection, [packed[place] for place in fresh])
    return rest


def _order(reduced: Reduced) -> tuple[str, str, int, str]:
    candle = reduced.candle
    return candle.symbol, candle.timeframe, candle.ts, candle.source


def _spans(candles: Sequence[Reduced]) -> dict[_Group, tuple[int, int]]:
    """First and last period of each symbol, timeframe and source (UTC epoch milliseconds)."""
    spans: dict[_Group, tuple[int, int]] = {}
    for reduced in candles:
        candle = reduced.candle
        group, ts = (candle.symbol, candle.timeframe, candle.source), candle.ts
        first, last = spans.get(group, (ts, ts))
        spans[group] = (min(first, ts), max(last, ts))
    return spans


async def _newest(connection: Connection, spans: dict[_Group, tuple[int, int]]) -> dict[_Group, int]:
    """The newest stored period of each group within its span; those that have none are missing."""
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
