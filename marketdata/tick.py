"""One tick of MetaTrader 5, and the frame: the ticks of one source and symbol from one request.

What a tick has is said by `Tick`, and how a record has it as columns by `Columns`. All else that goes through the
fields of a tick (the archive's files, CSV, the readers of both) takes their names and types from here.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, repeat
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, Self, cast, get_type_hints, overload

from msgspec import Meta, Struct
from msgspec.structs import astuple, replace

#: A minute (milliseconds).
MINUTE_MS = 60_000

#: A day of 24 hours (milliseconds).
DAY_MS = 1_440 * MINUTE_MS

#: Last millisecond of the year 9999: what every datetime type on the way can hold.
MAX_TIME_MSC = 253_402_300_799_999

#: Largest price, and the negative of the smallest: beyond it a double has no digit left behind the point, and sums of
#: prices come out infinite.
MAX_PRICE = 1e15

#: Price that draws the chart (MT5: SYMBOL_CHART_MODE_BID, SYMBOL_CHART_MODE_LAST).
ChartMode = Literal["bid", "last"]

#: MT5: TICK_FLAG_LAST, TICK_FLAG_VOLUME, TICK_FLAG_BUY, TICK_FLAG_SELL; with TICK_FLAG_BID and TICK_FLAG_ASK all that
#: are documented.
DEAL_FLAGS = 8 | 16 | 32 | 64
FLAGS = 2 | 4 | DEAL_FLAGS

TimeMsc = Annotated[int, Meta(ge=0, le=MAX_TIME_MSC)]
_Flags = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Tick(Struct, array_like=True, frozen=True, gc=False):
    """One tick (MT5: MqlTick). Two ticks are equal when all fields are.

    The first six are in every record. A field that is added comes last, and is 0 where a record or file has none.
    """

    #: UTC epoch milliseconds, after the zone of the source was applied.
    time_msc: TimeMsc
    bid: float
    ask: float
    #: Price of the last deal; 0.0 where the instrument has none (forex).
    last: float
    #: Volume of the last deal (MT5: volume_real).
    volume: float
    #: Bit mask of what changed, with undocumented bits: test bits, never compare.
    flags: _Flags


#: The fields of a tick in their order, and the types of their values as `array` and `struct` name them.
FIELD_CODES: Final = {name: "d" if type_ is float else "q" for name, type_ in get_type_hints(Tick).items()}
FIELDS: Final = tuple(FIELD_CODES)

#: The fields that were added, and their values where a record or file has none.
ADDED: Final = dict(zip(FIELDS[6:], Tick.__struct_defaults__, strict=True))

#: The values of each field of `Tick`, in its order: one for each tick.
TickValues = tuple[list[int], list[float], list[float], list[float], list[float], list[int]]

# Behind time, bid and ask.
_others = attrgetter(*FIELDS[3:])


def no_values() -> TickValues:
    """The values of each field of no tick."""
    return [], [], [], [], [], []


class Columns(Struct, gc=False, omit_defaults=True, eq=False):
    """Ticks as columns: a sequence of `Tick`, each of which is made when it is asked for.

    Columns take a third of the time to decode and fold, and half the bytes (docs/decisions/0020).
    """

    #: What `after_ms` counts from, in a record the time of the first tick (UTC epoch milliseconds).
    time_msc: TimeMsc
    #: The time of each tick less `time_msc`.
    after_ms: Annotated[list[int], Meta(min_length=1)]
    bid: list[float]
    ask: list[float]
    #: A value that is no list is that of every tick.
    flags: _Flags | list[_Flags]
    last: float | list[float] = 0.0
    volume: float | list[float] = 0.0

    @classmethod
    def of(cls, ticks: Sequence[Tick], since_ms: int | None = None) -> Self:
        """The columns of these ticks, of which there must be one; times count from `since_ms`, or from the first."""
        return cls.of_values(values_of(ticks), since_ms)

    @classmethod
    def of_values(cls, values: TickValues, since_ms: int | None = None) -> Self:
        """As `of`, from the values of each field of the ticks; the lists of prices become the columns."""
        times, bid, ask, last, volume, flags = values
        since_ms = times[0] if since_ms is None else since_ms
        return cls(
            since_ms, [time_msc - since_ms for time_msc in times], bid, ask,
            flags[0] if flags.count(flags[0]) == len(flags) else flags,
            last if any(last) else 0.0,
            volume if any(volume) else 0.0,
        )  # fmt: skip

    @classmethod
    def joined(cls, parts: "Sequence[Ticks]") -> "Columns":
        """The ticks of all parts, one after the other; there must be at least one part."""
        since_ms = parts[0][0].time_msc
        columns: list[Columns] = []
        for _, group in groupby(parts, type):
            some = list(group)
            if isinstance(some[0], Columns):
                columns += cast(list[Columns], some)
            else:
                columns.append(cls.of(list(chain.from_iterable(some)), since_ms))
        if len(columns) == 1:
            return columns[0]
        after_ms: list[int] = []
        for one in columns:
            shift_ms = one.time_msc - since_ms
            after_ms += map(shift_ms.__add__, one.after_ms) if shift_ms else one.after_ms
        bid, ask = chained(map(_bid, columns)), chained(map(_ask, columns))
        return Columns(since_ms, after_ms, bid, ask, *(_joined(columns, name) for name in _NAMES))

    def between(self, first_ms: int, end_ms: int) -> "Columns":
        """Of ticks in order of time those from `first_ms` to before `end_ms` (UTC epoch milliseconds)."""
        begin = bisect_left(self.after_ms, first_ms - self.time_msc)
        end = bisect_left(self.after_ms, end_ms - self.time_msc, begin)
        return self if (begin, end) == (0, len(self)) else self[begin:end]

    @property
    def in_order(self) -> bool:
        """Whether times never go back."""
        return self.after_ms == sorted(self.after_ms)

    @property
    def are_deals(self) -> bool:
        """Whether every tick is a deal, see `is_deal`."""
        return all(map(is_deal, self.flags)) if isinstance(self.flags, list) else is_deal(self.flags)

    def column(self, name: str) -> list[Any]:
        """The column of this name, a list also where all ticks have the same value."""
        values = getattr(self, name)
        return values if isinstance(values, list) else [values] * len(self)

    def __len__(self) -> int:
        return len(self.after_ms)

    def __iter__(self) -> Iterator[Tick]:
        others = (values if isinstance(values, list) else repeat(values) for values in _others(self))
        return map(Tick, map(self.time_msc.__add__, self.after_ms), self.bid, self.ask, *others)

    @overload
    def __getitem__(self, index: int) -> Tick: ...
    @overload
    def __getitem__(self, index: slice) -> "Columns": ...
    def __getitem__(self, index: int | slice) -> "Tick | Columns":
        values: Any = [values[index] if isinstance(values, list) else values for values in _columns(self)]
        after_ms, bid, ask, *others = values
        if isinstance(index, slice):
            return Columns(self.time_msc, after_ms, bid, ask, *others)
        flags, last, volume, *added = others
        return Tick(self.time_msc + after_ms, bid, ask, last, volume, flags, *added)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Columns | list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # its lists can be changed


_columns = attrgetter(*Columns.__struct_fields__[1:])
# Behind bid and ask.
_NAMES: Final = Columns.__struct_fields__[4:]


def chained(columns: Iterable[list[float]]) -> list[float]:
    """One list of all: lists are copied by the block, which `chain` does value by value."""
    whole: list[float] = []
    for column in columns:
        whole += column
    return whole


def _joined(columns: "Iterable[Columns]", name: str) -> Any:
    values = [getattr(one, name) for one in columns]
    if not isinstance(values[0], list) and values.count(values[0]) == len(values):
        return values[0]
    return list(chain.from_iterable(one.column(name) for one in columns))


class RecordColumns(Columns, gc=True, omit_defaults=True, eq=False, dict=True):
    """Columns as they come from a record: checked."""

    def came_as(self, record: bytes) -> None:
        """Note the record, a fifth of the size of what it decodes to."""
        self.__dict__["record"] = record

    @property
    def in_order(self) -> bool:
        """Whether times never go back, which is known from the check."""
        return cast(bool, self.__dict__["in_order"])

    @property
    def record(self) -> bytes | None:
        """The record that they were decoded from, if it was noted."""
        return self.__dict__.get("record")

    def __post_init__(self) -> None:
        """Refuse columns of different lengths, and times that are none."""
        length = len(self.after_ms)
        for values in _columns(self):
            if isinstance(values, list) and len(values) != length:
                raise ValueError(f"a column of {len(values)} values for {length} ticks")
        # Nearly always in order, which takes a fifth of the time of `min` and `max`.
        in_order = sorted(self.after_ms)
        if self.time_msc + in_order[0] < 0 or self.time_msc + in_order[-1] > MAX_TIME_MSC:
            raise ValueError(f"times from {self.time_msc + in_order[0]} to {self.time_msc + in_order[-1]}")
        self.__dict__["in_order"] = in_order == self.after_ms


#: Ticks in the order in which they were sent.
Ticks = list[Tick] | Columns

_bid, _ask = map(attrgetter, ("bid", "ask"))


class Frame(Struct, gc=False, omit_defaults=True, kw_only=True):
    """One record of the ticks topic: the ticks of one source and symbol from one request."""

    #: Version of this encoding; always written. In version 2 the ticks are columns (`marketdata.wire.encode`).
    v: Literal[1, 2]
    source: Annotated[str, Meta(min_length=1, max_length=64)]
    symbol: Annotated[str, Meta(min_length=1, max_length=32)]
    mode: ChartMode
    #: Size of a point, in price units; null when the sender did not say.
    point: Annotated[float, Meta(gt=0)] | None
    request: str
    #: When the producer took the request (UTC epoch milliseconds).
    received: TimeMsc
    ticks: Annotated[list[Tick], Meta(min_length=1)] | RecordColumns
    #: The sender's times are whole seconds, so that equal ticks in a row are ordinary.
    coarse: bool = False


def joined(parts: Sequence[Ticks]) -> Ticks:
    """The ticks of all parts, one after the other: columns where all parts are, of which there must be one."""
    if parts and list not in set(map(type, parts)):
        return Columns.joined(parts)
    return list(chain.from_iterable(parts))


def values_of(ticks: Sequence[Tick] | Columns) -> TickValues:
    """The values of each field."""
    if isinstance(ticks, Columns):
        others: Any = map(ticks.column, FIELDS[1:])
        return (list(map(ticks.time_msc.__add__, ticks.after_ms)), *others)
    # Half the time of a getter for each of them.
    return (
        [tick.time_msc for tick in ticks], [tick.bid for tick in ticks], [tick.ask for tick in ticks],
        [tick.last for tick in ticks], [tick.volume for tick in ticks], [tick.flags for tick in ticks],
    )  # fmt: skip


def rows_of(ticks: Iterable[Tick] | Columns) -> Iterator[tuple[Any, ...]]:
    """The fields of each tick."""
    return zip(*values_of(ticks), strict=True) if isinstance(ticks, Columns) else map(astuple, ticks)


def content(frame: Frame) -> tuple[Any, ...]:
    """What a frame says, which is equal for both versions of its record."""
    return astuple(frame)[1:]


def period_of(time_msc: int, width_ms: int = MINUTE_MS) -> int:
    """Start of the period of `width_ms` that holds `time_msc` (UTC epoch milliseconds)."""
    return time_msc - time_msc % width_ms


def is_deal(flags: int) -> bool:
    """Whether a tick with these flags is a deal: its last price and volume are not repeated from an earlier one."""
    return bool(flags & DEAL_FLAGS) or not flags & FLAGS


def same(tick: Tick) -> Tick:
    """What two ticks have in common when they are the same one: all fields, and of the flags the documented bits.

    Live ticks have others (1030 was seen) that the history of the same tick lacks.
    """
    flags = tick.flags & FLAGS
    if flags == tick.flags:
        return tick
    return replace(tick, flags=flags)
