"""Lists symbols and sources: from the database, with a cache, and from the live candles. Tells where days begin."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Final, NamedTuple

from psycopg.rows import class_row

from dashboard.answers import Refusal
from dashboard.database import SQL, Database
from dashboard.hub import Hub
from dashboard.stream import Feed
from marketdata.wire import decimals_of

#: An answer is cached for this long (seconds) or so many times as long as the query took, whichever is longer.
_CACHE_SECONDS: Final = 5.0
_CACHE_TIMES: Final = 50


class Listing(NamedTuple):
    """One symbol of one source."""

    symbol: str
    source: str
    #: Openings of its first and its newest minute.
    first: datetime
    last: datetime
    #: Price and time of the newest tick.
    close: float
    last_tick: datetime
    #: The close of the trading day before that of its newest minute; None without one within two weeks.
    previous_close: float | None = None
    #: Decimals of its prices, if its sender says them.
    digits: int | None = None


class TradingDay(NamedTuple):
    """The clock on which the days of longer bars begin at 0:00: that of a zone, shifted."""

    zone: str
    #: Later than the zone's clock by so much: 25,200,000 where days begin at 17:00 the evening before.
    shift_ms: int


class Catalogue:
    """The listings, cached."""

    def __init__(self, database: Database, hub: Hub) -> None:
        self._database = database
        self._hub = hub
        self._stored: list[Listing] = []
        self._digits: dict[Feed, int] = {}
        #: None while the database has not answered.
        self.day: TradingDay | None = None
        self._good_until = 0.0
        self._asking = asyncio.Lock()

    async def listings(self) -> list[Listing]:
        """Every symbol and source, by symbol, the source with the newest candle first.

        Raises:
            Refusal: when the database does not answer and never did.
        """
        async with self._asking:
            if time.monotonic() >= self._good_until:
                await self._ask()
        return self.live()

    def live(self) -> list[Listing]:
        """The listings as far as they are known without asking the database."""
        return self._with_live(self._stored)

    async def _ask(self) -> None:
        started = time.monotonic()
        try:
            async with (
                self._database.reading() as connection,
                connection.cursor(row_factory=class_row(Listing)) as cursor,
            ):
                await cursor.execute(SQL["symbols"])
                self._stored = await cursor.fetchall()
                instruments = await (await connection.execute(SQL["instruments"])).fetchall()
                row = await (await connection.execute(SQL["trading_day"])).fetchone()
                self.day = TradingDay._make(row) if row is not None else None
                self._digits = {(source, symbol): decimals_of(point) for source, symbol, point in instruments}
        except Refusal:
            if not self._stored:
                raise
        finished = time.monotonic()
        self._good_until = finished + max(_CACHE_SECONDS, _CACHE_TIMES * (finished - started))

    def _with_live(self, stored: list[Listing]) -> list[Listing]:
        listings = {(listing.source, listing.symbol): listing for listing in stored}
        for feed, candle in self._hub.newest().items():
            minute = datetime.fromtimestamp(candle.ts / 1000, UTC)
            last_tick = datetime.fromtimestamp(candle.last_tick / 1000, UTC)
            known = listings.get(feed)
            if known is None:
                listings[feed] = Listing(candle.symbol, candle.source, minute, minute, candle.close, last_tick)
            elif last_tick >= known.last_tick:
                listings[feed] = known._replace(last=minute, close=candle.close, last_tick=last_tick)
        digits = self._digits
        return sorted(
            (listing._replace(digits=digits.get(feed)) for feed, listing in listings.items()),
            key=lambda listing: (listing.symbol, -listing.last.timestamp(), listing.source),
        )
