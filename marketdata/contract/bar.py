"""A bar that a broker computed, as senders write it: `PostedBar` is what ours write, `read_bar` reads anybody's."""

from calendar import monthrange
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from math import isfinite
from typing import Annotated, Any, Final, NamedTuple

from msgspec import UNSET, Meta, Struct, UnsetType

from marketdata.candle import BrokerBar
from marketdata.contract.fields import (
    finite,
    is_said,
    number,
    price,
    quoted,
    symbol_of,
    timeframe_of,
    whole,
    with_names,
)
from marketdata.contract.tick import point_of
from marketdata.contract.times import Clock, Instant, Time, says_time, time_in, time_of
from marketdata.errors import InvalidItem
from marketdata.tick import DAY_MS
from marketdata.timeframes import TIMEFRAMES

#: The field of `meta` in which a collector states when the bar opened.
BAR_TIME: Final = "bar_time"

#: The fields in which senders state whether a bar is over, and the values that mean it is not.
_CLOSED_FIELDS: Final = ("closed", "complete", "is_closed")
_NO: Final = (False, 0, "0", "false")

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
    spread: Annotated[int | None, Meta(description="points, negative where the ask was below the bid")] | UnsetType = (
        UNSET
    )


class ReadBar(NamedTuple):
    """A bar as its sender states it."""

    symbol: str
    timeframe: str
    #: The opening, for D1, W1 and MN1 too.
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
    #: When the sender got the last tick in it, and when it read the bar, as far as it states that.
    last_tick: Time | None
    collected_at: Time | None
    #: Its sender stated that it was still open.
    is_open: bool

    @property
    def seen(self) -> tuple[Time, ...]:
        """When the bar was still open, if these lie in its period."""
        return tuple(time for time in (self.last_tick, self.collected_at) if time is not None)

    def opening(self, clock: Clock) -> Time:
        """When the bar opened; a time at which its sender read it is rounded down.

        A collector that only stamps the time of the reading sends a quiet symbol's bar on in periods in which nothing
        ticks: such a bar is that of its last tick.

        Raises:
            InvalidItem: when bars of its timeframe do not open then by the sender's clock, or it is beyond the limits.
        """
        clock.utc_ms(self.time)
        time = self.time
        if self._is_stale(clock):
            time = self.last_tick or time
            clock.utc_ms(time)
        if isinstance(time, Instant) and not clock.is_known:
            return time  # bars open by a clock that only the server knows
        wall_ms = clock.wall_ms(time)
        opening_ms = opening_of(wall_ms, self.timeframe)
        if opening_ms == wall_ms:
            return time
        if self.seen:
            return type(time)(time.ms - (wall_ms - opening_ms), time.coarse, time.field)
        why = f"no bar of {self.timeframe} opens then"
        if isinstance(time, Instant):
            shown = datetime.fromtimestamp(wall_ms // 1000, UTC)
            why += f" by the clock of the source, which shows {shown:%H:%M:%S}; is its zone right?"
        else:
            why += "; its time is that of its opening"
        raise InvalidItem(time.field, why)

    def _is_stale(self, clock: Clock) -> bool:
        if self.last_tick is None or self.collected_at is None or self.time.field == BAR_TIME:
            return False
        return clock.wall_ms(self.last_tick) < opening_of(clock.wall_ms(self.time), self.timeframe)

    def of(self, source: str, clock: Clock, received_ms: int) -> BrokerBar:
        """The bar of a source.

        Raises:
            InvalidItem: as `opening`.
        """
        opening = self.opening(clock)
        begin_ms = clock.wall_ms(opening)
        end_ms = _end(begin_ms, self.timeframe)
        within = [ms for time in self.seen if begin_ms <= (ms := clock.wall_ms(time)) < end_ms]
        ts = clock.opening_ms(
            opening, f"{self.symbol}/{self.timeframe}", end_ms - begin_ms, max(within, default=None)
        )  # fmt: skip
        return BrokerBar(
            source=source, symbol=self.symbol, timeframe=self.timeframe, ts=ts, open=self.open,
            high=self.high, low=self.low, close=self.close, volume=self.volume, real_volume=self.real_volume,
            spread=self.spread, closed=not (within or self.is_open), received=received_ms,
        )  # fmt: skip


def read_bar(item: object) -> ReadBar:
    """The bar in an item.

    Collectors that read the chart every minute stamp the minute of the reading: `meta.bar_time` is the opening then,
    and `meta.collected_at` and `meta.last_tick` tell that the bar was still open.

    Raises:
        InvalidItem: naming the field that cannot be used.
    """
    if not isinstance(item, dict):
        raise InvalidItem("", f"an object is expected, not {quoted(item)}")
    item = with_names(item)
    symbol = symbol_of(item.get("symbol"))
    timeframe = timeframe_of(item.get("timeframe"))
    meta = item.get("meta")
    said = meta if isinstance(meta, dict) else {}
    time = time_in(said[BAR_TIME], BAR_TIME) if says_time(said.get(BAR_TIME)) else time_of(item, is_opening=True)
    open_, high, low, close = (_price(item, field) for field in ("open", "high", "low", "close"))
    volume, real_volume = _volumes(item)
    check_prices(open_, high, low, close, volume)
    return ReadBar(
        symbol, timeframe, time, open_, high, low, close, volume, real_volume, _spread(item, high),
        _said_time(said, "last_tick"), _said_time(said, "collected_at"),
        any(_is_no(item.get(field)) for field in _CLOSED_FIELDS),
    )  # fmt: skip


def check_prices(open_: float, high: float, low: float, close: float, ticks: int) -> None:
    """Check that these can be the prices of one bar.

    Raises:
        InvalidItem: when they are not.
    """
    for field, value in (("open", open_), ("high", high), ("low", low), ("close", close)):
        if not value or not isfinite(value):
            raise InvalidItem(field, "must be a finite number other than 0")
    if high < max(open_, close, low):
        raise InvalidItem("high", "must not be below open, close or low")
    if low > min(open_, close):
        raise InvalidItem("low", "must not be above open or close")
    if low < 0 and not ticks:
        # Data sites fill a missing price with -0.0001; where a price really was negative, there were ticks.
        raise InvalidItem("low", "a negative price in a bar without ticks")


def _is_no(value: object) -> bool:
    return (value.lower() if isinstance(value, str) else value) in _NO


def _said_time(meta: Mapping[str, Any], field: str) -> Time | None:
    with suppress(InvalidItem):  # it is not needed
        if says_time(meta.get(field)):
            return time_in(meta[field], field)
    return None


def opening_of(wall_ms: int, name: str) -> int:
    """When the bar of that timeframe opened in which the clock showed `wall_ms` (milliseconds, as of a WallTime)."""
    width_ms = TIMEFRAMES[name].width_ms
    if width_ms is not None and width_ms <= DAY_MS:
        return wall_ms - wall_ms % width_ms
    midnight_ms = wall_ms - wall_ms % DAY_MS
    day = datetime.fromtimestamp(midnight_ms // 1000, UTC)
    if width_ms is None:
        return midnight_ms - (day.day - 1) * DAY_MS
    if day.weekday() == 0 and midnight_ms == wall_ms:
        return wall_ms  # MetaTrader's weeks begin on Sunday, those of other terminals on Monday
    return midnight_ms - day.isoweekday() % 7 * DAY_MS


def _end(opened_ms: int, name: str) -> int:
    if (width_ms := TIMEFRAMES[name].width_ms) is not None:
        return opened_ms + width_ms
    opened = datetime.fromtimestamp(opened_ms // 1000, UTC)
    return opened_ms + monthrange(opened.year, opened.month)[1] * DAY_MS


def _price(item: dict[str, Any], field: str) -> float:
    value = item.get(field)
    if value is None:
        raise InvalidItem(field, "missing")
    return price(value, field)


def _volumes(item: dict[str, Any]) -> tuple[int, float | None]:
    """Number of ticks, and volume of the deals; a fraction is never a number of ticks."""
    field = "tick_volume" if is_said(item.get("tick_volume")) else "volume"
    value = item.get(field)
    if value is None:
        raise InvalidItem(field, "missing")
    real_volume = number(said, "real_volume") if is_said(said := item.get("real_volume")) else None
    if field == "tick_volume":
        ticks = whole(value, field, _MAX_COUNT)
        if real_volume is None and is_said(traded := item.get("volume")):
            # Beside a number of ticks the volume is what was traded; some senders write the number twice.
            real_volume = amount if (amount := number(traded, "volume")) != ticks else None
        return ticks, real_volume
    if not (amount := number(value, field)).is_integer():
        return 0, amount if real_volume is None else real_volume
    return whole(value, field, _MAX_COUNT), real_volume


def _spread(item: dict[str, Any], high: float) -> int | None:
    """Points, negative where the ask was below the bid. A fraction, such as 1.00 for gold, is a price difference.

    Unless it is larger than the price: pandas writes points as 2.0 once a row of the column has none.
    """
    value = item.get("spread")
    if not is_said(value):
        return None
    spread = finite(value, "spread")
    is_fraction = isinstance(value, float) or (isinstance(value, str) and not value.strip().lstrip("-").isdecimal())
    if is_fraction and abs(spread) <= abs(high):
        point = point_of(item)
        return round(spread / point) if point and abs(spread / point) < _MAX_SPREAD else None
    if not spread.is_integer():
        return None
    if abs(spread) > _MAX_SPREAD:
        raise InvalidItem("spread", f"no spread has so many points: {quoted(value)}")
    return int(spread)
