"""Sorts a backlog of single ticks by symbol before it is decoded. Pure.

Decoded as a whole, a poll of thousands of records leaves the processor's cache before it is folded. Sorted first, the
records of one symbol are decoded and folded right away, whatever the number of symbols.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from marketdata.heads import Head, HeadFrames, beginning
from marketdata.runs import Record
from marketdata.wire import MIN_TICKS

#: Fewer records are live flow: they are folded in the order of the log, and not sorted.
MIN_RECORDS: Final = 1_000

#: Records that are larger on average hold several ticks, and what they begin with takes little of the time (bytes).
_SINGLE_BYTES: Final = 300

#: Records of one symbol that are decoded and folded at once.
FLOW_RECORDS: Final = 500

#: Beginnings that are remembered, more than any broker has symbols. A sender could vary them without end.
_MAX_HEADS: Final = 50_000


class Flow:
    """Records of one source and symbol that follow each other, decoded."""

    __slots__ = ("frames", "key", "offsets", "records")

    def __init__(self, key: tuple[str, str], records: Sequence[Record], frames: HeadFrames) -> None:
        self.key = key
        self.records = records
        self.frames = frames
        self.offsets = [record.offset for record in records]


class Sorter:
    """Sorts polls, and remembers what records begin with."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head | None] = {}
        #: Symbols in the newest poll that was sorted.
        self.symbols = 0

    def sort(self, records: Sequence[Record]) -> list[tuple[Head, list[Record]]] | None:
        """The records of each symbol, in their order; None when the poll is better folded in the order of the log."""
        if len(records) < MIN_RECORDS:
            return None
        by_beginning: dict[bytes, list[Record]] = {}
        size = 0
        for record in records:
            value = record.value
            if value is None:
                return None
            size += len(value)
            begins = beginning(value)
            found = by_beginning.get(begins)
            if found is None:
                by_beginning[begins] = [record]
            else:
                found.append(record)
        if size > _SINGLE_BYTES * len(records) or len(by_beginning) * MIN_TICKS > len(records):
            return None
        return self._with_heads(by_beginning)

    def _with_heads(self, by_beginning: dict[bytes, list[Record]]) -> list[tuple[Head, list[Record]]] | None:
        if len(self._heads) > _MAX_HEADS:
            self._heads.clear()
        flows, keys = [], set()
        for begins, records in by_beginning.items():
            if begins not in self._heads:
                self._heads[begins] = Head.of(begins)
            head = self._heads[begins]
            # Of a symbol with two beginnings, say two points, the order of the log would be lost.
            if head is None or head.key in keys:
                return None
            keys.add(head.key)
            flows.append((head, records))
        return flows


def parts_of(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """The records of one symbol in parts, which are decoded and folded one after the other."""
    return (records[begin : begin + FLOW_RECORDS] for begin in range(0, len(records), FLOW_RECORDS))
