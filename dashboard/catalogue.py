"""Lists symbols and sources: from the database, with a cache, and from the live candles. Tells where days begin."""

import asyncio
import time
from bisect import bisect_right, insort
from collections.abc import Iterable
from datetime import UTC, datetime
from heapq import nlargest
from itertools import islice
from operator import attrgetter, itemgetter
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

#: Listings that are told as the newest: every stream is sent them every few seconds.
NEWEST: Final = 100


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


class Listings:
    """All listings by name, with what is live of them. A page costs what it holds, not what there is."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._stored: dict[Feed, Listing] = {}
        self._digits: dict[Feed, int] = {}
        #: Symbol, source, and what is searched, of every feed.
        self._order: list[tuple[str, str, str]] = []
        self._known: set[Feed] = set()
        self._newest_stored: set[Feed] = set()

    def __bool__(self) -> bool:
        return bool(self._stored)

    def take(self, stored: Iterable[Listing], digits: dict[Feed, int]) -> None:
        """Hold what the database has told instead of what it told before."""
        self._stored = {(listing.source, listing.symbol): listing for listing in stored}
        self._digits = digits
        by_last_tick = attrgetter("last_tick")
        self._newest_stored = {
            (one.source, one.symbol) for one in nlargest(NEWEST, self._stored.values(), by_last_tick)
        }
        self._known = set(self._stored)
        self._order = sorted(_searchable(feed) for feed in self._known)

    def find(self, search: str = "", *, after: str = "", limit: int) -> tuple[list[Listing], str | None]:
        """The first listings behind the symbol `after` whose symbol and source contain `search`, in any case.

        By symbol, the source with the newest candle first. All sources of a symbol come together, so they may be more
        than `limit`. The last symbol is returned as well where others follow.
        """
        self._learn()
        wanted = search.lower()
        found: list[Listing] = []
        last = None
        for symbol, source, text in islice(self._order, bisect_right(self._order, after, key=itemgetter(0)), None):
            if wanted not in text:
                continue
            if len(found) >= limit and symbol != found[-1].symbol:
                last = found[-1].symbol
                break
            found.append(self._listing((source, symbol)))
        return sorted(found, key=lambda listing: (listing.symbol, -listing.last.timestamp(), listing.source)), last

    def newest(self) -> list[Listing]:
        """The `NEWEST` listings that ticked last, by symbol and source."""
        self._learn()
        listings = map(self._listing, self._newest_stored | self._hub.feeds())
        return sorted(nlargest(NEWEST, listings, key=attrgetter("last_tick")))

    def _learn(self) -> None:
        for feed in self._hub.feeds() - self._known:
            self._known.add(feed)
            insort(self._order, _searchable(feed))

    def _listing(self, feed: Feed) -> Listing:
        stored, live = self._stored.get(feed), self._hub.newest_of(feed)
        listing = stored
        if live is not None:
            minute = datetime.fromtimestamp(live.ts / 1000, UTC)
            last_tick = datetime.fromtimestamp(live.last_tick / 1000, UTC)
            if stored is None:
                listing = Listing(live.symbol, live.source, minute, minute, live.close, last_tick)
            elif last_tick >= stored.last_tick:
                listing = stored._replace(last=minute, close=live.close, last_tick=last_tick)
        if listing is None:
            raise LookupError(f"{feed} is neither stored nor live")
        return listing._replace(digits=self._digits.get(feed))


def _searchable(feed: Feed) -> tuple[str, str, str]:
    source, symbol = feed
    return symbol, source, f"{symbol} {source}".lower()


class Catalogue:
    """The listings, cached."""

    def __init__(self, database: Database, hub: Hub) -> None:
        self._database = database
        #: As far as they are known without asking the database.
        self.known = Listings(hub)
        #: None while the database has not answered.
        self.day: TradingDay | None = None
        self._good_until = 0.0
        self._asking = asyncio.Lock()

    async def listings(self) -> Listings:
        """Every symbol and source.

        Raises:
            Refusal: when the database does not answer and never did.
        """
        async with self._asking:
            if time.monotonic() >= self._good_until:
                await self._ask()
        return self.known

    async def _ask(self) -> None:
        started = time.monotonic()
        try:
            async with (
                self._database.reading() as connection,
                connection.cursor(row_factory=class_row(Listing)) as cursor,
            ):
                await cursor.execute(SQL["symbols"])
                stored = await cursor.fetchall()
                instruments = await (await connection.execute(SQL["instruments"])).fetchall()
                row = await (await connection.execute(SQL["trading_day"])).fetchone()
                self.day = TradingDay._make(row) if row is not None else None
                self.known.take(stored, {(source, symbol): decimals_of(point) for source, symbol, point in instruments})
        except Refusal:
            if not self.known:
                raise
        finished = time.monotonic()
        self._good_until = finished + max(_CACHE_SECONDS, _CACHE_TIMES * (finished - started))
