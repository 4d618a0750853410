"""Server-sent events: what the hub hands out, as text."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from dashboard.answers import Refusal, encode
from dashboard.hub import Batch, Hub, Subscription
from dashboard.timeframes import BarStarts
from marketdata.candle import Candle

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
        max_streams: int,
    ) -> None:
        # A proxy that collects an answer before it passes it on would hold it for ever.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__((), headers=headers, media_type="text/event-stream")
        self._hub, self._bars, self._timeframe = hub, bars, timeframe
        self._symbols, self._source = symbols, source
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
        subscription = self._hub.subscribe(self._symbols, self._source)
        try:
            self.body_iterator = events(subscription, self._bars, self._timeframe)
            await super().__call__(scope, receive, send)
        finally:
            self._hub.unsubscribe(subscription)


async def events(subscription: Subscription, bars: BarStarts, timeframe: str) -> AsyncIterator[bytes]:
    """The bytes of a stream until the service stops or the client is gone.

    `candle`: the newest state of a minute; `bar` is the opening of the bar of `timeframe` that it belongs to, null
    while the database does not tell.
    `stale`: stored candles changed from a minute on, read them again. `resync`: read everything again. `pipeline`: the
    state of the pipeline. `ping`: nothing happened.
    """
    yield b"retry: 1000\n\n" + _event("ping", {})
    while (batch := await subscription.next(_PING_SECONDS)) is not None:
        yield await _text(batch, bars, timeframe) if batch else _event("ping", {})
        await asyncio.sleep(_PACE_SECONDS)


async def _text(batch: Batch, bars: BarStarts, timeframe: str) -> bytes:
    parts = [_event("resync", {})] if batch.resync else []
    for (source, symbol), ts in batch.stale.items():
        parts.append(_event("stale", {"symbol": symbol, "source": source, "ts": _moment(ts)}))
    for candle in batch.candles:
        parts.append(_event("candle", _content(candle, await bars.of(timeframe, candle.ts))))
    if batch.status is not None:
        parts.append(b"event: pipeline\ndata: " + batch.status + b"\n\n")
    return b"".join(parts)


def _content(candle: Candle, bar: int | None) -> dict[str, Any]:
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
    }


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def _event(name: str, content: object) -> bytes:
    return f"event: {name}\ndata: ".encode() + encode(content) + b"\n\n"
