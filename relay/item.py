"""Reads one item of a body into one row of `ticks`.

The item is read as the server will read it, so that the relay promises only what the server will take; one limit is
left to the server, because the clock of a trader's PC may be wrong: that no time is more than a day ahead.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from marketdata.contract.bar import read_bar
from marketdata.contract.fields import is_bar
from marketdata.contract.http import NOBODY, Sender
from marketdata.contract.tick import ReadTick, read_tick
from marketdata.contract.times import Clock
from marketdata.errors import InvalidItem

TICK: Final = "tick"
BAR: Final = "bar"


class Facts(msgspec.Struct, gc=False, omit_defaults=True):
    """What the relay knows of a row beside the item, which is stored as it came."""

    #: X-Source of the sender, when it named one.
    source: str | None = None
    #: Offset of the sender's clock from UTC (seconds), when its body said so.
    utc_offset_seconds: int | None = None
    #: Whether the time is known to the second only.
    coarse: bool = False
    #: A tick of a symbol that may be charted by last, where equal ticks in one millisecond are ordinary.
    has_deals: bool = False
    #: The broker's server that the sender named.
    server: str | None = None
    #: The account that the sender named, as it came.
    account: str | None = None
    #: A tick that the server lacked and asked for.
    is_fill: bool = False


#: Those of NewRow up to `kind`.
_Columns = tuple[str, int, str, float, float, float, float, float, str]


class NewRow(NamedTuple):
    """A row of `ticks` without id and time of storage, in the order of the table's columns."""

    symbol: str
    #: By the sender's clock, unless the item says the moment itself.
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
    #: `Facts` as JSON.
    facts: str


_encode: Final = msgspec.json.Encoder().encode
_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(list[NewRow]).decode


class PackedRows:
    """Rows of a large body while they wait for the disk: packed they take a tenth of its size, as objects thrice."""

    def __init__(self) -> None:
        self._packs: list[bytes] = []
        self._count = 0

    def extend(self, rows: Sequence[NewRow]) -> None:
        """Append rows."""
        self._packs.append(zlib.compress(_pack(rows), zlib.Z_BEST_SPEED))
        self._count += len(rows)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[NewRow]:
        for pack in self._packs:
            yield from _unpack(zlib.decompress(pack))


@lru_cache(1_024)  # the same for nearly all ticks of a sender
def _facts(
    source: str | None, utc_offset_seconds: int | None, sender: Sender, *, coarse: bool, has_deals: bool, is_fill: bool
) -> str:
    facts = Facts(source, utc_offset_seconds, coarse, has_deals, sender.server or None, sender.account or None, is_fill)
    return _encode(facts).decode()


def read_item(
    item: Any, clock: Clock, *, utc_offset_seconds: int | None, source: str | None, sender: Sender = NOBODY,
    is_fill: bool = False,
) -> NewRow:  # fmt: skip
    """The row of a tick, or of a bar; `is_fill` when it was asked for by the server.

    Raises:
        InvalidItem: naming the field that cannot be used.
    """
    if is_bar(item):
        bar = read_bar(item)
        bar.opening(clock)
        facts = _facts(source, utc_offset_seconds, sender, coarse=False, has_deals=False, is_fill=False)
        columns: _Columns = (
            bar.symbol, bar.time.ms, bar.timeframe, bar.open, bar.high, bar.low, bar.close, float(bar.volume), BAR,
        )  # fmt: skip
    else:
        tick = read_tick(item)
        clock.utc_ms(tick.time)
        facts = _facts(
            source, utc_offset_seconds, sender, coarse=tick.time.coarse, has_deals=has_deals(tick), is_fill=is_fill
        )
        columns = (
            tick.symbol, tick.time.ms, TICK, tick.bid, tick.ask, tick.bid, tick.last, tick.volume, TICK,
        )  # fmt: skip
    return NewRow(*columns, as_json(item), facts)


def has_deals(tick: ReadTick) -> bool:
    """Whether the symbol may be charted by last; without a mode the price of the last deal decides."""
    return tick.last != 0 if tick.mode is None else tick.mode == "last"


def as_json(item: object) -> str:
    """The item as JSON, as it came.

    Raises:
        InvalidItem: when it is nested too deeply, or holds a number of thousands of digits.
    """
    try:
        return _encode(item).decode()
    except (ValueError, OverflowError):
        pass  # half a character, or an integer beyond 64 bits, in a field that nobody reads
    except RecursionError as exc:
        raise _too_deep() from exc
    try:
        return json.dumps(item, separators=(",", ":"))
    except (ValueError, RecursionError) as exc:  # ValueError: more digits than Python converts
        raise _too_deep() from exc


def _too_deep() -> InvalidItem:
    return InvalidItem("", "the item is nested too deeply, or holds too long a number, to be stored")
