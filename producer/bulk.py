"""The fast way through the bodies that EAs send all day: decoded straight into typed fields.

It takes only what `ticks.read_tick` would take, with the same result, and gives up on everything else: the caller then
goes item by item and finds out what is wrong. Measured: 200 ticks in 0.17 ms instead of 0.77 ms.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from marketdata.contract.forms import MAX_ITEMS, MAX_OFFSET_SECONDS
from marketdata.contract.items import EARLIEST_MS, MAX_DIGITS, POINTS, symbol_of
from marketdata.errors import InvalidItem
from marketdata.tick import Tick
from producer.clock import Clock
from producer.frames import SymbolTicks, TickSheet

_Price = Annotated[float, Meta(ge=0)]
_Mode = Literal["bid", "last"]


class BulkTick(Struct, gc=False):
    """A tick with bid and ask as numbers and times of the usual types."""

    symbol: str
    bid: _Price
    ask: _Price
    time_msc: Annotated[int, Meta(ge=0)] = 0
    ts_msc: Annotated[int, Meta(ge=0)] = 0
    time: str | None = None
    ts: str | None = None
    last: _Price = 0.0
    volume: _Price = 0.0
    volume_real: _Price | None = None
    flags: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    digits: Annotated[int, Meta(ge=0, le=MAX_DIGITS)] | None = None
    point: _Price | None = None
    mode: _Mode | None = None
    chart_mode: _Mode | None = None


class BulkBody(Struct, gc=False):
    """The usual body."""

    ticks: list[BulkTick]
    utc_offset_s: Annotated[int, Meta(ge=-MAX_OFFSET_SECONDS, le=MAX_OFFSET_SECONDS)] | None = None


_body_decoder: Final = msgspec.json.Decoder(BulkBody)
_array_decoder: Final = msgspec.json.Decoder(list[BulkTick])


def decode_bulk(body: bytes) -> BulkBody | None:
    """The body, or None when it is of any other kind."""
    try:
        bulk = BulkBody(_array_decoder.decode(body)) if body.startswith(b"[") else _body_decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return bulk if len(bulk.ticks) <= MAX_ITEMS else None


def read_bulk(bulk: BulkBody, clock: Clock) -> TickSheet | None:
    """The ticks of the body, or None when at least one of them needs a closer look."""
    sheet = TickSheet()
    try:
        _sort(bulk.ticks, clock, sheet.symbols)
    except InvalidItem:
        return None
    return sheet


def _sort(ticks: list[BulkTick], clock: Clock, symbols: dict[str, SymbolTicks]) -> None:
    shift_ms, latest_ms = clock.shift_ms, clock.latest_ms
    for tick in ticks:
        of_symbol = symbols.get(tick.symbol)
        if of_symbol is None:
            of_symbol = symbols[symbol_of(tick.symbol)] = SymbolTicks()
        time_msc = tick.time_msc or tick.ts_msc
        if not time_msc:
            time_msc, coarse = clock.parse(tick.time or tick.ts or "", "ts")
            if coarse:
                of_symbol.coarse = True
        elif shift_ms is None:
            time_msc = clock.utc_ms(time_msc, "ts")
        else:
            time_msc -= shift_ms
            if not EARLIEST_MS <= time_msc <= latest_ms:
                raise InvalidItem("ts", "out of range")
        bid, ask, last, volume = tick.bid, tick.ask, tick.last, tick.volume_real
        if not (bid or ask or last):
            raise InvalidItem("bid", "no price")
        of_symbol.ticks.append(Tick(time_msc, bid, ask, last, tick.volume if volume is None else volume, tick.flags))
        if of_symbol.point is None:
            of_symbol.point = tick.point or (None if tick.digits is None else POINTS[tick.digits])
    if any(tick.mode or tick.chart_mode for tick in ticks):
        for tick in ticks:
            of_symbol = symbols[tick.symbol]
            of_symbol.mode = of_symbol.mode or tick.mode or tick.chart_mode
