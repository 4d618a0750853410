"""Server-sent events: what the hub hands out, as text."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from dashboard.answers import Refusal, encode
from dashboard.candles import BarStarts
from dashboard.hub import Hub
from dashboard.subscription import Batch, Subscription, Update

#: How often a quiet stream says that it lives (seconds); the page gives up on it after three times as long.
_PING_SECONDS: Final = 5.0

#: A stream sends at most twenty times a second: more is not seen.
_PACE_SECONDS: Final = 0.05


class EventStream(StreamingResponse):
    """The answer to `/stream`; it is subscribed to the hub for exactly as long as it is being sent."""

    def __init__(
        self,
        hub: Hub,
        bars: BarStarts,
        timeframe: str,
        *,
        symbols: frozenset[str] | None,
        source: str | None,
        since: str | None,
        max_streams: int,
    ) -> None:
        # A proxy that collects an answer before it passes it on would hold it for ever.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__((), headers=headers, media_type="text/event-stream")
        self._hub, self._bars, self._timeframe = hub, bars, timeframe
        self._symbols, self._source, self._since = symbols, source, since
        self._max_streams = max_streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the service stops or the client is gone.

        Raises:
            Refusal: 503 when there are as many streams as may be.
        """
        if len(self._hub) >= self._max_streams:
            raise Refusal(
                503, "TOO_MANY_STREAMS", "TICKPIPE_DASHBOARD_MAX_STREAMS live streams are open; close some or raise it",
                Retry_After="10",
            )  # fmt: skip
        subscription = self._hub.subscribe(self._symbols, self._source, self._since)
        try:
            self.body_iterator = events(subscription, self._bars, self._timeframe)
            await super().__call__(scope, receive, send)
        finally:
            self._hub.unsubscribe(subscription)


async def events(subscription: Subscription, bars: BarStarts, timeframe: str) -> AsyncIterator[bytes]:
    """The bytes of a stream until the service stops or the client is gone.

    `candle`: the newest state of a minute with its proof; `bar` is the opening of the bar of `timeframe` that it
    belongs to, null while the database does not tell; `stored`: it is the table's row.
    `stale`: stored candles changed from a minute, and its `bar`, on; read them again. `resync`: read everything again.
    `pipeline`: the state of the pipeline. `ping`: nothing happened. What is sent at once carries the id to resume from.
    """
    # The client learns at once that it is there; without an id, for nothing was sent yet.
    yield b"retry: 1000\n\n" + _event("ping", {})
    while (batch := await subscription.next(_PING_SECONDS)) is not None:
        yield await _text(batch, bars, timeframe)
        await asyncio.sleep(_PACE_SECONDS)


async def _text(batch: Batch, bars: BarStarts, timeframe: str) -> bytes:
    parts = [_event("resync", {})] if batch.resync else []
    for (source, symbol), ts in batch.stale.items():
        bar = await bars.of(timeframe, ts)
        content = {"symbol": symbol, "source": source, "ts": _moment(ts), "bar": None if bar is None else _moment(bar)}
        parts.append(_event("stale", content))
    for update in batch.updates:
        parts.append(_event("candle", _content(update, await bars.of(timeframe, update.candle.ts))))
    if batch.status is not None:
        parts.append(b"event: pipeline\ndata: " + batch.status + b"\n\n")
    # An id is good for all that was sent before it.
    last = parts.pop() if parts else _event("ping", {})
    return b"".join((*parts, f"id: {batch.position}\n".encode(), last))


def _content(update: Update, bar: int | None) -> dict[str, Any]:
    candle = update.candle
    return {
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
        "closed": candle.closed,
        "last_tick": _moment(candle.last_tick),
        "bar": None if bar is None else _moment(bar),
        "stored": update.stored,
        "log": candle.log,
        "offsets": candle.offsets,
    }


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def _event(name: str, content: object) -> bytes:
    return f"event: {name}\ndata: ".encode() + encode(content) + b"\n\n"
