"""From the ticks of one request to the records of `ticks`: one frame for each symbol, several when there are many."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from marketdata.contract.sender import NOBODY, Sender
from marketdata.contract.tick import ReadTick
from marketdata.tick import ChartMode, Frame, Tick
from marketdata.wire import encode, frame_key
from producer.flush import Record
from producer.symbols import ChartModes
from runtime.settings import Settings
from runtime.trace import TraceContext

#: Ticks of one record: about 1 MB, so that a reader's poll moves on (entries).
RECORD_TICKS: Final = 20_000

#: The most that one record holds, 140 bytes each at their longest (entries).
MAX_RECORD_TICKS: Final = 50_000


class Origin:
    """Where and when a request came from."""

    __slots__ = ("address", "headers", "received_ms", "sender", "source", "trace")

    def __init__(
        self,
        source: str,
        trace: str,
        context: TraceContext,
        received_ms: int,
        *,
        sender: Sender = NOBODY,
        address: str = "",
    ) -> None:
        self.source: Final = source
        self.sender: Final = sender
        #: The address that it came from; empty when the server does not tell.
        self.address: Final = address
        #: X-Trace-Id, or the id of its trace.
        self.trace: Final = trace
        #: UTC epoch milliseconds.
        self.received_ms: Final = received_ms
        #: Headers of the records that hold its ticks and bars.
        self.headers: Final = [("trace", trace.encode()), context.header]


class SymbolTicks:
    """The ticks of one symbol, in the order of the body."""

    __slots__ = ("coarse", "mode", "point", "ticks")

    def __init__(self) -> None:
        self.ticks: list[Tick] = []
        #: The first size of a point, and the first chart mode, that the sender says.
        self.point: float | None = None
        self.mode: ChartMode | None = None
        #: Whether any time is one of whole seconds.
        self.coarse = False


class TicksBySymbol:
    """Sorts the ticks of a request by symbol; symbols keep the order in which they first came."""

    def __init__(self) -> None:
        self.symbols: dict[str, SymbolTicks] = {}

    def count(self) -> int:
        """The number of ticks."""
        return sum(len(ticks.ticks) for ticks in self.symbols.values())

    def add(self, read: ReadTick, time_msc: int) -> None:
        """Append a tick of this moment (UTC epoch milliseconds) to those of its symbol."""
        ticks = self.symbols.get(read.symbol)
        if ticks is None:
            ticks = self.symbols[read.symbol] = SymbolTicks()
        ticks.ticks.append(read.at(time_msc))
        if read.time.coarse:
            ticks.coarse = True
        if ticks.point is None:
            ticks.point = read.point
        if ticks.mode is None:
            ticks.mode = read.mode


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
            for part in record_parts(ticks.ticks):
                frame = Frame(
                    v=1,
                    source=origin.source,
                    symbol=symbol,
                    mode=ticks.mode or self._modes[symbol],
                    point=ticks.point,
                    request=origin.trace,
                    received=origin.received_ms,
                    ticks=part,
                    coarse=ticks.coarse,
                )
                # Kafka refuses records that are more than an hour ahead.
                timestamp_ms = min(part[0].time_msc, origin.received_ms)
                records.append(Record(self._topic, key, encode(frame), timestamp_ms, origin.headers))
        return records


def record_parts(ticks: list[Tick], usual: int = RECORD_TICKS, most: int = MAX_RECORD_TICKS) -> Iterator[list[Tick]]:
    """The ticks of one symbol in parts of `usual` ticks or fewer.

    A part ends where every later tick has a later time: the fold takes a frame that goes back, or repeats the last
    millisecond, for a resend. Until such a place comes a part may grow to `most` ticks, where it ends in any case.
    """
    if len(ticks) <= usual:
        yield ticks
        return
    times = [tick.time_msc for tick in ticks]
    earliest_from = list(accumulate(reversed(times), min))[::-1]
    begin = 0
    while begin < len(ticks):
        end = _part_end(times, earliest_from, begin, usual, most)
        yield ticks[begin:end]
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
