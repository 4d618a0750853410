"""Live candles from one reader to many streams, each at its own pace.

A stream that is slow does not queue what happened, it holds the newest state of each candle that changed; so it skips
what is past anyway, and its memory has a bound.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from marketdata.candle import Candle
from marketdata.offsets import contains

#: Source and symbol.
Feed = tuple[str, str]

#: Candles that a stream may hold unsent; one that falls further behind is told to read again.
MAX_PENDING: Final = 1_000

#: Minutes of each feed that are remembered: a late tick may move any of them.
_MINUTES_KEPT: Final = 10


@dataclass(slots=True)
class Batch:
    """What a stream has to send next."""

    candles: list[Candle] = field(default_factory=list)
    #: Feeds to the first minute that has to be read again from the database.
    stale: dict[Feed, int] = field(default_factory=dict)
    #: More happened than was kept: everything has to be read again.
    resync: bool = False
    status: bytes | None = None

    def __bool__(self) -> bool:
        return bool(self.candles or self.stale or self.resync or self.status)


class Subscription:
    """One stream's share; `None` selects every symbol or source."""

    def __init__(self, symbols: frozenset[str] | None, source: str | None) -> None:
        self._symbols = symbols
        self._source = source
        self._pending: dict[tuple[Feed, int], Candle] = {}
        self._batch = Batch()
        self._wake = asyncio.Event()
        self._closed = False

    def wants(self, feed: Feed) -> bool:
        """Whether the feed was asked for."""
        source, symbol = feed
        return (self._symbols is None or symbol in self._symbols) and self._source in (None, source)

    def offer(self, candle: Candle) -> bool:
        """Hold a candle until it is sent; False when that is one too many and all of them were dropped."""
        if self._batch.resync:
            return True
        self._pending[((candle.source, candle.symbol), candle.ts)] = candle
        self._wake.set()
        if len(self._pending) <= MAX_PENDING:
            return True
        self._pending.clear()
        self._batch = Batch(resync=True, status=self._batch.status)
        return False

    def offer_stale(self, feed: Feed, ts: int) -> None:
        """Tell that stored candles of the feed changed, from the minute `ts` on."""
        self._batch.stale[feed] = min(ts, self._batch.stale.get(feed, ts))
        self._wake.set()

    def offer_status(self, status: bytes) -> None:
        """Hold the newest status of the pipeline."""
        self._batch.status = status
        self._wake.set()

    def end(self) -> None:
        """Let the stream finish."""
        self._closed = True
        self._wake.set()

    async def next(self, timeout_seconds: float) -> Batch | None:
        """What is to be sent, an empty batch when nothing happened in time, None when the stream is to finish."""
        if not self._wake.is_set():
            try:
                await asyncio.wait_for(self._wake.wait(), timeout_seconds)
            except TimeoutError:
                return Batch()
        if self._closed:
            return None
        batch, self._batch = self._batch, Batch()
        batch.candles = list(self._pending.values())
        self._pending.clear()
        self._wake.clear()
        return batch


class Hub:
    """The newest minutes of every feed, and the streams that follow them."""

    def __init__(self, on_resync: Callable[[], None] = lambda: None) -> None:
        self._feeds: dict[Feed, dict[int, Candle]] = {}
        self._subscriptions: set[Subscription] = set()
        self._on_resync = on_resync

    def __len__(self) -> int:
        return len(self._subscriptions)

    def newest(self) -> dict[Feed, Candle]:
        """The newest candle of each feed."""
        return {feed: minutes[max(minutes)] for feed, minutes in self._feeds.items()}

    def subscribe(self, symbols: frozenset[str] | None = None, source: str | None = None) -> Subscription:
        """A subscription that begins with what is remembered of its feeds."""
        subscription = Subscription(symbols, source)
        for feed, minutes in self._feeds.items():
            if subscription.wants(feed):
                for _, candle in sorted(minutes.items()):
                    subscription.offer(candle)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a stream that ended."""
        self._subscriptions.discard(subscription)

    def publish(self, candle: Candle) -> int:
        """Hand a candle to the streams, unless it tells less than one before it.

        Candles are kept by their offsets, never by arrival. Returns the number of ticks that it adds.
        """
        feed = (candle.source, candle.symbol)
        minutes = self._feeds.setdefault(feed, {})
        before = minutes.get(candle.ts)
        if before is not None and candle.log == before.log:
            if contains(before.offsets, candle.offsets) and before.offsets != candle.offsets:
                if before.closed or not candle.closed:
                    return 0
                candle = msgspec.structs.replace(before, closed=True)
            elif not contains(candle.offsets, before.offsets):
                # Neither holds the other: the sink folds both together and writes that to the database alone.
                for subscription in self._subscriptions:
                    if subscription.wants(feed):
                        subscription.offer_stale(feed, candle.ts)
                return 0
        elif before is not None and candle.volume < before.volume:
            return 0
        # Of a minute that is long past it is not known how many of its ticks are new.
        is_past = before is None and len(minutes) == _MINUTES_KEPT and candle.ts < min(minutes)
        if not is_past:
            minutes[candle.ts] = candle
            while len(minutes) > _MINUTES_KEPT:
                del minutes[min(minutes)]
        for subscription in self._subscriptions:
            if subscription.wants(feed) and not subscription.offer(candle):
                self._on_resync()
        return 0 if is_past else candle.volume - (before.volume if before is not None else 0)

    def broadcast(self, status: bytes) -> None:
        """Hand the pipeline's status to every stream."""
        for subscription in self._subscriptions:
            subscription.offer_status(status)

    def close(self) -> None:
        """Let every stream finish."""
        for subscription in self._subscriptions:
            subscription.end()
