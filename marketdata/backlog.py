"""Sorts a backlog of single ticks by symbol before it is decoded. Pure.

Decoded as a whole, a poll of thousands of records leaves the processor's cache before it is folded. Sorted first, the
records of one symbol are decoded and folded right away, whatever the number of symbols.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from marketdata.heads import SEAM, Head, Heads
from marketdata.parts import FlowFrames, ForwardRun
from marketdata.pieces import in_pieces
from marketdata.runs import Chunk, Flows, Record, Run, flows
from marketdata.wire import MIN_TICKS, numbered_frames

#: Fewer records are live flow: they are folded in the order of the log, and not sorted.
MIN_RECORDS: Final = 1_000

#: Records that are larger on average hold several ticks, and what they begin with takes little of the time (bytes).
_SINGLE_BYTES: Final = 300

#: Fewer bytes of such records are live flow: to put them together takes as long as it gains.
_MIN_LARGE_BYTES: Final = 32 * 1024

#: Records of one symbol that are decoded and folded at once.
FLOW_RECORDS: Final = 500

_offset = attrgetter("offset")


def single_ticks(records: Sequence[Record]) -> list[bytes] | None:
    """The values of the records where these are so many single ticks that it pays to sort them."""
    if len(records) < MIN_RECORDS:
        return None
    values = [record.value for record in records if record.value is not None]
    if len(values) < len(records) or sum(map(len, values)) > _SINGLE_BYTES * len(records):
        return None
    return values


class Flow:
    """Records of one source and symbol that follow each other, decoded."""

    def __init__(self, key: tuple[str, str], records: Sequence[Record], frames: FlowFrames) -> None:
        self.key = key
        self.records = records
        self.frames = frames
        self.offsets = [record.offset for record in records]

    @property
    def first_offset(self) -> int:
        """The offset of the first record."""
        return self.offsets[0]

    def run(self) -> ForwardRun | None:
        """Their run; None when they are none."""
        return Run.of(self.offsets, self.frames)

    def origin(self, offset: int) -> tuple[int, Record]:
        """When the frame at this offset was received (UTC epoch milliseconds), and its record."""
        at = bisect_left(self.offsets, offset)
        return self.frames.received(at), self.records[at]


class Sorted(NamedTuple):
    """Records of several ticks each, sorted."""

    #: By symbol in the order of the log, with a head that differs in the version at most.
    by_symbol: list[tuple[Head, list[Record]]]
    #: Those of symbols of which they have more than one chart mode or point, in no order.
    others: list[Record]
    #: Of the values of all of them (bytes).
    size: int

    def blocks(self, block_bytes: int) -> Iterator[list[tuple[Head, list[Record]]]]:
        """The sorted records in blocks of about so many bytes; the records of one symbol may be in several."""
        count = sum(len(records) for _, records in self.by_symbol) + len(self.others)
        step = max(1, block_bytes * count // self.size)
        block: list[tuple[Head, list[Record]]] = []
        room = step
        for head, records in self.by_symbol:
            begin = 0
            while begin < len(records):
                some = records[begin : begin + room]
                block.append((head, some))
                begin += len(some)
                room -= len(some)
                if not room:
                    yield block
                    block, room = [], step
        if block:
            yield block


class Sorter:
    """Sorts polls by what their records begin with."""

    def __init__(self) -> None:
        self.heads = Heads()

    def sort(self, records: Sequence[Record]) -> list[tuple[Head, list[Record]]] | None:
        """The records of each symbol, in their order; None when the poll is better folded in the order of the log."""
        values = single_ticks(records)
        if values is None:
            return None
        by_beginning = _by_beginning(records, values)
        if len(by_beginning) * MIN_TICKS > len(records):
            return None
        return self._with_heads(by_beginning)

    def sort_large(self, records: Sequence[Record]) -> Sorted | None:
        """The records of each symbol, where they have several ticks; None when these are few, or better not sorted."""
        values = [record.value for record in records if record.value is not None]
        size = sum(map(len, values))
        if len(values) < len(records) or size < max(_MIN_LARGE_BYTES, _SINGLE_BYTES * len(records)):
            return None
        by_symbol: dict[tuple[str, str], tuple[Head, list[Record]]] = {}
        odd = set()
        for begins, of_beginning in _by_beginning(records, values).items():
            head = self.heads.of(begins)
            if head is None:
                return None
            before = by_symbol.setdefault(head.key, (head, []))
            # Versions may differ: a frame of few ticks is written as the first one.
            if (head.frame.mode, head.frame.point) != (before[0].frame.mode, before[0].frame.point):
                odd.add(head.key)
            before[1].extend(of_beginning)
        for _, of_symbol in by_symbol.values():
            of_symbol.sort(key=_offset)
        others = [record for key in odd for record in by_symbol.pop(key)[1]]
        return Sorted(list(by_symbol.values()), others, size)

    def _with_heads(self, by_beginning: Mapping[bytes, list[Record]]) -> list[tuple[Head, list[Record]]] | None:
        flows, keys = [], set()
        for begins, records in by_beginning.items():
            head = self.heads.of(begins)
            # Of a symbol with two beginnings, say two points, the order of the log would be lost.
            if head is None or head.key in keys:
                return None
            keys.add(head.key)
            flows.append((head, records))
        return flows


def _by_beginning(records: Sequence[Record], values: Sequence[bytes]) -> Mapping[bytes, list[Record]]:
    """The records by what their values begin with, up to the request."""
    found: defaultdict[bytes, list[Record]] = defaultdict(list)
    for record, value in zip(records, values, strict=True):
        found[value[: value.find(SEAM)]].append(record)
    return found


def parts_of(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """The records of one symbol in parts, which are decoded and folded one after the other."""
    return (records[begin : begin + FLOW_RECORDS] for begin in range(0, len(records), FLOW_RECORDS))


def numbered_chunks(begin: int, records: Sequence[Record]) -> Iterator[Chunk]:
    """The frames of a poll in pieces, numbered by their offsets from `begin` on, without records that are none."""
    for piece in in_pieces(records):
        yield _numbered(begin, piece)


def numbered_flows(sorter: Sorter, begin: int, records: Sequence[Record]) -> Iterator[tuple[int, Flows]]:
    """The same by source and symbol, each part with the number up to which all are in it and those before it."""
    by_symbol = sorter.sort(records)
    if by_symbol is None:
        for piece in in_pieces(records):
            yield begin + piece[-1].offset, flows(_numbered(begin, piece))
        return
    for head, of_symbol in by_symbol:
        for part in parts_of(of_symbol):
            numbers = [begin + record.offset for record in part]
            frames = head.frames([record.value for record in part if record.value is not None])
            if frames is not None:
                yield begin + records[0].offset - 1, {head.key: (numbers, frames)}
            else:
                yield begin + records[0].offset - 1, flows(_numbered(begin, part))
    yield begin + records[-1].offset, {}


def _numbered(begin: int, records: Sequence[Record]) -> Chunk:
    return numbered_frames([(begin + record.offset, record.value) for record in records])
