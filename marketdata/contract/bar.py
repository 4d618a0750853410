"""A bar that a broker computed, as senders write it: `PostedBar` is what ours write, `read_bar` what anybody may."""

from typing import Annotated, Any, Final, NamedTuple

from msgspec import UNSET, Meta, Struct, UnsetType

from marketdata.candle import BrokerBar
from marketdata.contract.names import symbol_of, timeframe_of
from marketdata.contract.numbers import number, quoted, whole
from marketdata.contract.times import Time, time_of
from marketdata.errors import InvalidItem
from marketdata.timeframes import TIMEFRAMES

_MAX_COUNT: Final = 2**63 - 1

_Price = Annotated[float, Meta(gt=0)]
_Count = Annotated[int, Meta(ge=0)]
_TimeframeName = Annotated[str, Meta(extra_json_schema={"enum": list(TIMEFRAMES)})]


class PostedBar(Struct, gc=False):
    """A bar that the broker computed (MT5: MqlRates); `volume` or `tick_volume` must be there."""

    symbol: Annotated[str, Meta(description="1 to 32 printable characters")]
    timeframe: _TimeframeName
    ts: Annotated[str | int, Meta(description="opening time on the sender's clock: ISO-8601 or epoch milliseconds")]
    open: _Price
    high: _Price
    low: _Price
    close: _Price
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
    if high < max(open_, close, low):
        raise InvalidItem("high", "must not be below open, close or low")
    if low > min(open_, close):
        raise InvalidItem("low", "must not be above open or close")
    real_volume = item.get("real_volume")
    return ReadBar(
        symbol, timeframe, time, open_, high, low, close, _volume(item),
        None if real_volume is None else number(real_volume, "real_volume"), _spread(item.get("spread")),
    )  # fmt: skip


def _price(item: dict[str, Any], field: str) -> float:
    value = item.get(field)
    if value is None:
        raise InvalidItem(field, "missing")
    price = number(value, field)
    if not price:
        raise InvalidItem(field, "must be above 0")
    return price


def _volume(item: dict[str, Any]) -> int:
    field = "volume" if item.get("tick_volume") is None else "tick_volume"
    value = item.get(field)
    if value is None:
        raise InvalidItem(field, "missing")
    return whole(value, field, _MAX_COUNT)


def _spread(value: object) -> int | None:
    if value is None:
        return None
    spread = number(value, "spread")
    if not spread.is_integer():
        return None
    return whole(value, "spread", 2**31 - 1)
