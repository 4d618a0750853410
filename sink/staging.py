"""Brings rows into the staging tables of a connection: by COPY, or by INSERT where a server cannot COPY."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from marketdata.candle import BrokerBar
from marketdata.offsets import to_multirange
from sink.database import Connection
from sink.packing import pack_candles
from sink.rule import Reduced
from sink.statements import SQL

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Row = tuple[object, ...]


def utc(time_msc: int) -> datetime:
    """The moment of epoch milliseconds, exactly."""
    return _EPOCH + timedelta(milliseconds=time_msc)


def time_msc(moment: datetime) -> int:
    """Epoch milliseconds of an aware datetime, exactly."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


class Staging:
    """Fills `incoming_candles` and `incoming_bars`, which are empty at the begin of every transaction.

    `use_copy=False` stages by INSERT: the slow and plain way, for servers that do not survive COPY FROM STDIN, such as
    PostgreSQL compiled to WebAssembly.
    """

    def __init__(self, *, use_copy: bool = True) -> None:
        self._use_copy = use_copy

    async def stage_candles(self, connection: Connection, candles: Sequence[Reduced]) -> None:
        """Stage one row per key."""
        if not self._use_copy:
            await _insert(connection, "insert_candle", [_candle_row(reduced) for reduced in candles])
            return
        async with connection.cursor() as cursor, cursor.copy(SQL["copy_candles"]) as copy:
            await copy.write(pack_candles(candles, connection.info.encoding))

    async def stage_bars(self, connection: Connection, bars: Sequence[BrokerBar]) -> None:
        """Stage one row per key."""
        rows = [_bar_row(bar) for bar in bars]
        if not self._use_copy:
            await _insert(connection, "insert_bar", rows)
            return
        async with connection.cursor() as cursor, cursor.copy(SQL["copy_bars"]) as copy:
            for row in rows:
                await copy.write_row(row)


async def _insert(connection: Connection, name: str, rows: list[Row]) -> None:
    async with connection.cursor() as cursor:
        await cursor.executemany(SQL[name], rows)


def _candle_row(reduced: Reduced) -> Row:
    candle = reduced.candle
    offsets = to_multirange(candle.offsets)
    wanted = offsets if reduced.wanted is candle.offsets else to_multirange(reduced.wanted)
    return (
        utc(candle.ts), candle.symbol, candle.timeframe, candle.open, candle.high, candle.low, candle.close,
        candle.volume, candle.real_volume, candle.spread, candle.source, candle.closed, utc(candle.first_tick),
        utc(candle.last_tick), candle.log, candle.partition, offsets, utc(candle.received), utc(candle.emitted), wanted,
    )  # fmt: skip


def _bar_row(bar: BrokerBar) -> Row:
    return (
        bar.source, bar.symbol, bar.timeframe, utc(bar.ts), bar.open, bar.high, bar.low, bar.close, bar.volume,
        bar.real_volume, bar.spread, utc(bar.received),
    )  # fmt: skip
