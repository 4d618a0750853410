"""From the ticks of one request to the records of `ticks`: one frame for each symbol."""

from typing import Final

from marketdata.contract.tick import ReadTick
from marketdata.tick import ChartMode, Frame, Tick
from marketdata.wire import encode, frame_key
from producer.flush import Record
from producer.symbols import ChartModes
from runtime.settings import Settings
from runtime.trace import TraceContext


class Origin:
    """Where and when a request came from; every record of it says so."""

    __slots__ = ("headers", "received_ms", "source", "trace")

    def __init__(self, source: str, trace: str, context: TraceContext, received_ms: int) -> None:
        self.source: Final = source
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
        """One record for each symbol."""
        records = []
        for symbol, ticks in by_symbol.symbols.items():
            frame = Frame(
                v=1,
                source=origin.source,
                symbol=symbol,
                mode=ticks.mode or self._modes[symbol],
                point=ticks.point,
                request=origin.trace,
                received=origin.received_ms,
                ticks=ticks.ticks,
                coarse=ticks.coarse,
            )
            # Kafka refuses records that are more than an hour ahead.
            timestamp_ms = min(ticks.ticks[0].time_msc, origin.received_ms)
            records.append(
                Record(self._topic, frame_key(origin.source, symbol), encode(frame), timestamp_ms, origin.headers)
            )
        return records
