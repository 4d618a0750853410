"""Brings rows into the database: into staging tables, by COPY or by INSERT, or straight into `market_data`."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from marketdata.candle import BrokerBar
from marketdata.offsets import to_multirange
from marketdata.rule import Reduced
from sink.db.connection import Connection
from sink.db.statements import SQL
from sink.packing import folded_rows, pack_candle, staged_rows

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
        self.use_copy = use_copy

    def pack(self, candles: Sequence[Reduced]) -> list[bytes]:
        """Each candle as COPY takes it; nothing where rows are inserted.

        Raises:
            psycopg.DataError, UnicodeEncodeError: when a column cannot hold a value.
        """
        return [pack_candle(reduced.candle) for reduced in candles] if self.use_copy else []

    async def stage_candles(self, connection: Connection, candles: Sequence[Reduced], packed: Sequence[bytes]) -> None:
        """Stage one row per key; `packed` are the same candles by `pack`."""
        if not self.use_copy:
            await _insert(connection, "insert_candle", [_candle_row(reduced) for reduced in candles])
            return
        wanted = (reduced.wanted for reduced in candles)
        await _copy(connection, "copy_candles", staged_rows(zip(packed, wanted, strict=True)))

    async def append_candles(self, connection: Connection, packed: Sequence[bytes]) -> None:
        """Copy candles into `market_data` itself.

        Raises:
            psycopg.errors.UniqueViolation: when one of them is there, in whatever form.
        """
        await _copy(connection, "append_candles", folded_rows(packed))

    async def stage_bars(self, connection: Connection, bars: Sequence[BrokerBar]) -> None:
        """Stage one row per key."""
        rows = [_bar_row(bar) for bar in bars]
        if not self.use_copy:
            await _insert(connection, "insert_bar", rows)
            return
        async with connection.cursor() as cursor, cursor.copy(SQL["copy_bars"]) as copy:
            for row in rows:
                await copy.write_row(row)


async def _copy(connection: Connection, name: str, rows: bytes) -> None:
    async with connection.cursor() as cursor, cursor.copy(SQL[name]) as copy:
        await copy.write(rows)


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
        utc(candle.last_tick), candle.log, offsets, utc(candle.received), utc(candle.emitted), wanted,
    )  # fmt: skip


def _bar_row(bar: BrokerBar) -> Row:
    return (
        bar.source, bar.symbol, bar.timeframe, utc(bar.ts), bar.open, bar.high, bar.low, bar.close, bar.volume,
        bar.real_volume, bar.spread, utc(bar.received),
    )  # fmt: skip
