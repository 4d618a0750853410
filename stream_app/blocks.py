"""Decodes and folds a backlog of frames by columns as arrays: all symbols of a poll in one go. Pure.

Only what is plain is taken: records as the producer writes them, of a symbol charted by bid, in order of time, without
volumes. Whatever is not, even in the way it is written, is left to `marketdata.wire`, which judges it, and folded as
any other frame. What is taken gives the same candles (tests/unit/stream_app/test_blocks.py folds both ways).
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, overload

import numpy as np
from simdjson import Parser

from marketdata.backlog import Flow
from marketdata.errors import InvalidFrame
from marketdata.heads import Head
from marketdata.parts import FlowFrames, Outline
from marketdata.resends import repeats
from marketdata.runs import Record
from marketdata.tick import MAX_TIME_MSC, Frame, RecordColumns, Ticks, joined, period_of
from marketdata.wire import decode_frame
from stream_app.outlines import BlockTicks, FrameArrays

#: What `marketdata.wire.encode` writes, in its order. A name that comes twice is one too many.
_FRAME: Final = ["v", "source", "symbol", "mode", "point", "request", "received", "ticks"]
_COLUMNS: Final = ["time_msc", "after_ms", "bid", "ask", "flags"]

#: How the record of a frame begins that has too few ticks for columns.
_FEW: Final = b'{"v":1,'

#: What simdjson raises: no JSON, no such field, another type, a number of more than 64 bits; and `decode_frame`.
_NOT_PLAIN: Final = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, InvalidFrame)


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

    __slots__ = (
        "_count",
        "_first",
        "_last",
        "_run",
        "first_offset",
        "form",
        "last_offset",
        "outline",
        "received",
        "ts",
    )

    #: Such frames are not taken.
    has_volume = False

    def __init__(self, run: "BlockRun", frames: tuple[int, int], ts: int, count: int, outline: Outline | None) -> None:
        """`frames` are the first one and the one after the last."""
        first, last = frames
        self._run, self._first, self._last, self._count = run, first, last, count
        self.ts = ts
        self.outline = outline
        self.form = run.form
        offsets = run.offsets
        self.first_offset, self.last_offset = offsets[first], offsets[last - 1]
        self.received = run.received[last - 1]

    def __len__(self) -> int:
        return self._count

    @property
    def offsets(self) -> Sequence[int]:
        """The offsets of all frames."""
        return self._run.offsets[self._first : self._last]

    @property
    def frames(self) -> Sequence[Frame]:
        """The frames, whole."""
        return self._run.frames[self._first : self._last]

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

    __slots__ = ("_parts", "_size", "earliest", "form", "frames", "latest", "offsets", "received", "values", "width_ms")

    def __init__(self, flow: "BlockFlow", width_ms: int, size: int, earliest: int, latest: int) -> None:
        self.form = flow.head.frame
        self.frames = flow.frames
        self.received = flow.received
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

    def __init__(self, head: Head, records: Sequence[Record], arrays: Sequence[FrameArrays]) -> None:
        self.head = head
        self.arrays = arrays
        self.values = [record.value or b"" for record in records]
        self.received = [one.received for one in arrays]
        super().__init__(head.key, records, RecordFrames(self.values, self.received))
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
            arrays = self._arrays(head, records)
            if arrays is None:
                left += records
            else:
                found.append(BlockFlow(head, records, arrays))
        plain = _outlined(found, width_ms) if found else []
        left += [record for flow in found if flow.whole is None for record in flow.records]
        return plain, left

    def _arrays(self, head: Head, records: Sequence[Record]) -> list[FrameArrays] | None:
        if head.frame.mode != "bid":
            return None
        try:
            return [
                _arrays_of_few(record.value) if record.value.startswith(_FEW) else self._arrays_of(record.value)
                for record in records
                if record.value is not None
            ]
        except _NOT_PLAIN:
            return None

    def _arrays_of(self, value: bytes) -> FrameArrays:
        """Raises one of `_NOT_PLAIN` where `marketdata.wire` has to judge."""
        frame: Any = self._parser.parse(value)
        ticks = frame["ticks"]
        received, time_msc, flags = frame["received"], ticks["time_msc"], ticks["flags"]
        after_ms = np.frombuffer(ticks["after_ms"].as_buffer(of_type="i"), np.int64)
        bid = np.frombuffer(ticks["bid"].as_buffer(of_type="d"))
        ask = np.frombuffer(ticks["ask"].as_buffer(of_type="d"))
        count = len(after_ms)
        brackets, flags_count = 3, count
        if type(flags) is not int:
            brackets, flags_count = 4, len(np.frombuffer(flags.as_buffer(of_type="i"), np.int64))
        elif flags >= 2**63:
            raise ValueError("flags of more than 64 bits")
        if not (
            0 < count == len(bid) == len(ask) == flags_count
            and list(frame) == _FRAME
            and list(ticks) == _COLUMNS
            # Arrays inside of an array were taken for its own values.
            and value.count(b"[") == brackets
            and type(frame["request"]) is str
            and type(received) is type(time_msc) is int
            and 0 <= received <= MAX_TIME_MSC
            and 0 <= time_msc <= MAX_TIME_MSC
        ):
            raise ValueError("not as the producer writes it")
        return FrameArrays(received, time_msc, after_ms, bid, ask)


def _arrays_of_few(value: bytes) -> FrameArrays:
    """The same of a frame that is not written as columns."""
    frame = decode_frame(value)
    ticks = frame.ticks
    if frame.coarse or any(tick.volume for tick in ticks):
        raise ValueError("not plain")
    return FrameArrays(
        frame.received,
        0,
        np.array([tick.time_msc for tick in ticks]),
        np.array([tick.bid for tick in ticks]),
        np.array([tick.ask for tick in ticks]),
    )


def _outlined(flows: list[BlockFlow], width_ms: int) -> list[BlockFlow]:
    """Those of the flows that are runs, which they have then."""
    ticks = BlockTicks.of([flow.arrays for flow in flows])
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
    for first, last, ts, count, is_plain, outline in ticks.parts(width_ms):
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
