"""One live stream: the changes that wait to be sent, and the server-sent events made of them.

A slow stream queues no history. It holds the newest state of each candle that changed, so its memory is bounded.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple

from dashboard.answers import encode
from dashboard.candles import Bar, BarStarts
from marketdata.candle import Candle
from runtime.service import pause_after

#: Source and symbol.
Feed = tuple[str, str]

#: A proxy that buffers answers would hold these for ever.
STREAM_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

#: Candles that a stream may hold unsent; one that falls further behind is told to read again.
MAX_PENDING: Final = 1_000

#: A quiet stream is sent a ping this often (seconds); the page gives up on it after three times as long.
_PING_SECONDS: Final = 5.0

#: Longest pause between two sendings of a stream (seconds): when many candles move for many streams, each sends
#: twenty times a second.
_PACE_SECONDS: Final = 0.05


class Update(NamedTuple):
    """The state of a minute as clients are sent it."""

    candle: Candle
    #: Whether this is the row of the table, so that what is read from now on holds it.
    stored: bool


@dataclass(slots=True)
class Batch:
    """What a stream has to send next."""

    #: Where the stream is when it has sent this: what it is resumed from.
    position: str
    updates: list[Update] = field(default_factory=list)
    #: Feeds to the first minute that has to be read again from the database.
    stale: dict[Feed, int] = field(default_factory=dict)
    #: More changed than a stream may hold: everything has to be read again.
    resync: bool = False
    status: bytes | None = None

    def __bool__(self) -> bool:
        return bool(self.updates or self.stale or self.resync or self.status)


class Subscription:
    """The unsent changes of one stream; `None` selects every symbol or source."""

    def __init__(
        self,
        position: Callable[[], str],
        streams: Callable[[], int],
        symbols: frozenset[str] | None,
        source: str | None,
    ) -> None:
        self._position = position
        self._streams = streams
        self._symbols = symbols
        self._source = source
        self._pending: dict[tuple[Feed, int], Update] = {}
        self._stale: dict[Feed, int] = {}
        self._resync = False
        self._status: bytes | None = None
        self._wake = asyncio.Event()
        self._closed = False

    def wants(self, feed: Feed) -> bool:
        """Whether the feed was asked for."""
        source, symbol = feed
        return (self._symbols is None or symbol in self._symbols) and self._source in (None, source)

    def offer(self, update: Update) -> bool:
        """Hold a candle until it is sent; False when that is one too many and all of them were dropped."""
        if self._resync:
            return True
        candle = update.candle
        key = ((candle.source, candle.symbol), candle.ts)
        # In the order of the last change.
        self._pending.pop(key, None)
        self._pending[key] = update
        self._wake.set()
        if len(self._pending) <= MAX_PENDING:
            return True
        self.offer_resync()
        return False

    def offer_stale(self, feed: Feed, ts: int) -> None:
        """Note that stored candles of the feed changed, from the minute `ts` on."""
        if not self._resync:
            self._stale[feed] = min(ts, self._stale.get(feed, ts))
            self._wake.set()

    def offer_resync(self) -> None:
        """Note that everything has to be read again, and drop what waits."""
        self._pending.clear()
        self._stale.clear()
        self._resync = True
        self._wake.set()

    def offer_status(self, status: bytes) -> None:
        """Hold the newest status of the pipeline."""
        self._status = status
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
                if not self._wake.is_set():
                    return Batch(self._position())
        if self._closed:
            return None
        batch = Batch(self._position(), list(self._pending.values()), self._stale, self._resync, self._status)
        self._pending.clear()
        self._stale, self._resync, self._status = {}, False, None
        self._wake.clear()
        return batch

    def pause_seconds(self, batch: Batch) -> float:
        """How long to wait once the batch was sent: the longer, the more events all streams together send."""
        return pause_after(len(batch.updates) * self._streams(), _PACE_SECONDS)


async def events(subscription: Subscription, bars: BarStarts, timeframe: str) -> AsyncIterator[bytes]:
    """The bytes of a stream until the service stops or the client is gone.

    `candle`: the newest state of a minute with its proof; `bar` and `bar_end` bound the bar of `timeframe`
    that it belongs to, null while the database does not answer; `stored`: it is the table's row; `bid` and `ask`:
    those of its newest tick, null where they are not known.
    `stale`: stored candles changed from a minute, and its `bar`, on; read them again. `resync`: read everything again.
    `pipeline`: the state of the pipeline. `ping`: nothing happened. What is sent at once carries the id to resume from.
    """
    # Tells the client at once that the stream is open; without an id, because nothing was sent yet.
    yield b"retry: 1000\n\n" + event("ping", {})
    while (batch := await subscription.next(_PING_SECONDS)) is not None:
        yield await _text(batch, bars, timeframe)
        await asyncio.sleep(subscription.pause_seconds(batch))


async def _text(batch: Batch, bars: BarStarts, timeframe: str) -> bytes:
    parts = [event("resync", {})] if batch.resync else []
    for (source, symbol), ts in batch.stale.items():
        bar = await bars.of(timeframe, ts)
        opening = None if bar is None else _moment(bar.starts)
        content = {"symbol": symbol, "source": source, "ts": _moment(ts), "bar": opening}
        parts.append(event("stale", content))
    for update in batch.updates:
        parts.append(_candle_event(update, await bars.of(timeframe, update.candle.ts)))
    if batch.status is not None:
        parts.append(b"event: pipeline\ndata: " + batch.status + b"\n\n")
    # An id covers everything that was sent before it.
    last = parts.pop() if parts else event("ping", {})
    return b"".join((*parts, f"id: {batch.position}\n".encode(), last))


@lru_cache(MAX_PENDING)
def _candle_event(update: Update, bar: Bar | None) -> bytes:
    # The same for every stream of a timeframe.
    candle = update.candle
    content = {
        "symbol": candle.symbol,
        "source": candle.source,
        "ts": _moment(candle.ts),
        "open": candle.open,
        "high": candle.high,
        "low": candle.low,
        "close": candle.close,
        "volume": candle.volume,
        "real_volume": candle.real_volume,
        "spread": candle.spread,
        "bid": candle.bid,
        "ask": candle.ask,
        "closed": candle.closed,
        "last_tick": _moment(candle.last_tick),
        "bar": None if bar is None else _moment(bar.starts),
        "bar_end": None if bar is None else _moment(bar.ends),
        "stored": update.stored,
        "log": candle.log,
        "offsets": candle.offsets,
        "received_at": _moment(candle.received),
    }
    return event("candle", content)


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def event(name: str, content: object) -> bytes:
    """One server-sent event."""
    return f"event: {name}\ndata: ".encode() + encode(content) + b"\n\n"
