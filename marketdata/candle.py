"""A candle with the log offsets it was folded from (its proof), a broker's bar, and the invariants of both.

The CHECK constraints of `market_data` and `broker_bars` state the same, as far as a single row can tell.
"""

from math import inf
from typing import Annotated, Final

from msgspec import Meta, Struct

from marketdata.errors import InvalidCandle
from marketdata.offsets import MAX_OFFSET, MAX_PARTITION, Ranges
from marketdata.tick import MAX_PRICE, TimeMsc
from marketdata.timeframes import FOLDABLE, TIMEFRAMES

#: 2100-01-01 UTC: no log of today holds ticks of later, and every longer bar ends at a time that datetimes can hold
#: (epoch milliseconds).
_END_MS: Final = 4_102_444_800_000

#: Zones are whole quarters of an hour from UTC, so bars longer than that begin on a quarter (milliseconds).
_WIDEST_GRID_MS: Final = 15 * 60_000

_MAX_VOLUME: Final = 2**63 - 1

#: Length of the periods that ticks can be folded into (milliseconds).
_WIDTHS_MS: Final = {name: timeframe.base_width_ms for name, timeframe in FOLDABLE.items()}


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
    #: Number of ticks (MT5: tick_volume), those without a usable price included; charted by last, number of deals.
    volume: int
    #: Sum of the ticks' volumes.
    real_volume: float
    #: Lowest ask − bid in points; null when the size of a point, or one of the prices, is unknown.
    spread: int | None
    #: Times of the earliest and the latest tick (UTC epoch milliseconds).
    first_tick: TimeMsc
    last_tick: TimeMsc
    #: The log that the offsets belong to, see `runtime.logreader.own_log`.
    log: str
    #: `[[partition, first, last], …]`.
    offsets: Ranges
    #: Whether the period was over, by the clock of its symbol, when this was folded.
    closed: bool
    #: When the producer took the newest tick, and when this candle was published (UTC epoch milliseconds).
    received: TimeMsc
    emitted: TimeMsc
    #: Prices of the newest tick, those that it has: what is quoted now. They are not stored.
    bid: float | None = None
    ask: float | None = None


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


def check_candle(candle: Candle) -> None:
    """Raise `InvalidCandle` unless the candle can be a fold of ticks.

    Prices may be negative, as oil's was in 2020.
    """
    if (width_ms := _WIDTHS_MS.get(candle.timeframe)) is None:
        raise InvalidCandle(f"ticks cannot be folded into {candle.timeframe!r}")
    _check_values(candle)
    if not 1 <= candle.volume <= _MAX_VOLUME:
        raise InvalidCandle(f"{candle.volume} ticks: a candle has at least one")
    if candle.ts % width_ms or not 0 <= candle.ts < _END_MS:
        raise InvalidCandle(f"{candle.ts} is no start of a period of {candle.timeframe} before the year 2100")
    if not candle.ts <= candle.first_tick <= candle.last_tick < candle.ts + width_ms:
        raise InvalidCandle("its ticks lie outside of its period, or the last before the first")
    if not candle.log:
        raise InvalidCandle("it names no log")
    # Nearly all have one range.
    if len(candle.offsets) == 1:
        [(partition, first, last)] = candle.offsets
        are_ranges = 0 <= partition <= MAX_PARTITION and 0 <= first <= last <= MAX_OFFSET
    else:
        are_ranges = _are_ranges(candle.offsets)
    if not are_ranges:
        raise InvalidCandle("its offsets are no ascending ranges with gaps between them")


def check_bar(bar: BrokerBar) -> None:
    """Raise `InvalidCandle` unless the bar can be one that a broker computed.

    Prices may be negative, as oil's was in 2020.
    """
    if (timeframe := TIMEFRAMES.get(bar.timeframe)) is None:
        raise InvalidCandle(f"{bar.timeframe!r} is no timeframe; there are {', '.join(TIMEFRAMES)}")
    _check_values(bar)
    if not 0 <= bar.volume <= _MAX_VOLUME:
        raise InvalidCandle(f"{bar.volume} ticks")
    grid_ms = min(timeframe.width_ms or _WIDEST_GRID_MS, _WIDEST_GRID_MS)
    if bar.ts % grid_ms or not 0 <= bar.ts < _END_MS:
        raise InvalidCandle(f"{bar.ts} is no start of a bar of {bar.timeframe} before the year 2100")


def _check_values(of: Candle | BrokerBar) -> None:
    low, high = of.low, of.high
    if not (-MAX_PRICE <= low <= of.open <= high <= MAX_PRICE and low <= of.close <= high):
        raise InvalidCandle("its prices are beyond 10^15, or not between its low and its high")
    if (real_volume := of.real_volume) is not None and not 0 <= real_volume < inf:
        raise InvalidCandle(f"its real volume is {real_volume}")


def _are_ranges(offsets: Ranges) -> bool:
    before = (-1, 0)
    for partition, first, last in offsets:
        if not (0 <= partition <= MAX_PARTITION and 0 <= first <= last <= MAX_OFFSET):
            return False
        if partition < before[0] or (partition == before[0] and first <= before[1] + 1):
            return False
        before = (partition, last)
    return bool(offsets)
