"""One request of the command line to the producer: ticks and bars in the EA's words, and errors with their cure."""

from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec

from marketdata.errors import SettingsError
from marketdata.tick import Tick
from runtime import posting
from runtime.posting import BodyRefused, KeyRefused, NoAnswer, ServerRefused, result_of
from tickpipe.sending.barfile import Bar


class PostedTick(msgspec.Struct, gc=False, omit_defaults=True):
    """A tick as DataCollectorPRO 1.65 posts it."""

    ts: str
    symbol: str
    bid: float
    ask: float
    last: float
    volume: float
    flags: int
    ts_msc: int | None = None
    digits: int | None = None
    point: float | None = None
    spread: float | None = None
    meta: dict[str, str | int] | None = None


def posted(
    tick: Tick, symbol: str, *, digits: int | None = None, point: float | None = None, coarse: bool = False
) -> PostedTick:
    """The tick in the EA's words; `ts` is in whole seconds, `ts_msc` has the milliseconds.

    `coarse` is for times that are known to the second only: no milliseconds are claimed, so that the fold takes equal
    ticks in a row for what they are.
    """
    return PostedTick(
        ts=_iso_second(tick.time_msc // 1000), symbol=symbol, bid=tick.bid, ask=tick.ask, last=tick.last,
        volume=tick.volume, flags=tick.flags, digits=digits, point=point,
        ts_msc=None if coarse and tick.time_msc % 1000 == 0 else tick.time_msc,
    )  # fmt: skip


class PostedBar(msgspec.Struct, gc=False, omit_defaults=True):
    """A bar as an EA posts it to `/ingest`."""

    symbol: str
    timeframe: str
    ts: str
    open: float
    high: float
    low: float
    close: float
    tick_volume: int
    real_volume: float | None = None
    spread: int | None = None


def posted_bar(bar: Bar, symbol: str, timeframe: str) -> PostedBar:
    """The bar in the EA's words."""
    return PostedBar(
        ts=_iso_second(bar.time_msc // 1000), symbol=symbol, timeframe=timeframe, open=bar.open, high=bar.high,
        low=bar.low, close=bar.close, tick_volume=bar.tick_volume, real_volume=bar.real_volume, spread=bar.spread,
    )  # fmt: skip


def _iso_second(epoch_seconds: int) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def post(client: httpx.Client, url: str, body: bytes) -> dict[str, Any]:
    """The producer's answer to one request that it took, wholly, in part (207) or whose every item it rejected (400).

    Raises:
        ServerUnavailable, ServerRefused, SettingsError: as `TickSender.send`.
        BodyTooLarge: when the body has to be split.
    """
    try:
        return result_of(posting.post(client, url, body))
    except NoAnswer as exc:
        raise NoAnswer(f"{exc}; is the producer up?") from exc
    except KeyRefused as exc:
        raise SettingsError(f"{exc}; pass the right one with --key or TICKPIPE_API_KEYS") from exc
    except BodyRefused as exc:
        raise ServerRefused(f"{url} answers 400: {exc}; is this the address of a Tickpipe producer?") from exc
