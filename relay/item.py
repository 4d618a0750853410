"""One item of a body to one row of `ticks`: what is needed to store, order and forward it is checked, no more.

The server checks the rest; the relay keeps the original, so nothing that it does not know is lost.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from marketdata.contract.items import EARLIEST_MS, is_tick, symbol_of, timeframe_of
from marketdata.contract.numbers import number
from marketdata.errors import InvalidItem
from marketdata.tick import MAX_TIME_MSC

#: The key under which the sender's X-Source is kept in `meta`.
SOURCE_FIELD: Final = "x_source"
#: The key under which the clock offset of the sender's body is kept in `meta`.
OFFSET_FIELD: Final = "utc_offset_s"

TICK: Final = "tick"
BAR: Final = "bar"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


_encode: Final = msgspec.json.Encoder().encode


class NewRow(NamedTuple):
    """A row of `ticks` without id and time of storage, in the order of the table's columns."""

    symbol: str
    ts_ms: int
    timeframe: str
    open: float
    high: float
    low: float
    close: float
    volume: float
    kind: str
    #: The original item as JSON.
    meta: str


def read_item(item: object, *, bars_allowed: bool, utc_offset_seconds: int | None, source: str | None) -> NewRow:
    """The row of a tick, or of a bar.

    Raises:
        InvalidItem: naming the field that cannot be used.
    """
    if not isinstance(item, dict):
        raise InvalidItem("", "an object is expected")
    symbol = symbol_of(item.get("symbol"))
    ts_ms = _time_ms(item)
    if utc_offset_seconds is not None:
        item.setdefault(OFFSET_FIELD, utc_offset_seconds)
    if source is not None:
        item[SOURCE_FIELD] = source
    try:
        meta = _encode(item).decode()
    except (ValueError, OverflowError, RecursionError) as exc:
        raise InvalidItem("", "the item holds what cannot be kept as JSON, such as half a character") from exc
    if bars_allowed and not is_tick(item):
        timeframe = timeframe_of(item.get("timeframe"))
        open_, high, low, close = (number(item.get(field), field) for field in ("open", "high", "low", "close"))
        field = "volume" if item.get("tick_volume") is None else "tick_volume"
        volume = number(item.get(field), field)
        return NewRow(symbol, ts_ms, timeframe, open_, high, low, close, volume, BAR, meta)
    exported = not ("bid" in item or "ask" in item or "open" not in item)
    names = ("open", "high", "close") if exported else ("bid", "ask", "last")
    bid, ask, last = (_optional(item, field) for field in names)
    if all(item.get(field) is None for field in names):
        raise InvalidItem("bid", "missing; a tick has at least one of bid, ask and last")
    volume = _optional(item, "volume" if item.get("volume_real") is None else "volume_real")
    return NewRow(symbol, ts_ms, TICK, bid, ask, bid, last, volume, TICK, meta)


def _optional(item: dict[str, Any], field: str) -> float:
    value = item.get(field)
    return 0.0 if value is None else number(value, field)


def _time_ms(item: dict[str, Any]) -> int:
    """The sender's time (epoch milliseconds on its own clock): `time_msc`, `ts_msc`, numeric `ts`, `time`, `ts`."""
    for field in ("time_msc", "ts_msc", "ts"):
        value = item.get(field)
        if value and not (field == "ts" and isinstance(value, str)):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InvalidItem(field, "epoch milliseconds are expected")
            if not EARLIEST_MS <= value <= MAX_TIME_MSC:
                raise InvalidItem(field, "milliseconds from 1971 to 9999 are expected")
            return int(value)
    for field in ("time", "ts"):
        value = item.get(field)
        if value:
            return _parsed(value, field)
    raise InvalidItem("ts", "no time: send time_msc, ts_msc or ts")


def _parsed(value: object, field: str) -> int:
    if not isinstance(value, str):
        raise InvalidItem(field, "an ISO-8601 time is expected")
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise InvalidItem(field, "not an ISO-8601 time") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    ts_ms = (moment - _EPOCH) // _MILLISECOND
    if ts_ms < EARLIEST_MS:
        raise InvalidItem(field, "before 1971")
    return ts_ms
