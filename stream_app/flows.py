"""A block: records of many symbols whose ticks are arrays, and what the fold takes of them. Pure.

What is taken gives the same candles as folding in the order of the log (tests/unit/stream_app/test_blocks.py folds both
ways).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, overload

from marketdata.backlog import Flow
from marketdata.heads import Head
from marketdata.packed import PackedTicks
from marketdata.parts import FlowFrames, Outline
from marketdata.resends import repeats
from marketdata.runs import Record
from marketdata.tick import Frame, RecordColumns, Ticks, joined, period_of
from marketdata.wire import decode_frame
from stream_app.outlines import BlockTicks, Span

_RECEIVED: Final = b'"received":'


def received_in(value: bytes) -> int:
    """When the producer took the request of a frame (UTC epoch milliseconds), where its ticks were read as rows."""
    # Nothing else in it is written so but this field.
    begin = value.find(_RECEIVED) + len(_RECEIVED)
    return int(value[begin : value.find(b",", begin)])


class RecordFrames(FlowFrames):
    """Frames by the records that hold them; each is decoded when it is asked for."""

    __slots__ = ("_made", "_records")

    def __init__(self, records: Sequence[bytes]) -> None:
        self._records = records
        # Hardly any is asked for.
        self._made: dict[int, Frame] | None = None

    def received(self, index: int) -> int:
        """When the producer took the request of a frame (UTC epoch milliseconds)."""
        return self[index].received

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> "RecordFrames": ...
    def __getitem__(self, index: int | slice) -> "Frame | RecordFrames":
        if isinstance(index, slice):
            return RecordFrames(self._records[index])
        at = index if index >= 0 else index + len(self._records)
        if self._made is None:
            self._made = {}
        if (frame := self._made.get(at)) is None:
            record = self._records[at]
            frame = self._made[at] = decode_frame(record)
            if isinstance(frame.ticks, RecordColumns):
                frame.ticks.came_as(record)
        return frame


class Block:
    """Records of many symbols, one symbol after the other, each symbol's in the order of the log."""

    def __init__(
        self,
        records: Sequence[Record],
        order: Sequence[int],
        ticks: BlockTicks,
        width_ms: int,
        *,
        received: Sequence[int] | None = None,
        rows: bytes | None = None,
    ) -> None:
        """`order` are the indices of the records; `received` are known of columns, `rows` are there of others.

        Rows are the ticks as `PackedTicks` takes them; without them the records are kept.
        """
        self._records = records
        self._order = order
        self.ticks = ticks
        self.width_ms = width_ms
        self.rows = rows
        self.offsets = [records[at].offset for at in order]
        self._received = received
        # Frame, and when it was received.
        self._newest = (-1, 0)

    def record(self, frame: int) -> Record:
        """The record of a frame."""
        return self._records[self._order[frame]]

    def records(self, first: int, last: int) -> list[Record]:
        """The same of the frames from `first` to before `last`."""
        return [self._records[at] for at in self._order[first:last]]

    def values(self, first: int, last: int) -> list[bytes]:
        """The values of these records."""
        return [self._records[at].value or b"" for at in self._order[first:last]]

    def received(self, frame: int) -> int:
        """When the producer took the request of a frame (UTC epoch milliseconds)."""
        if self._received is not None:
            return self._received[frame]
        # The same one is asked for by the fold, and for the origin of what it folds.
        if frame != self._newest[0]:
            self._newest = frame, received_in(self.record(frame).value or b"")
        return self._newest[1]


class BlockPart:
    """What is of one period in a flow of a block."""

    __slots__ = ("_block", "_count", "_first", "_first_tick", "_last", "form", "outline", "ts")

    #: Such frames are not taken.
    has_volume = False

    def __init__(self, block: Block, form: Frame, span: Span, outline: Outline | None) -> None:
        self._block = block
        self._first, self._last, self._first_tick, self._count, self.ts = span
        self.form = form
        self.outline = outline

    def __len__(self) -> int:
        return self._count

    @property
    def first_offset(self) -> int:
        """The offset of the first frame."""
        return self._block.offsets[self._first]

    @property
    def last_offset(self) -> int:
        """The offset of the last frame."""
        return self._block.offsets[self._last - 1]

    @property
    def received(self) -> int:
        """When the producer took the request of the last frame (UTC epoch milliseconds)."""
        return self._block.received(self._last - 1)

    @property
    def offsets(self) -> Sequence[int]:
        """The offsets of all frames."""
        return self._block.offsets[self._first : self._last]

    @property
    def frames(self) -> Sequence[Frame]:
        """The frames, whole."""
        return RecordFrames(self._block.values(self._first, self._last))

    def keep(self, held: PackedTicks) -> None:
        """Keep the ticks in case they are sent again."""
        block = self._block
        if block.rows is None:
            held.add_records(block.values(self._first, self._last), self._count)
        else:
            held.add_rows(block.rows, self._first_tick, self._count)

    @property
    def latest(self) -> int:
        """Time of the last tick (UTC epoch milliseconds)."""
        return int(self._block.ticks.time_msc[self._first_tick + self._count - 1])

    @property
    def ticks(self) -> Ticks:
        """The ticks, which are decoded here."""
        width_ms = self._block.width_ms
        ticks = joined([frame.ticks for frame in self.frames])
        return [tick for tick in ticks if period_of(tick.time_msc, width_ms) == self.ts]


class BlockFlow(Flow):
    """The records of one symbol in a block, which are a run."""

    def __init__(self, head: Head, block: Block, frames: tuple[int, int], span: tuple[int, int, int]) -> None:
        """`frames` are the first one and the one after the last, `span` is one of `BlockTicks.spans`."""
        self.key = head.key
        self._block = block
        self._first, self._last = frames
        self._size, self.earliest, self.latest = span
        self._parts: list[BlockPart] = []

    def run(self) -> "BlockFlow":
        """The run of the frames."""
        return self

    def __len__(self) -> int:
        return self._size

    @property
    def ends(self) -> RecordFrames:
        """The first and the last frame."""
        # Not through the block, which would stay in memory with the last of them.
        block = self._block
        return RecordFrames([block.record(at).value or b"" for at in (self._first, self._last - 1)])

    def add(self, part: BlockPart) -> None:
        """Add the next part."""
        self._parts.append(part)

    def parts(self, width_ms: int) -> Sequence[BlockPart]:
        """The run by periods, in order; `width_ms` is that of the block."""
        return self._parts

    @property
    def first_offset(self) -> int:
        """The offset of the first record."""
        return self._block.offsets[self._first]

    def origin(self, offset: int) -> tuple[int, Record]:
        """When the frame at this offset was received (UTC epoch milliseconds), and its record."""
        at = bisect_left(self._block.offsets, offset, self._first, self._last)
        return self._block.received(at), self._block.record(at)


def flows_of(block: Block, heads: Sequence[Head]) -> tuple[list[BlockFlow], list[Record]]:
    """The flows of the symbols that `heads` are those of, and the records of those that are no runs."""
    ticks = block.ticks
    frames = ticks.frames
    refused = _not_runs(block)
    flows = [
        BlockFlow(head, block, of_symbol, span)
        for head, of_symbol, span in zip(heads, pairwise(frames), ticks.spans(), strict=True)
    ]
    symbol, after = -1, 0
    for span, outline in ticks.parts(block.width_ms):
        if span[0] >= after:
            symbol += 1
            after = frames[symbol + 1]
        flows[symbol].add(BlockPart(block, heads[symbol].frame, span, outline))
    if not refused:
        return flows, []
    left = [record for at in refused for record in block.records(frames[at], frames[at + 1])]
    return [flow for at, flow in enumerate(flows) if at not in refused], left


def _not_runs(block: Block) -> set[int]:
    ticks = block.ticks
    refused = ticks.out_of_order()
    frames = ticks.frames
    for frame in ticks.touching():
        symbol = bisect_right(frames, frame) - 1
        if frame != frames[symbol] and symbol not in refused:
            before, again = RecordFrames(block.values(frame - 1, frame + 1))
            if repeats(before, again, int(ticks.time_msc[ticks.starts[frame]])):
                refused.add(symbol)
    return refused
