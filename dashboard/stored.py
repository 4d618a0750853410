"""Stored minutes with their proof, and the task that asks for those that the hub waits for."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from dashboard.answers import Refusal
from dashboard.database import Database
from dashboard.hub import Hub, Key
from dashboard.statements import SQL
from marketdata.candle import Candle
from marketdata.offsets import from_multirange

log = structlog.get_logger(__name__)

#: A database that answers later than this is away (seconds).
_PATIENCE_SECONDS: Final = 2.0
#: How often it is looked whether something waits (seconds): what a first candle of a minute is late by, at most.
_LOOK_SECONDS: Final = 0.02


class Settler:
    """Asks the database about the minutes that the hub waits for."""

    def __init__(self, database: Database, hub: Hub) -> None:
        self._database = database
        self._hub = hub

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            if keys := self._hub.due():
                try:
                    rows = await self._database.within(_PATIENCE_SECONDS, read_stored(self._database, keys))
                except Refusal as exc:
                    log.debug("Stored candles cannot be read now.", action="settle_wait", error=exc.message)
                    self._hub.database_is_away(keys)
                else:
                    self._hub.settle(keys, rows)
            await asyncio.sleep(_LOOK_SECONDS)


async def read_stored(database: Database, keys: Sequence[Key]) -> dict[Key, Candle]:
    """The folded minutes that the table holds of these.

    Raises:
        Refusal: when the database does not answer.
    """
    about = {
        "symbols": [symbol for (_, symbol), _ in keys],
        "sources": [source for (source, _), _ in keys],
        "minutes": [datetime.fromtimestamp(ts / 1000, UTC) for _, ts in keys],
    }
    async with database.reading() as connection:
        cursor = await connection.execute(SQL["stored_minutes"], about)
        candles = [_candle(row) for row in await cursor.fetchall()]
    return {((candle.source, candle.symbol), candle.ts): candle for candle in candles}


def _candle(row: Sequence[Any]) -> Candle:
    (
        ts, source, symbol, open_, high, low, close, volume, real_volume, spread, first_tick, last_tick, log_name,
        offsets, closed, received_at, folded_at,
    ) = row  # fmt: skip
    return Candle(
        source=source, symbol=symbol, ts=_epoch_ms(ts), open=open_, high=high, low=low, close=close, volume=volume,
        real_volume=real_volume, spread=spread, first_tick=_epoch_ms(first_tick), last_tick=_epoch_ms(last_tick),
        log=log_name, offsets=from_multirange(offsets), closed=closed, received=_epoch_ms(received_at),
        emitted=_epoch_ms(folded_at),
    )  # fmt: skip


def _epoch_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
