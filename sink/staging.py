"""Brings rows into the database by COPY: into staging tables, or straight into `market_data`."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from marketdata.candle import BrokerBar
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
    """Fills `incoming_candles` and `incoming_bars`, which are empty at the begin of every transaction."""

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
        await _copy(connection, "copy_candles", staged_rows(zip(packed, wanted, strict=True)))

    async def append_candles(self, connection: Connection, packed: Sequence[bytes]) -> None:
        """Copy candles into `market_data` itself.

        Raises:
            psycopg.errors.UniqueViolation: when one of them is there, in whatever form.
        """
        await _copy(connection, "append_candles", folded_rows(packed))

    async def stage_bars(self, connection: Connection, bars: Sequence[BrokerBar]) -> None:
        """Stage one row per key."""
        async with connection.cursor() as cursor, cursor.copy(SQL["copy_bars"]) as copy:
            for bar in bars:
                await copy.write_row(bar_row(bar))


async def _copy(connection: Connection, name: str, rows: bytes) -> None:
    async with connection.cursor() as cursor, cursor.copy(SQL[name]) as copy:
        await copy.write(rows)


def bar_row(bar: BrokerBar) -> Row:
    """The row of `incoming_bars`."""
    return (
        bar.source, bar.symbol, bar.timeframe, utc(bar.ts), bar.open, bar.high, bar.low, bar.close, bar.volume,
        bar.real_volume, bar.spread, bar.closed, utc(bar.received),
    )  # fmt: skip
