"""Staging by INSERT: the slow and plain way, which COPY is held against.

Servers that do not survive COPY FROM STDIN, such as PostgreSQL compiled to WebAssembly, are filled by it as well.
"""

from collections.abc import Sequence
from typing import Final

from marketdata.candle import BrokerBar
from marketdata.offsets import to_multirange
from marketdata.rule import Reduced
from sink.db.connection import Connection
from sink.staging import Row, Staging, bar_row, utc

_INSERT_CANDLE: Final = b"""
INSERT INTO incoming_candles (
    ts, symbol, timeframe, open, high, low, close, volume, real_volume, spread, source, closed, first_tick, last_tick,
    log, offsets, received_at, folded_at, wanted
) VALUES (
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s::text::int8multirange, %s, %s,
    %s::text::int8multirange
)
"""

_INSERT_BAR: Final = b"""
INSERT INTO incoming_bars (
    source, symbol, timeframe, ts, open, high, low, close, volume, real_volume, spread, closed, received_at
) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


class InsertStaging(Staging):
    """Inserts row by row; nothing goes straight into `market_data`."""

    appends = False

    def pack(self, candles: Sequence[Reduced]) -> list[bytes]:
        return []

    async def stage_candles(self, connection: Connection, candles: Sequence[Reduced], packed: Sequence[bytes]) -> None:
        async with connection.cursor() as cursor:
            await cursor.executemany(_INSERT_CANDLE, [_candle_row(reduced) for reduced in candles])

    async def stage_bars(self, connection: Connection, bars: Sequence[BrokerBar]) -> None:
        async with connection.cursor() as cursor:
            await cursor.executemany(_INSERT_BAR, [bar_row(bar) for bar in bars])


def _candle_row(reduced: Reduced) -> Row:
    candle = reduced.candle
    offsets = to_multirange(candle.offsets)
    wanted = offsets if reduced.wanted is candle.offsets else to_multirange(reduced.wanted)
    return (
        utc(candle.ts), candle.symbol, candle.timeframe, candle.open, candle.high, candle.low, candle.close,
        candle.volume, candle.real_volume, candle.spread, candle.source, candle.closed, utc(candle.first_tick),
        utc(candle.last_tick), candle.log, offsets, utc(candle.received), utc(candle.emitted), wanted,
    )  # fmt: skip
