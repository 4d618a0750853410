"""Decodes and folds a backlog of frames by columns as arrays: all symbols of a poll in one go. Pure.

Only what is plain is taken: records as the producer writes them, of a symbol charted by bid, in order of time, without
volumes. Whatever is not, even in the way it is written, is left to `marketdata.wire`, which judges it, and folded as
any other frame. What is taken gives the same candles (tests/unit/stream_app/test_blocks.py folds both ways).
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from simdjson import Parser

from marketdata.backlog import Flow
from marketdata.errors import InvalidFrame
from marketdata.heads import Head
from marketdata.parts import FlowFrames, Outline
from marketdata.resends import repeats
from marketdata.runs import Record
from marketdata.tick import MAX_TIME_MSC, Frame, RecordColumns, Ticks, joined, period_of
from marketdata.wire import decode_frame

#: What `marketdata.wire.encode` writes, in its order. A name that comes twice is one too many.
_FRAME: Final = ["v", "source", "symbol", "mode", "point", "request", "received", "ticks"]
_COLUMNS: Final = ["time_msc", "after_ms", "bid", "ask", "flags"]

#: How the record of a frame begins that has too few ticks for columns.
_FEW: Final = b'{"v":1,'

#: What simdjson raises: no JSON, no such field, another type, a number of more than 64 bits; and `decode_frame`.
_NOT_PLAIN: Final = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, InvalidFrame)

_Times = NDArray[np.int64]
_Prices = NDArray[np.float64]


class _Columns(NamedTuple):
    """The ticks of one frame; times count from `time_msc`."""

    received: int
    time_msc: int
    after_ms: _Times
    bid: _Prices
    ask: _Prices


class RecordFrames(FlowFrames):
    """Frames by the records that hold them; each is decoded when it is asked for."""

    __slots__ = ("_made", "_received", "_records")

    def __init__(self, records: Sequence[bytes], received: Sequence[int]) -> None:
        self._records = records
        self._received = received
        self._made: dict[int, Frame] = {}

    def received(self, index: int) -> int:
        """When the producer took the request of a frame (UTC epoch milliseconds)."""
        return self._received[index]

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> "RecordFrames": ...
    def __getitem__(self, index: int | slice) -> "Frame | RecordFrames":
        if isinstance(index, slice):
            return RecordFrames(self._records[index], self._received[index])
        at = index if index >= 0 else index + len(self._records)
        if (frame := self._made.get(at)) is None:
            record = self._records[at]
            frame = self._made[at] = decode_frame(record)
            if isinstance(frame.ticks, RecordColumns):
                frame.ticks.came_as(record)
        return frame


class BlockPart:
    """What is of one period in a run of a block."""

    __slots__ = ("_count", "_first", "_last", "_run", "outline", "ts")

    #: Such frames are not taken.
    has_volume = False

    def __init__(self, run: "BlockRun", frames: tuple[int, int], ts: int, count: int, outline: Outline | None) -> None:
        """`frames` are the first one and the one after the last."""
        self._run = run
        self._first, self._last = frames
        self.ts = ts
        self._count = count
        self.outline = outline

    def __len__(self) -> int:
        return self._count

    @property
    def first_offset(self) -> int:
        """The offset of the first frame."""
        return self._run.offsets[self._first]

    @property
    def last_offset(self) -> int:
        """The offset of the last frame."""
        return self._run.offsets[self._last - 1]

    @property
    def offsets(self) -> Sequence[int]:
        """The offsets of all frames."""
        return self._run.offsets[self._first : self._last]

    @property
    def frames(self) -> Sequence[Frame]:
        """The frames, whole."""
        return self._run.frames[self._first : self._last]

    @property
    def form(self) -> Frame:
        """A frame of the same chart mode, point and kind of times."""
        return self._run.form

    @property
    def received(self) -> int:
        """When the producer took the request of the last frame (UTC epoch milliseconds)."""
        return self._run.frames.received(self._last - 1)

    @property
    def records(self) -> Sequence[bytes]:
        """The records of all frames."""
        return self._run.values[self._first : self._last]

    @property
    def latest(self) -> int:
        """Time of the last tick (UTC epoch milliseconds)."""
        return max(tick.time_msc for tick in self.ticks) if self.outline is None else self.outline.latest

    @property
    def ticks(self) -> Ticks:
        """The ticks, which are decoded here."""
        width_ms = self._run.width_ms
        ticks = joined([frame.ticks for frame in self.frames])
        return [tick for tick in ticks if period_of(tick.time_msc, width_ms) == self.ts]


class BlockRun:
    """The frames of one symbol in a block."""

    __slots__ = ("_parts", "_size", "earliest", "form", "frames", "latest", "offsets", "values", "width_ms")

    def __init__(self, flow: "BlockFlow", width_ms: int, size: int, earliest: int, latest: int) -> None:
        self.form = flow.head.frame
        self.frames = flow.frames
        self.values = flow.values
        self.offsets = flow.offsets
        self.width_ms = width_ms
        self.earliest = earliest
        self.latest = latest
        self._size = size
        self._parts: list[BlockPart] = []

    def __len__(self) -> int:
        return self._size

    def add(self, part: BlockPart) -> None:
        """Add the next part."""
        self._parts.append(part)

    def parts(self, width_ms: int) -> Sequence[BlockPart]:
        """The run by periods, in order; `width_ms` is that of the block."""
        return self._parts


class BlockFlow(Flow):
    """The records of one symbol in a block."""

    def __init__(self, head: Head, records: Sequence[Record], columns: Sequence[_Columns]) -> None:
        self.head = head
        self.columns = columns
        self.values = [record.value or b"" for record in records]
        super().__init__(head.key, records, RecordFrames(self.values, [one.received for one in columns]))
        #: Known when all symbols of the block are; None if it is no run.
        self.whole: BlockRun | None = None

    def run(self) -> BlockRun | None:
        """The run of the frames."""
        return self.whole


class Blocks:
    """Decodes records to arrays, and folds what is plain of each into outlines."""

    def __init__(self) -> None:
        self._parser = Parser()

    def flows(
        self, by_symbol: Iterable[tuple[Head, Sequence[Record]]], width_ms: int
    ) -> tuple[list[BlockFlow], list[Record]]:
        """The flows of symbols that are plain, for periods of `width_ms`, and the records of those that are not."""
        found: list[BlockFlow] = []
        left: list[Record] = []
        for head, records in by_symbol:
            columns = self._columns(head, records)
            if columns is None:
                left += records
            else:
                found.append(BlockFlow(head, records, columns))
        plain = _outlined(found, width_ms) if found else []
        left += [record for flow in found if flow.whole is None for record in flow.records]
        return plain, left

    def _columns(self, head: Head, records: Sequence[Record]) -> list[_Columns] | None:
        if head.frame.mode != "bid":
            return None
        try:
            return [
                _columns_of_few(record.value) if record.value.startswith(_FEW) else self._columns_of(record.value)
                for record in records
                if record.value is not None
            ]
        except _NOT_PLAIN:
            return None

    def _columns_of(self, value: bytes) -> _Columns:
        """Raises one of `_NOT_PLAIN` where `marketdata.wire` has to judge."""
        frame: Any = self._parser.parse(value)
        ticks = frame["ticks"]
        received, time_msc, flags = frame["received"], ticks["time_msc"], ticks["flags"]
        after_ms = np.frombuffer(ticks["after_ms"].as_buffer(of_type="i"), np.int64)
        bid = np.frombuffer(ticks["bid"].as_buffer(of_type="d"))
        ask = np.frombuffer(ticks["ask"].as_buffer(of_type="d"))
        count = len(after_ms)
        arrays, flags_count = 3, count
        if type(flags) is not int:
            arrays, flags_count = 4, len(np.frombuffer(flags.as_buffer(of_type="i"), np.int64))
        elif flags >= 2**63:
            raise ValueError("flags of more than 64 bits")
        if not (
            0 < count == len(bid) == len(ask) == flags_count
            and list(frame) == _FRAME
            and list(ticks) == _COLUMNS
            # Arrays inside of an array were taken for its own values.
            and value.count(b"[") == arrays
            and type(frame["request"]) is str
            and type(received) is type(time_msc) is int
            and 0 <= received <= MAX_TIME_MSC
            and 0 <= time_msc <= MAX_TIME_MSC
        ):
            raise ValueError("not as the producer writes it")
        return _Columns(received, time_msc, after_ms, bid, ask)


def _columns_of_few(value: bytes) -> _Columns:
    """The same of a frame that is not written as columns."""
    frame = decode_frame(value)
    ticks = frame.ticks
    if frame.coarse or any(tick.volume for tick in ticks):
        raise ValueError("not plain")
    return _Columns(
        frame.received,
        0,
        np.array([tick.time_msc for tick in ticks]),
        np.array([tick.bid for tick in ticks]),
        np.array([tick.ask for tick in ticks]),
    )


class _Ticks(NamedTuple):
    """The ticks of all frames of a block, one symbol after the other."""

    time_msc: _Times
    bid: _Prices
    ask: _Prices
    #: Index of the first tick of each frame, and at last the number of ticks.
    starts: _Times
    #: The first frame of each symbol, and at last the number of frames.
    frames: list[int]

    @classmethod
    def of(cls, flows: Sequence[BlockFlow]) -> "_Ticks | None":
        """None when a time is none."""
        columns = [one for flow in flows for one in flow.columns]
        after_ms = np.concatenate([one.after_ms for one in columns])
        # So that sums do not wrap around.
        if after_ms.min() < -MAX_TIME_MSC or after_ms.max() > MAX_TIME_MSC:
            return None
        lengths = [len(one.bid) for one in columns]
        time_msc = after_ms + np.repeat(np.array([one.time_msc for one in columns]), lengths)
        if time_msc.min() < 0 or time_msc.max() > MAX_TIME_MSC:
            return None
        bid, ask = np.concatenate([one.bid for one in columns]), np.concatenate([one.ask for one in columns])
        starts = np.array([0, *accumulate(lengths)])
        return cls(time_msc, bid, ask, starts, [0, *accumulate(len(flow.columns) for flow in flows)])

    def out_of_order(self) -> set[int]:
        """Which symbols have ticks that go back in time."""
        back = np.flatnonzero(self.time_msc[1:] < self.time_msc[:-1]) + 1
        firsts = self.starts[self.frames]
        back = back[~np.isin(back, firsts)]
        return set((np.searchsorted(firsts, back, "right") - 1).tolist())

    def touching(self) -> Iterator[int]:
        """Frames that begin in the millisecond in which the one before ends, with a tick of the same prices."""
        times, bid, ask, starts = self.time_msc, self.bid, self.ask, self.starts
        firsts = starts[1:-1]
        for frame in (np.flatnonzero(times[firsts] == times[firsts - 1]) + 1).tolist():
            first = starts[frame]
            begin = starts[frame - 1]
            # The first tick of that millisecond in the frame before.
            before = begin + np.searchsorted(times[begin:first], times[first])
            if bid[before] == bid[first] and ask[before] == ask[first]:
                yield frame


def _outlined(flows: list[BlockFlow], width_ms: int) -> list[BlockFlow]:
    """Those of the flows that are runs, which they have then."""
    ticks = _Ticks.of(flows)
    if ticks is None:
        return []
    refused = ticks.out_of_order()
    frames = ticks.frames
    for frame in ticks.touching():
        symbol = bisect_right(frames, frame) - 1
        own, at = flows[symbol].frames, frame - frames[symbol]
        if at and symbol not in refused and repeats(own[at - 1], own[at], int(ticks.time_msc[ticks.starts[frame]])):
            refused.add(symbol)

    times, firsts = ticks.time_msc, ticks.starts[frames].tolist()
    runs = [
        BlockRun(flow, width_ms, end - begin, int(times[begin]), int(times[end - 1]))
        for flow, (begin, end) in zip(flows, pairwise(firsts), strict=True)
    ]
    symbol, base, after = -1, 0, 0
    for first, last, ts, count, is_plain, outline in _parts(ticks, width_ms):
        if first >= after:
            symbol += 1
            base, after = frames[symbol], frames[symbol + 1]
        place = (first - base, last - base)
        run = runs[symbol]
        run.add(BlockPart(run, place, ts, count, Outline(*outline) if is_plain else None))
    plain = []
    for symbol, (flow, run) in enumerate(zip(flows, runs, strict=True)):
        if symbol not in refused:
            flow.whole = run
            plain.append(flow)
    return plain


def _parts(ticks: _Ticks, width_ms: int) -> Iterator[tuple[int, int, int, int, bool, tuple[Any, ...]]]:
    """Of each period of each symbol: first frame and the one after the last, start, ticks, whether plain, outline."""
    times, bid, ask, starts, _ = ticks
    periods = times // width_ms
    is_first = np.empty(len(times), np.bool_)
    is_first[0] = True
    np.not_equal(periods[1:], periods[:-1], out=is_first[1:])
    is_first[starts[ticks.frames[:-1]]] = True
    begins = np.flatnonzero(is_first)
    lasts = np.append(begins[1:], len(times)) - 1
    low, high = np.minimum.reduceat(bid, begins), np.maximum.reduceat(bid, begins)
    # JSON has neither infinity nor NaN.
    is_plain = (low > 0.0) & (np.minimum.reduceat(ask, begins) > 0.0)
    outlines = (
        bid[begins], high, low, bid[lasts], np.minimum.reduceat(ask - bid, begins), bid[lasts], ask[lasts],
        times[begins], times[lasts],
    )  # fmt: skip
    return zip(
        (np.searchsorted(starts, begins, "right") - 1).tolist(),
        np.searchsorted(starts, lasts, "right").tolist(),
        (periods[begins] * width_ms).tolist(),
        (lasts - begins + 1).tolist(),
        is_plain.tolist(),
        zip(*(column.tolist() for column in outlines), strict=True),
        strict=True,
    )
