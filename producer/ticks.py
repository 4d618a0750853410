"""One item of a body, in any sender's fields, to a tick."""

from typing import Any, Final, NamedTuple

import msgspec

from marketdata.contract.items import MAX_DIGITS, POINTS, chart_mode_of, symbol_of
from marketdata.contract.numbers import number, quoted, whole
from marketdata.errors import InvalidItem
from marketdata.tick import ChartMode, Tick
from producer.clock import Clock

#: MT5: MqlTick.flags is a uint; other senders have had wider ones.
_MAX_FLAGS: Final = 2**63 - 1


class ReadTick(NamedTuple):
    """A tick, and what its frame needs to know beside it."""

    symbol: str
    tick: Tick
    #: Size of a point in price units, if the sender says it.
    point: float | None
    #: Whether the sender's time is one of whole seconds.
    coarse: bool
    #: The chart mode, if the sender says it.
    mode: ChartMode | None


def read_tick(item: object, clock: Clock) -> ReadTick:
    """The tick in an item.

    The exporter's form has the prices as `open`, `high` and `close`, and the original tick as `meta`, whose fields
    are preferred.

    Raises:
        InvalidItem: naming the field that cannot be used.
    """
    if not isinstance(item, dict):
        raise InvalidItem("", f"an object is expected, not {quoted(item)}")
    if "bid" in item or "ask" in item or "open" not in item:
        return _read(item, clock)
    return _read(_exported(item), clock)


def _exported(item: dict[str, Any]) -> dict[str, Any]:
    """The exporter's item with the names of a tick's fields."""
    fields = {**item, "bid": item.get("open"), "ask": item.get("high"), "last": item.get("close")}
    original = _original(item.get("meta"))
    if isinstance(original.get("ts"), str) and item.get("ts"):
        # The exporter's own time is a number, which goes before text.
        original.pop("ts")
    return fields | {key: value for key, value in original.items() if value is not None}


def _original(meta: object) -> dict[str, Any]:
    if isinstance(meta, str):  # as the relay's database has it
        try:
            meta = msgspec.json.decode(meta)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return {}
    return dict(meta) if isinstance(meta, dict) else {}


def _read(item: dict[str, Any], clock: Clock) -> ReadTick:
    symbol = symbol_of(item.get("symbol"))
    time_msc, coarse = read_time(item, clock)
    bid = _optional(item, "bid")
    ask = _optional(item, "ask")
    last = _optional(item, "last")
    # A price of 0 is a tick without one, which is counted; a tick without any price field is no tick.
    if all(item.get(field) is None for field in ("bid", "ask", "last")):
        raise InvalidItem("bid", "missing; a tick has at least one of bid, ask and last")
    volume = _optional(item, "volume" if item.get("volume_real") is None else "volume_real")
    flags = item.get("flags")
    tick = Tick(time_msc, bid, ask, last, volume, 0 if flags is None else whole(flags, "flags", _MAX_FLAGS))
    return ReadTick(symbol, tick, _point(item), coarse, chart_mode_of(item.get("mode"), item.get("chart_mode")))


def read_time(item: dict[str, Any], clock: Clock) -> tuple[int, bool]:
    """The instant of an item (UTC epoch milliseconds), and whether it is known to the second only.

    The first that is there, and not 0, counts: `time_msc`, `ts_msc`, `ts` as a number, `time` and `ts` as ISO-8601.

    Raises:
        InvalidItem: when none can be used.
    """
    for field in ("time_msc", "ts_msc"):
        if value := item.get(field):
            return clock.utc_ms(_milliseconds(value, field), field), False
    ts = item.get("ts")
    if ts and not isinstance(ts, str):
        wall_ms = _milliseconds(ts, "ts")
        return clock.utc_ms(wall_ms, "ts"), wall_ms % 1000 == 0
    for field in ("time", "ts"):
        if value := item.get(field):
            if not isinstance(value, str):
                raise InvalidItem(field, f"an ISO-8601 time is expected, not {quoted(value)}; use {field}_msc")
            return clock.parse(value, field)
    raise InvalidItem("ts", "no time: send time_msc, ts_msc or ts")


def _milliseconds(value: object, field: str) -> int:
    return int(number(value, field)) if isinstance(value, float) else whole(value, field, 2**63 - 1)


def _optional(item: dict[str, Any], field: str) -> float:
    value = item.get(field)
    return 0.0 if value is None else number(value, field)


def _point(item: dict[str, Any]) -> float | None:
    point = item.get("point")
    if point is not None and (size := number(point, "point")):
        return size
    digits = item.get("digits")
    return None if digits is None else POINTS[whole(digits, "digits", MAX_DIGITS)]
