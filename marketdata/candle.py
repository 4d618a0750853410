"""One candle, with the set of log offsets it was folded from: its proof."""

from typing import Annotated

from msgspec import Meta, Struct

from marketdata.offsets import Ranges
from marketdata.tick import TimeMsc


class Candle(Struct, frozen=True, gc=False, kw_only=True):
    """A fold of the ticks that the offsets hold of one source, symbol and period."""

    source: Annotated[str, Meta(min_length=1, max_length=64)]
    symbol: Annotated[str, Meta(min_length=1, max_length=32)]
    #: The name of the timeframe that ticks are folded into (marketdata/timeframes.py).
    timeframe: Annotated[str, Meta(min_length=1, max_length=8)] = "M1"
    #: Start of the period (UTC epoch milliseconds).
    ts: TimeMsc
    open: float
    high: float
    low: float
    close: float
    #: Number of ticks, those without a usable price included (MT5: tick_volume).
    volume: int
    #: Sum of the ticks' volumes.
    real_volume: float
    #: Lowest ask − bid in points; null when the size of a point, or one of the prices, is unknown.
    spread: int | None
    #: Times of the earliest and the latest tick (UTC epoch milliseconds).
    first_tick: TimeMsc
    last_tick: TimeMsc
    #: The log that the offsets belong to, see `runtime.log_identity.own_log`.
    log: str
    #: `[[partition, first, last], …]`.
    offsets: Ranges
    #: Whether the period was over, by the clock of its symbol, when this was folded.
    closed: bool
    #: When the producer took the newest tick, and when this candle was published (UTC epoch milliseconds).
    received: TimeMsc
    emitted: TimeMsc


#: What verify compares: everything that the log alone determines.
PROVEN_FIELDS = (
    "open", "high", "low", "close", "volume", "real_volume", "spread", "first_tick", "last_tick", "received",
)  # fmt: skip


class BrokerBar(Struct, frozen=True, gc=False, kw_only=True):
    """A bar that the broker itself computed, as posted to `/ingest` (MT5: MqlRates)."""

    source: Annotated[str, Meta(min_length=1, max_length=64)]
    symbol: Annotated[str, Meta(min_length=1, max_length=32)]
    #: One of `marketdata.timeframes.TIMEFRAMES`.
    timeframe: Annotated[str, Meta(min_length=1, max_length=8)]
    #: Opening time (UTC epoch milliseconds).
    ts: TimeMsc
    open: float
    high: float
    low: float
    close: float
    #: Tick volume.
    volume: int
    real_volume: float | None = None
    spread: int | None = None
    #: Whether its period was over when the broker's bar was read.
    closed: bool = True
    #: When the producer took the request (UTC epoch milliseconds).
    received: TimeMsc
