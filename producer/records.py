"""From one request to its records: frames of the ticks of each symbol, and the items that were rejected."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import astuple

from marketdata.candle import BrokerBar
from marketdata.contract.http import NOBODY, Detail, Sender
from marketdata.contract.tick import ReadTick
from marketdata.contract.times import Clock
from marketdata.tick import ChartMode, Frame, TickValues, no_values
from marketdata.wire import encode, frame_key, frame_ticks
from runtime.batches import Record
from runtime.rejected import HTTP, WHOLE_BODY, headers_of, size_header
from runtime.settings import Settings
from runtime.telemetry import TraceContext

#: No broker has as many symbols; beyond it senders invent names, and memory must not follow (entries).
MAX_KNOWN: Final = 20_000


class ChartModes:
    """The chart mode of each symbol by the settings; `patterns` are those charted by last price."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._known: dict[str, ChartMode] = {}

    def __getitem__(self, symbol: str) -> ChartMode:
        mode = self._known.get(symbol)
        if mode is None:
            # A name may hold what means something in a pattern: `[SP500]`.
            is_named = symbol in self._patterns or any(fnmatchcase(symbol, pattern) for pattern in self._patterns)
            mode = "last" if is_named else "bid"
            if len(self._known) < MAX_KNOWN:
                self._known[symbol] = mode
        return mode


#: Ticks of one record: about 1 MB, so that a reader's poll moves on (entries).
RECORD_TICKS: Final = 20_000

#: The most that one record holds, 140 bytes each at their longest (entries).
MAX_RECORD_TICKS: Final = 50_000


class Origin:
    """Where and when a request came from."""

    __slots__ = ("address", "can_fill", "headers", "is_fill", "received_ms", "sender", "source", "trace")

    def __init__(
        self,
        source: str,
        trace: str,
        context: TraceContext,
        received_ms: int,
        *,
        sender: Sender = NOBODY,
        address: str = "",
        can_fill: bool = False,
        is_fill: bool = False,
    ) -> None:
        self.source: Final = source
        self.sender: Final = sender
        #: The address that it came from; empty when the server does not tell.
        self.address: Final = address
        #: Whether its sender can fill what is wanted, and whether its ticks do.
        self.can_fill: Final = can_fill
        self.is_fill: Final = is_fill
        #: X-Trace-Id, or the id of its trace.
        self.trace: Final = trace
        #: UTC epoch milliseconds.
        self.received_ms: Final = received_ms
        #: Headers of the records that hold its ticks and bars.
        self.headers: Final = [("trace", trace.encode()), context.header]


class SymbolTicks:
    """The ticks of one symbol, in the order of the body.

    An object for each of them, whose fields then become columns, would take a third more time.
    """

    __slots__ = ("coarse", "mode", "point", "values")

    def __init__(self) -> None:
        self.values: Final = no_values()
        #: The first size of a point, and the first chart mode, that the sender says.
        self.point: float | None = None
        self.mode: ChartMode | None = None
        #: Whether any time is one of whole seconds.
        self.coarse = False

    @property
    def times(self) -> list[int]:
        """The time of each tick (UTC epoch milliseconds)."""
        return self.values[0]

    def parts(self) -> Iterable[TickValues]:
        """The ticks of each record."""
        if len(self.times) <= RECORD_TICKS:
            return (self.values,)
        return (tuple(of_field[part] for of_field in self.values) for part in record_parts(self.times))  # type: ignore[misc]  # of as many


class Newest(NamedTuple):
    """What is counted of the ticks of one symbol when Kafka has confirmed them."""

    symbol: str
    #: Of the last of them (UTC epoch milliseconds).
    time_msc: int
    point: float | None


class TicksBySymbol:
    """Sorts the ticks of a request by symbol; symbols keep the order in which they first came."""

    def __init__(self) -> None:
        self.symbols: dict[str, SymbolTicks] = {}
        #: How many of the ticks came late into their terminal's list, as their sender says.
        self.late = 0

    def count(self) -> int:
        """The number of ticks."""
        return sum(len(ticks.times) for ticks in self.symbols.values())

    def newest(self) -> list[Newest]:
        """The newest tick of each symbol."""
        return [Newest(symbol, ticks.times[-1], ticks.point) for symbol, ticks in self.symbols.items()]

    def add(self, read: ReadTick, time_msc: int) -> None:
        """Append a tick of this moment (UTC epoch milliseconds) to those of its symbol."""
        ticks = self.symbols.get(read.symbol)
        if ticks is None:
            ticks = self.symbols[read.symbol] = SymbolTicks()
        of_fields: tuple[list[Any], ...] = ticks.values
        for values, value in zip(of_fields, astuple(read.at(time_msc)), strict=True):
            values.append(value)
        if read.time.coarse:
            ticks.coarse = True
        if ticks.point is None:
            ticks.point = read.point
        if ticks.mode is None:
            ticks.mode = read.mode
        self.late += read.is_late


class ReadBody:
    """What a body was found to hold."""

    def __init__(self) -> None:
        #: The sender's; one for the whole body, for the order of its ticks tells in the hour that comes twice.
        self.clock: Clock | None = None
        self.ticks = TicksBySymbol()
        self.bars: list[BrokerBar] = []
        self.received = 0
        self.errors = 0
        #: The first of the errors, and the records that hold their items.
        self.details: list[Detail] = []
        self.rejects: list[Record] = []

    @property
    def symbols(self) -> Collection[str]:
        """The names of the symbols of ticks and bars."""
        return {*self.ticks.symbols, *(bar.symbol for bar in self.bars)} if self.bars else self.ticks.symbols


class FrameWriter:
    """Writes frames with the chart modes of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.ticks_topic
        self._modes = ChartModes(settings.last_mode_symbols)

    def records(self, by_symbol: TicksBySymbol, origin: Origin) -> list[Record]:
        """The records of each symbol, in the order of its ticks."""
        records = []
        for symbol, ticks in by_symbol.symbols.items():
            key = frame_key(origin.source, symbol)
            for values in ticks.parts():
                version, written = frame_ticks(values)
                frame = Frame(
                    v=version,
                    source=origin.source,
                    symbol=symbol,
                    mode=ticks.mode or self._modes[symbol],
                    point=ticks.point,
                    request=origin.trace,
                    received=origin.received_ms,
                    ticks=written,  # type: ignore[arg-type]  # columns that need no check
                    coarse=ticks.coarse,
                )
                # Kafka refuses records that are more than an hour ahead.
                timestamp_ms = min(values[0][0], origin.received_ms)
                records.append(Record(self._topic, key, encode(frame), timestamp_ms, origin.headers))
        return records


def record_parts(times: list[int], usual: int = RECORD_TICKS, most: int = MAX_RECORD_TICKS) -> Iterator[slice]:
    """The ticks of one symbol in parts of `usual` ticks or fewer, by their times (UTC epoch milliseconds).

    A part ends where every later tick has a later time: the fold takes a frame that goes back, or repeats the last
    millisecond, for a resend. Until such a place comes a part may grow to `most` ticks, where it ends in any case.
    """
    earliest_from = list(accumulate(reversed(times), min))[::-1]
    begin = 0
    while begin < len(times):
        end = _part_end(times, earliest_from, begin, usual, most)
        yield slice(begin, end)
        begin = end


def _part_end(times: Sequence[int], earliest_from: Sequence[int], begin: int, usual: int, most: int) -> int:
    if len(times) - begin <= usual:
        return len(times)
    found, latest = 0, times[begin]
    for end in range(begin + 1, min(begin + most, len(times)) + 1):
        latest = max(latest, times[end - 1])
        if end == len(times) or latest < earliest_from[end]:
            if found and end - begin > usual:
                break
            found = end
            if end - begin >= usual:
                break
    return found or begin + most


#: The most that is stored of one item or one body (bytes).
_MAX_BYTES: Final = 64 * 1024


class RejectWriter:
    """Writes records of `ticks.rejected`: the item, with the reason in the headers."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.ticks_rejected_topic

    def item(self, item: object, index: int, reason: str, origin: Origin) -> Record:
        """The record of item `index` of a body."""
        return self._record(_json_of(item), index, reason, origin)

    def body(self, body: bytes, reason: str, origin: Origin) -> Record:
        """The record of a body that has no items."""
        return self._record(body, WHOLE_BODY, reason, origin)

    def _record(self, value: bytes, index: int, reason: str, origin: Origin) -> Record:
        headers = [
            *headers_of(reason, HTTP, -1, index),
            ("source", origin.source.encode()),
            *origin.headers,
        ]
        if len(value) > _MAX_BYTES:
            headers.append(size_header(len(value)))
        return Record(self._topic, origin.source.encode(), value[:_MAX_BYTES], origin.received_ms, headers)


def _json_of(item: object) -> bytes:
    """The item as JSON; what JSON cannot say (NaN, half a surrogate) as Python writes it."""
    try:
        text = msgspec.json.encode(item)
        if b"null" not in text:
            return text
        # msgspec writes NaN as null, and the one is not the other.
        return json.dumps(item, separators=(",", ":")).encode()
    except RecursionError:
        return b'"nested too deeply"'
    except (UnicodeEncodeError, ValueError, OverflowError, msgspec.MsgspecError):
        return _as_python_writes_it(item)


def _as_python_writes_it(item: object) -> bytes:
    try:
        return json.dumps(item, separators=(",", ":")).encode()
    except (RecursionError, ValueError):  # ValueError: more digits than Python converts
        return b'"cannot be written as JSON"'
