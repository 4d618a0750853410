"""One item of `/ingest` to the bar that the broker computed."""

from typing import Any, Final

from marketdata.candle import BrokerBar
from marketdata.contract.items import symbol_of, timeframe_of
from marketdata.contract.numbers import number, quoted, whole
from marketdata.errors import InvalidItem
from producer.clock import Clock
from producer.ticks import read_time

_MAX_COUNT: Final = 2**63 - 1


def read_bar(item: object, source: str, clock: Clock, received_ms: int) -> BrokerBar:
    """The bar in an item (MT5: MqlRates).

    Its time is the bar's opening on the sender's clock, for D1, W1 and MN1 too. A spread that is no whole number of
    points is a price difference of unknown meaning and becomes null.

    Raises:
        InvalidItem: naming the field that cannot be used.
    """
    if not isinstance(item, dict):
        raise InvalidItem("", f"an object is expected, not {quoted(item)}")
    symbol = symbol_of(item.get("symbol"))
    timeframe = timeframe_of(item.get("timeframe"))
    time_ms, _ = read_time(item, clock)
    open_, high, low, close = (_price(item, field) for field in ("open", "high", "low", "close"))
    if high < max(open_, close, low):
        raise InvalidItem("high", "must not be below open, close or low")
    if low > min(open_, close):
        raise InvalidItem("low", "must not be above open or close")
    real_volume = item.get("real_volume")
    return BrokerBar(
        source=source,
        symbol=symbol,
        timeframe=timeframe,
        ts=time_ms,
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=_volume(item),
        real_volume=None if real_volume is None else number(real_volume, "real_volume"),
        spread=_spread(item.get("spread")),
        received=received_ms,
    )


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
