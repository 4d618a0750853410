"""One tick of MetaTrader 5, and the frame: the ticks of one source and symbol from one request."""

from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

#: A minute (milliseconds).
MINUTE_MS = 60_000

#: A day of 24 hours (milliseconds).
DAY_MS = 1_440 * MINUTE_MS

#: Last millisecond of the year 9999: what every datetime type on the way can hold.
MAX_TIME_MSC = 253_402_300_799_999

#: Largest price, and the negative of the smallest: beyond it a double has no digit left behind the point, and sums of
#: prices come out infinite.
MAX_PRICE = 1e15

#: Price that draws the chart (MT5: SYMBOL_CHART_MODE_BID, SYMBOL_CHART_MODE_LAST).
ChartMode = Literal["bid", "last"]

#: MT5: TICK_FLAG_LAST, TICK_FLAG_VOLUME, TICK_FLAG_BUY, TICK_FLAG_SELL; with TICK_FLAG_BID and TICK_FLAG_ASK all that
#: are documented.
_DEAL_FLAGS = 8 | 16 | 32 | 64
_FLAGS = 2 | 4 | _DEAL_FLAGS

TimeMsc = Annotated[int, Meta(ge=0, le=MAX_TIME_MSC)]


class Tick(Struct, array_like=True, frozen=True, gc=False):
    """One tick (MT5: MqlTick). Two ticks are equal when all six fields are."""

    #: UTC epoch milliseconds, after the zone of the source was applied.
    time_msc: TimeMsc
    bid: float
    ask: float
    #: Price of the last deal; 0.0 where the instrument has none (forex).
    last: float
    #: Volume of the last deal (MT5: volume_real).
    volume: float
    #: Bit mask of what changed, with undocumented bits: test bits, never compare.
    flags: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Frame(Struct, gc=False, omit_defaults=True, kw_only=True):
    """One record of the ticks topic: the ticks of one source and symbol from one request."""

    #: Version of this encoding; always written.
    v: Literal[1]
    source: Annotated[str, Meta(min_length=1, max_length=64)]
    symbol: Annotated[str, Meta(min_length=1, max_length=32)]
    mode: ChartMode
    #: Size of a point, in price units; null when the sender did not say.
    point: Annotated[float, Meta(gt=0)] | None
    request: str
    #: When the producer took the request (UTC epoch milliseconds).
    received: TimeMsc
    ticks: Annotated[list[Tick], Meta(min_length=1)]
    #: The sender's times are whole seconds, so that equal ticks in a row are ordinary.
    coarse: bool = False


def period_of(time_msc: int, width_ms: int = MINUTE_MS) -> int:
    """Start of the period of `width_ms` that holds `time_msc` (UTC epoch milliseconds)."""
    return time_msc - time_msc % width_ms


def is_deal(tick: Tick) -> bool:
    """Whether the tick's last price and volume are those of a deal, not repeated from an earlier one."""
    return bool(tick.flags & _DEAL_FLAGS) or not tick.flags & _FLAGS


def same(tick: Tick) -> Tick:
    """What two ticks have in common when they are the same one: all fields, and of the flags the documented bits.

    Live ticks have others (1030 was seen) that the history of the same tick lacks.
    """
    flags = tick.flags & _FLAGS
    if flags == tick.flags:
        return tick
    return replace(tick, flags=flags)
