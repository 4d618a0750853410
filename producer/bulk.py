"""The fast path through the bodies that EAs send all day: decoded straight into typed fields.

It takes only what `read_tick` would take, with the same result, and stops at everything else: the caller then goes on
item by item and finds out what is wrong. Measured: 200 ticks in 0.11 ms instead of 0.60 ms.
"""

from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

from marketdata.contract.answers import Unusable
from marketdata.contract.body import MAX_ITEMS, WRAPPERS, FieldName, arrays_in, field_name, fields_of, utc_offset_in
from marketdata.contract.names import symbol_of
from marketdata.contract.tick import POINTS, TickFields
from marketdata.contract.times import EARLIEST_MS, Clock, parse_time
from marketdata.errors import InvalidItem
from marketdata.tick import Tick
from producer.records import SymbolTicks, TicksBySymbol


class BulkBody(NamedTuple):
    """The usual body: one array of ticks."""

    ticks: list[TickFields]
    utc_offset_seconds: int | None


_Field = list[TickFields] | dict[str, Raw] | str | float | int | bool | None
_decoder: Final = msgspec.json.Decoder(dict[FieldName, _Field] | list[TickFields], dec_hook=field_name)


def decode_bulk(body: bytes) -> BulkBody | None:
    """The body, or None when it is of any other kind."""
    try:
        decoded = _decoder.decode(body)
        bulk = BulkBody(decoded, None) if isinstance(decoded, list) else _unwrapped(decoded)
    except (msgspec.MsgspecError, ValueError, RecursionError, Unusable):
        return None
    return bulk if bulk is not None and len(bulk.ticks) <= MAX_ITEMS else None


def _unwrapped(decoded: dict[FieldName, _Field]) -> BulkBody | None:
    if len(decoded) == 1:
        # Nearly every body; what all others need would take a microsecond more.
        [(field, value)] = decoded.items()
        return BulkBody(value, None) if isinstance(value, list) and field.name in WRAPPERS else None
    fields = fields_of(decoded)
    arrays = arrays_in(fields)
    return BulkBody(arrays[0], utc_offset_in(fields)) if arrays is not None and len(arrays) == 1 else None


def read_bulk(bulk: BulkBody, clock: Clock, by_symbol: TicksBySymbol) -> int:
    """Sort the ticks by symbol, up to the first that needs a closer look; how many they are."""
    before = by_symbol.count() if by_symbol.symbols else 0
    try:
        _sort(bulk.ticks, clock, by_symbol.symbols)
        count = len(bulk.ticks)
    except InvalidItem:
        count = by_symbol.count() - before
    for tick in bulk.ticks[:count]:
        if tick.mode or tick.chart_mode:
            of_symbol = by_symbol.symbols[tick.symbol]
            of_symbol.mode = of_symbol.mode or tick.mode or tick.chart_mode or None
    return count


def _sort(ticks: list[TickFields], clock: Clock, symbols: dict[str, SymbolTicks]) -> None:
    shift_ms, latest_ms = clock.shift_ms, clock.latest_ms
    # A batch has few distinct whole seconds. Where the shift depends on the time, it may on the order as well.
    known: dict[str, tuple[int, bool]] = {}
    for tick in ticks:
        bid, ask, last, volume = tick.bid, tick.ask, tick.last, tick.volume_real
        coarse = False
        time_msc = tick.time_msc or tick.ts_msc
        if not time_msc:
            text = tick.time or tick.ts or ""
            if text not in known:
                time = parse_time(text, "ts")
                known[text] = (clock.utc_ms(time, tick.symbol), time.coarse)
            time_msc, coarse = known[text] if shift_ms is not None else known.pop(text)
        else:
            time_msc -= clock.shift_at(time_msc, tick.symbol) if shift_ms is None else shift_ms
            if not EARLIEST_MS <= time_msc <= latest_ms:
                raise InvalidItem("ts", "out of range")
        # What fails comes before what changes: a tick is sorted in wholly, or not at all.
        of_symbol = symbols.get(tick.symbol)
        if of_symbol is None:
            if symbol_of(tick.symbol) != tick.symbol:
                raise InvalidItem("symbol", "not as it is read")
            of_symbol = symbols[tick.symbol] = SymbolTicks()
        if coarse:
            of_symbol.coarse = True
        of_symbol.ticks.append(Tick(time_msc, bid, ask, last, volume or tick.volume, tick.flags))
        if of_symbol.point is None:
            of_symbol.point = tick.point or (POINTS[tick.digits] if isinstance(tick.digits, int) else None)
