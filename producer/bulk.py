"""The fast path for the bodies that EAs send all day: they are decoded straight into typed fields.

It takes only what `read_tick` would take, with the same result, and stops at everything else: the caller then goes on
item by item and finds out what is wrong. Measured: 200 ticks in 0.11 ms instead of 0.60 ms.
"""

import re
from functools import lru_cache
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw

from marketdata.contract.body import (
    MAX_ITEMS,
    MAX_OFFSET_SECONDS,
    OFFSET,
    FieldName,
    arrays_in,
    field_name,
    fields_of,
    utc_offset_in,
)
from marketdata.contract.fields import symbol_of
from marketdata.contract.http import Unusable
from marketdata.contract.tick import POINTS, TickFields
from marketdata.contract.times import EARLIEST_MS, Clock, parse_time
from marketdata.errors import InvalidItem
from producer.records import MAX_KNOWN, SymbolTicks, TicksBySymbol

_Offset = Annotated[int, Meta(ge=-MAX_OFFSET_SECONDS, le=MAX_OFFSET_SECONDS)]


class BulkBody(msgspec.Struct, gc=False):
    """The usual body: one array of ticks."""

    ticks: list[TickFields]
    utc_offset_seconds: _Offset | None = msgspec.field(default=None, name=OFFSET)

    @property
    def items(self) -> list[TickFields]:
        """The ticks, under the name that all bodies have for what they hold."""
        return self.ticks


_Field = list[TickFields] | dict[str, Raw] | str | float | int | bool | None
_decoder: Final = msgspec.json.Decoder(dict[FieldName, _Field] | list[TickFields], dec_hook=field_name)
_usual_decoder: Final = msgspec.json.Decoder(BulkBody)

#: How EAs begin a body, up to its array.
_BEGIN: Final = re.compile(rb'\{\s?(?:"utc_offset_s"\s?:\s?-?[0-9]+\s?,\s?)?"ticks"\s?:\s?\[')


def decode_bulk(body: bytes) -> BulkBody | None:
    """The body, or None when it is of any other kind."""
    try:
        bulk = _usual_decoder.decode(body) if _is_usual(body) else _unwrapped(_decoder.decode(body))
    except (msgspec.MsgspecError, ValueError, RecursionError, Unusable):
        return None
    return bulk if bulk is not None and len(bulk.ticks) <= MAX_ITEMS else None


def _is_usual(body: bytes) -> bool:
    """Whether no field is written twice, for sure: the only array ends with the body, as in nearly all that come.

    To look at the names of the fields one by one takes a microsecond more.
    """
    return body.find(b"]") == len(body) - 2 and (body.startswith(b'{"ticks":[') or _BEGIN.match(body) is not None)


def _unwrapped(decoded: dict[FieldName, _Field] | list[TickFields]) -> BulkBody | None:
    if isinstance(decoded, list):
        return BulkBody(decoded, None)
    fields = fields_of(decoded)
    arrays = arrays_in(fields)
    return BulkBody(arrays[0], utc_offset_in(fields)) if arrays is not None and len(arrays) == 1 else None


def read_bulk(bulk: BulkBody, clock: Clock, by_symbol: TicksBySymbol) -> int:
    """Sort the ticks by symbol, up to the first that needs a closer look; how many they are."""
    before = by_symbol.count() if by_symbol.symbols else 0
    try:
        _sort(bulk.ticks, clock, by_symbol)
    except InvalidItem:
        return by_symbol.count() - before
    return len(bulk.ticks)


@lru_cache(MAX_KNOWN)
def _check_symbol(symbol: str) -> None:
    # What raises is not remembered, so no name is longer than a symbol's.
    if symbol_of(symbol) != symbol:
        raise InvalidItem("symbol", "not as it is read")


def _sort(ticks: list[TickFields], clock: Clock, by_symbol: TicksBySymbol) -> None:
    symbols = by_symbol.symbols
    shift_ms, latest_ms = clock.shift_ms, clock.latest_ms
    for tick in ticks:
        symbol = tick.symbol
        time_msc, coarse = tick.time_msc or tick.ts_msc, False
        if time_msc:
            time_msc -= clock.shift_at(time_msc, symbol) if shift_ms is None else shift_ms
            if not EARLIEST_MS <= time_msc <= latest_ms:
                raise InvalidItem("ts", "out of range")
        else:
            time = parse_time(tick.time or tick.ts or "", "ts")
            time_msc, coarse = clock.utc_ms(time, symbol), time.coarse
        # What fails comes before what changes: a tick is sorted in wholly, or not at all.
        of_symbol = symbols.get(symbol)
        if of_symbol is None:
            _check_symbol(symbol)
            of_symbol = symbols[symbol] = SymbolTicks()
        times, bid, ask, last, volume, flags = of_symbol.values
        times.append(time_msc)
        bid.append(tick.bid)
        ask.append(tick.ask)
        last.append(tick.last)
        volume.append(tick.volume_real or tick.volume)
        flags.append(tick.flags)
        if coarse:
            of_symbol.coarse = True
        if of_symbol.point is None:
            of_symbol.point = tick.point or (POINTS[tick.digits] if isinstance(tick.digits, int) else None)
        # Nearly no sender says any of these.
        if tick.mode or tick.chart_mode or tick.late:
            if of_symbol.mode is None:
                of_symbol.mode = tick.mode or tick.chart_mode or None
            by_symbol.late += tick.late is True
