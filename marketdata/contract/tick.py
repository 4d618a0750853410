"""A tick as senders write it: the one reader, and the one writer."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from marketdata.contract.fields import (
    NOTHING_FROM,
    chart_mode_of,
    is_said,
    number,
    price,
    quoted,
    symbol_of,
    whole,
    with_names,
)
from marketdata.contract.times import Time, time_of
from marketdata.errors import InvalidItem
from marketdata.tick import MAX_PRICE, ChartMode, Tick

#: MT5: MqlTick.flags is a uint; other senders have had wider ones.
MAX_FLAGS: Final = 2**63 - 1

#: More digits than a double has after the point.
MAX_DIGITS: Final = 18

#: MT5: SYMBOL_POINT from SYMBOL_DIGITS.
POINTS: Final = tuple(float(f"1e-{digits}") for digits in range(MAX_DIGITS + 1))

_Price = Annotated[float, Meta(ge=-MAX_PRICE, le=MAX_PRICE)]
_Positive = Annotated[float, Meta(ge=0, lt=NOTHING_FROM)]
_Digits = Annotated[int, Meta(ge=0, le=MAX_DIGITS)]
_EpochMs = Annotated[int, Meta(ge=0)]
_Mode = Literal["bid", "last"]


class TickFields(Struct, gc=False, kw_only=True):
    """The fields of a tick that are read, in the types that most senders give them.

    `read_tick` accepts other types and names as well; for these types its result is the same. In the order in which
    DataCollectorPRO writes them each is found at once.
    """

    ts: Annotated[str | None, Meta(description="ISO-8601")] | UnsetType = UNSET
    symbol: Annotated[str, Meta(description="1 to 32 printable characters")]
    bid: Annotated[_Price, Meta(description="0 is none")]
    ask: Annotated[_Price, Meta(description="0 is none")]
    last: Annotated[_Price, Meta(description="price of the last deal; 0 is none")] = 0.0
    volume: Annotated[_Positive, Meta(description="volume of the deal")] = 0.0
    flags: Annotated[int, Meta(ge=0, le=MAX_FLAGS, description="a bit mask (MT5: TICK_FLAG)")] = 0
    ts_msc: Annotated[_EpochMs, Meta(description="epoch milliseconds on the sender's clock")] | UnsetType = UNSET
    digits: Annotated[_Digits | None, Meta(description="decimals of a price")] | UnsetType = UNSET
    point: Annotated[_Positive | None, Meta(description="size of a point; from digits when missing")] | UnsetType = (
        UNSET
    )
    time: Annotated[str | None, Meta(description="ISO-8601")] | UnsetType = UNSET
    time_msc: Annotated[_EpochMs, Meta(description="the same by its other name")] | UnsetType = UNSET
    volume_real: Annotated[_Positive | None, Meta(description="preferred to volume")] | UnsetType = UNSET
    mode: Annotated[_Mode | None, Meta(description="the price that draws the chart")] | UnsetType = UNSET
    chart_mode: Annotated[_Mode | None, Meta(description="the same by its other name")] | UnsetType = UNSET
    late: Annotated[bool | None, Meta(description="came late into the terminal's list")] | UnsetType = UNSET
    #: An open price may make a bar of the item (`fields.is_bar`), so the fast path takes none.
    open: Annotated[None, Meta(description="a tick has none")] | UnsetType = UNSET


class PostedTick(TickFields, gc=False, kw_only=True):
    """A tick as DataCollectorPRO 1.65 posts it."""

    spread: float | UnsetType = UNSET
    meta: dict[str, str | int] | UnsetType = UNSET


class ReadTick(NamedTuple):
    """A tick, and what its frame needs besides."""

    symbol: str
    time: Time
    bid: float
    ask: float
    last: float
    volume: float
    flags: int
    #: Size of a point in price units, if the sender states it.
    point: float | None
    #: The chart mode, if the sender states it.
    mode: ChartMode | None
    #: Whether the sender says that it came into the terminal's list behind later ticks.
    is_late: bool

    def at(self, time_msc: int) -> Tick:
        """The tick at this moment (UTC epoch milliseconds)."""
        return Tick(time_msc, self.bid, self.ask, self.last, self.volume, self.flags)


def read_tick(item: object) -> ReadTick:
    """The tick in an item.

    The exporter's form has the prices as `open`, `high` and `close`, and the original tick as `meta`, whose fields
    are preferred.

    Raises:
        InvalidItem: naming the field that cannot be used.
    """
    if not isinstance(item, dict):
        raise InvalidItem("", f"an object is expected, not {quoted(item)}")
    item = with_names(item)
    if not ("bid" in item or "ask" in item or "open" not in item):
        item = _exported(item)
    if "symbol" not in item:
        raise _of_no_symbol(item)
    symbol = symbol_of(item.get("symbol"))
    time = time_of(item)
    # A price of 0 is a tick without one, which is counted; a tick without any price field is no tick.
    said_bid, said_ask, said_last = item.get("bid"), item.get("ask"), item.get("last")
    bid = 0.0 if said_bid is None else price(said_bid, "bid")
    ask = 0.0 if said_ask is None else price(said_ask, "ask")
    is_quote = said_bid is not None or said_ask is not None
    if not is_quote and said_last is None:
        raise InvalidItem("bid", "missing; a tick has at least one of bid, ask and last")
    last = 0.0 if is_quote and not is_said(said_last) else price(said_last, "last")
    # Some senders fill in one of the two, and leave the other 0.
    volume = _volume(item, "volume_real") or _volume(item, "volume")
    flags = item.get("flags")
    return ReadTick(
        symbol, time, bid, ask, last, volume, whole(flags, "flags", MAX_FLAGS) if is_said(flags) else 0,
        point_of(item), chart_mode_of(item.get("mode"), item.get("chart_mode")),
        item.get("late") is True,
    )  # fmt: skip


def skipped_line(file: str, line: int, text: str, why: str) -> dict[str, Any]:
    """A line of a file that its reader could not use, as an item: the server rejects it, and so stores it."""
    return {"file": file, "line": line, "text": text, "why": why}


def _of_no_symbol(item: dict[str, Any]) -> InvalidItem:
    if "why" in item:
        return _of_skipped_line(item)
    for name, value in item.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return InvalidItem("symbol", f"missing; items are looked for in `ticks` or `items`, not in {quoted(name)}")
    return InvalidItem("symbol", "missing")


def _of_skipped_line(item: dict[str, Any]) -> InvalidItem:
    file, line, why = (quoted(item.get(name)) for name in ("file", "line", "why"))
    return InvalidItem("", f"line {line} of {file} cannot be used: {why}")


def _volume(item: dict[str, Any], field: str) -> float:
    return number(value, field) if is_said(value := item.get(field)) else 0.0


def posted_tick(
    tick: Tick,
    symbol: str,
    *,
    digits: int | None = None,
    point: float | None = None,
    coarse: bool = False,
    is_instant: bool = False,
) -> PostedTick:
    """The tick as an EA writes it; `ts` is in whole seconds, `ts_msc` has the milliseconds.

    `coarse` is for times that are known to the second only: no milliseconds are claimed, so that the fold takes equal
    ticks in a row for what they are. `is_instant` says that its time is UTC, whatever the sender's clock shows.
    """
    return posted_ticks((tick,), symbol, digits=digits, point=point, coarse=coarse, is_instant=is_instant)[0]


def posted_ticks(
    ticks: Iterable[Tick],
    symbol: str,
    *,
    digits: int | None = None,
    point: float | None = None,
    coarse: bool = False,
    is_instant: bool = False,
) -> list[PostedTick]:
    """Like `posted_tick`, for ticks of one symbol."""
    said_digits, said_point = UNSET if digits is None else digits, UNSET if point is None else point
    posted = []
    for tick in ticks:
        time_msc = tick.time_msc
        is_second = coarse and time_msc % 1000 == 0
        posted.append(
            PostedTick(
                ts=iso_instant(time_msc, coarse=is_second) if is_instant else iso_second(time_msc),
                symbol=symbol,
                bid=tick.bid,
                ask=tick.ask,
                last=tick.last,
                volume=tick.volume,
                flags=tick.flags,
                ts_msc=UNSET if is_second or is_instant else time_msc,
                digits=said_digits,
                point=said_point,
            )
        )
    return posted


def middle_change(times: Sequence[int]) -> int:
    """Where to halve a request whose ticks have these times: at the change of time nearest to the middle.

    Equal ticks of one millisecond are parted only where a request has no other time: the fold takes the second half
    of them for a resend of the first.
    """
    middle = len(times) // 2
    changes = (index for index in range(1, len(times)) if times[index] != times[index - 1])
    return min(changes, key=lambda index: abs(index - middle), default=middle)


def iso_instant(time_ms: int, *, coarse: bool) -> str:
    """`2019-02-04T00:00:00.123+00:00`, a moment in UTC; without the fraction when it is coarse."""
    fraction = "" if coarse else f".{time_ms % 1000:03d}"
    return f"{iso_second(time_ms).removesuffix('Z')}{fraction}+00:00"


def iso_second(time_ms: int) -> str:
    """`2019-02-04T00:00:00Z`, the second of epoch milliseconds."""
    return _iso_second(time_ms // 1000)


# Ticks in a row are often of the same second, and nearly always of the same minute.
@lru_cache(4)
def _iso_second(second: int) -> str:
    minute, within = divmod(second, 60)
    return f"{_iso_minute(minute)}:{within:02d}Z"


@lru_cache(4)
def _iso_minute(minute: int) -> str:
    # strftime takes longer than all the rest of a tick.
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m-%dT%H:%M")


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


def point_of(item: dict[str, Any]) -> float | None:
    """Size of a point in price units, from `point` or `digits`; None when the item has neither."""
    # It is not needed: one that cannot be used is none.
    with suppress(InvalidItem):
        if (size := number(item.get("point"), "point")) and is_said(size):
            return size
    with suppress(InvalidItem):
        if (digits := item.get("digits")) is not None:
            return POINTS[whole(digits, "digits", MAX_DIGITS)]
    return None
