"""A bar that a broker computed, as senders write it: `PostedBar` is what ours write, `read_bar` what anybody may."""

from math import isfinite
from typing import Annotated, Any, Final, NamedTuple

from msgspec import UNSET, Meta, Struct, UnsetType

from marketdata.candle import BrokerBar
from marketdata.contract.names import symbol_of, timeframe_of
from marketdata.contract.numbers import finite, number, quoted, whole
from marketdata.contract.tick import point_of
from marketdata.contract.times import Time, time_of
from marketdata.errors import InvalidItem
from marketdata.timeframes import TIMEFRAMES

_MAX_COUNT: Final = 2**63 - 1
_MAX_SPREAD: Final = 2**31 - 1

_Count = Annotated[int, Meta(ge=0)]
_TimeframeName = Annotated[str, Meta(extra_json_schema={"enum": list(TIMEFRAMES)})]


class PostedBar(Struct, gc=False):
    """A bar that the broker computed (MT5: MqlRates); `volume` or `tick_volume` must be there."""

    symbol: Annotated[str, Meta(description="1 to 32 printable characters")]
    timeframe: _TimeframeName
    ts: Annotated[str | int, Meta(description="opening time on the sender's clock: ISO-8601 or epoch milliseconds")]
    open: float
    high: float
    low: float
    close: float
    tick_volume: _Count | UnsetType = UNSET
    volume: Annotated[_Count, Meta(description="the tick volume by its other name")] | UnsetType = UNSET
    real_volume: Annotated[float | None, Meta(description="volume of the deals")] | UnsetType = UNSET
    spread: Annotated[_Count | None, Meta(description="points")] | UnsetType = UNSET


class ReadBar(NamedTuple):
    """A bar; its time is the opening, for D1, W1 and MN1 too."""

    symbol: str
    timeframe: str
    time: Time
    open: float
    high: float
    low: float
    close: float
    #: Ticks.
    volume: int
    real_volume: float | None
    #: Points.
    spread: int | None

    def of(self, source: str, ts: int, received_ms: int) -> BrokerBar:
        """The bar of a source, that opened at `ts` (both times UTC epoch milliseconds)."""
        return BrokerBar(
            source=source, symbol=self.symbol, timeframe=self.timeframe, ts=ts, open=self.open, high=self.high,
            low=self.low, close=self.close, volume=self.volume, real_volume=self.real_volume, spread=self.spread,
            received=received_ms,
        )  # fmt: skip


def read_bar(item: object) -> ReadBar:
    """The bar in an item.

    A spread that is no whole number of points is a price difference of unknown meaning and becomes null.

    Raises:
        InvalidItem: naming the field that cannot be used.
    """
    if not isinstance(item, dict):
        raise InvalidItem("", f"an object is expected, not {quoted(item)}")
    symbol = symbol_of(item.get("symbol"))
    timeframe = timeframe_of(item.get("timeframe"))
    time = time_of(item)
    open_, high, low, close = (_price(item, field) for field in ("open", "high", "low", "close"))
    volume, real_volume = _volumes(item)
    check_prices(open_, high, low, close, volume)
    return ReadBar(symbol, timeframe, time, open_, high, low, close, volume, real_volume, _spread(item))


def check_prices(open_: float, high: float, low: float, close: float, ticks: int) -> None:
    """Whether these are the prices of one bar.

    Raises:
        InvalidItem: when they are not.
    """
    for field, price in (("open", open_), ("high", high), ("low", low), ("close", close)):
        if not price or not isfinite(price):
            raise InvalidItem(field, "must be a finite number other than 0")
    if high < max(open_, close, low):
        raise InvalidItem("high", "must not be below open, close or low")
    if low > min(open_, close):
        raise InvalidItem("low", "must not be above open or close")
    if low < 0 and not ticks:
        # Data sites fill a missing price with -0.0001; where a price really was negative, there were ticks.
        raise InvalidItem("low", "a negative price in a bar without ticks")


def _price(item: dict[str, Any], field: str) -> float:
    value = item.get(field)
    if value is None:
        raise InvalidItem(field, "missing")
    return finite(value, field)


def _volumes(item: dict[str, Any]) -> tuple[int, float | None]:
    """Number of ticks, and volume of the deals; a fraction is never a number of ticks."""
    field = "volume" if item.get("tick_volume") is None else "tick_volume"
    value = item.get(field)
    if value is None:
        raise InvalidItem(field, "missing")
    real_volume = None if (said := item.get("real_volume")) is None else number(said, "real_volume")
    if field == "volume" and not (amount := number(value, field)).is_integer():
        return 0, amount if real_volume is None else real_volume
    return whole(value, field, _MAX_COUNT), real_volume


def _spread(item: dict[str, Any]) -> int | None:
    """Points. What is written as a fraction, such as 1.00 for gold, is a price difference."""
    value = item.get("spread")
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return None  # it is not needed: one that could not be computed is none
    spread = number(value, "spread")
    if isinstance(value, float) or (isinstance(value, str) and not value.strip().isdecimal()):
        point = point_of(item)
        return round(spread / point) if point and spread / point < _MAX_SPREAD else None
    return whole(value, "spread", _MAX_SPREAD)
