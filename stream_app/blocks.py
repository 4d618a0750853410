"""Decodes and folds a backlog as arrays: all symbols of a poll in one go. Pure.

Only what is plain is taken: records as the producer writes them, of a symbol charted by bid, in order of time, without
volumes. Whatever is not, even in the way it is written, is left to `marketdata.wire`, which judges it, and folded as
any other frame.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from simdjson import Parser

from marketdata.backlog import Sorted, Sorter, single_ticks
from marketdata.errors import InvalidFrame
from marketdata.heads import SEAM, Head, Heads
from marketdata.runs import Record
from marketdata.tick import MAX_TIME_MSC
from marketdata.wire import MIN_TICKS, decode_frame
from stream_app.flows import Block, BlockFlow, flows_of
from stream_app.outlines import BlockTicks, FrameArrays, Places
from stream_app.rows import NOT_PLAIN, VOLUME, Rows, rows_of

#: What `marketdata.wire.encode` writes, in its order. A name that comes twice is one too many.
_FRAME: Final = ["v", "source", "symbol", "mode", "point", "request", "received", "ticks"]
_COLUMNS: Final = ["time_msc", "after_ms", "bid", "ask", "flags"]

#: How the record of a frame begins that has too few ticks for columns.
_FEW: Final = b'{"v":1,'

#: With fewer single ticks of each symbol it takes less time to fold them in the order of the log.
_MIN_OF_EACH: Final = 2

#: Records that are folded together when they are of many symbols: more take longer than other work may wait.
_MAX_TOGETHER: Final = 160_000

#: Single ticks of one symbol that are well worth being sorted out.
_WELL_WORTH: Final = 2 * MIN_TICKS

#: Flows of symbols that are plain, and the records of those that are not, in no order.
Found = tuple[list[BlockFlow], list[Record]]

#: Frames by columns that are made arrays and folded together. Of many more bytes the arrays have left the processor's
#: cache when they are folded.
_BLOCK_BYTES: Final = 512 * 1024


class Blocks:
    """Decodes records to arrays, and folds what is plain of each into outlines."""

    def __init__(self) -> None:
        self._parser = Parser()
        #: For what is not taken as well.
        self.sorter = Sorter()
        # Symbols in the newest large poll of single ticks.
        self._symbols = 0

    def wants_more(self, count: int) -> bool:
        """Whether `count` records have so few ticks of each symbol that they should wait for others of the backlog."""
        worth = self._symbols * MIN_TICKS <= _MAX_TOGETHER
        return worth and count < min(self._symbols * _WELL_WORTH, _MAX_TOGETHER)

    def take(self, records: Sequence[Record], width_ms: int) -> Iterable[Found] | None:
        """What is plain of a poll, block by block; None when the poll is better folded in the order of the log.

        The flows of a block are to be folded before the next one is asked for.
        """
        values = single_ticks(records)
        if values is not None:
            return None if self._are_too_few(values) else [self._of_rows(records, values, width_ms)]
        large = self.sorter.sort_large(records)
        if large is None:
            return None
        self._symbols = 0
        return self._of_columns(large, width_ms)

    def _are_too_few(self, values: Sequence[bytes]) -> bool:
        # Going by the poll before: to count them takes a tenth of the time of folding them.
        if len(values) >= self._symbols * _MIN_OF_EACH:
            return False
        self._symbols = len({value[: value.find(SEAM)] for value in values})
        return len(values) < self._symbols * _MIN_OF_EACH

    def _of_columns(self, large: Sorted, width_ms: int) -> Iterator[Found]:
        yield [], large.others
        # What follows on a record that is left must wait for it.
        behind: set[tuple[str, str]] = set()
        for some in large.blocks(_BLOCK_BYTES):
            heads: list[Head] = []
            taken: list[Record] = []
            arrays: list[list[FrameArrays]] = []
            left: list[Record] = []
            for head, records in some:
                found = None if head.key in behind else self._arrays(head, records)
                if found is None:
                    left += records
                    behind.add(head.key)
                else:
                    heads.append(head)
                    arrays.append(found)
                    taken += records
            flows, no_runs = _flows_of_columns(heads, taken, arrays, width_ms)
            if no_runs:
                behind |= {head.key for head in heads} - {flow.key for flow in flows}
            yield flows, left + no_runs

    def _of_rows(self, records: Sequence[Record], values: Sequence[bytes], width_ms: int) -> Found:
        heads = self.sorter.heads
        rows = rows_of(self._parser, values)
        symbols = rows.which
        of_each = [heads.of(begins) for begins in rows.beginnings]
        others = _others(rows, values, heads)
        self._symbols = len({head.key for head in of_each if head is not None} | others)
        # At last that of records that are not plain.
        is_plain = np.array([*_plain(of_each, others), False])
        # Sums of volumes are exact whole numbers, which no array adds up.
        traded = np.flatnonzero(rows.values[:, VOLUME])
        is_plain[symbols[np.searchsorted(np.cumsum(rows.counts), traded, "right")]] = False

        is_taken = is_plain[symbols]
        which = np.flatnonzero(is_taken)
        left = [] if len(which) == len(records) else [records[at] for at in np.flatnonzero(~is_taken).tolist()]
        if not len(which):
            return [], left
        order = which[np.argsort(symbols[which], kind="stable")]
        ticks = rows.values[_ticks_in(order, rows.counts)]
        own = symbols[order]
        firsts = np.concatenate(([0], np.flatnonzero(own[1:] != own[:-1]) + 1))
        block = Block(
            records,
            order.tolist(),
            BlockTicks.of_rows(ticks, rows.counts[order], [*firsts.tolist(), len(order)]),
            width_ms,
            rows=ticks.tobytes(),
        )
        flows, no_runs = flows_of(block, [head for at in own[firsts].tolist() if (head := of_each[at]) is not None])
        return flows, left + no_runs

    def _arrays(self, head: Head, records: Sequence[Record]) -> list[FrameArrays] | None:
        if head.frame.mode != "bid":
            return None
        try:
            return [
                _arrays_of_few(record.value) if record.value.startswith(_FEW) else self._arrays_of(record.value)
                for record in records
                if record.value is not None
            ]
        except (*NOT_PLAIN, InvalidFrame):
            return None

    def _arrays_of(self, value: bytes) -> FrameArrays:
        """Raises one of `NOT_PLAIN` where `marketdata.wire` has to judge."""
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


def _flows_of_columns(
    heads: Sequence[Head], records: list[Record], arrays: Sequence[Sequence[FrameArrays]], width_ms: int
) -> Found:
    ticks = BlockTicks.of(arrays) if arrays else None
    if ticks is None:
        return [], records
    received = [one.received for of_symbol in arrays for one in of_symbol]
    return flows_of(Block(records, range(len(records)), ticks, width_ms, received=received), heads)


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


def _others(rows: Rows, values: Sequence[bytes], heads: Heads) -> set[tuple[str, str]]:
    """Of which symbols there are records whose ticks were not read."""
    found: set[tuple[str, str]] = set()
    if rows.counts.all():
        return found
    for at in np.flatnonzero(rows.counts == 0).tolist():
        value = values[at]
        head = heads.of(value[: value.find(SEAM)])
        if head is not None:
            found.add(head.key)
            continue
        try:
            frame = decode_frame(value)
        except InvalidFrame:
            continue  # of no symbol
        found.add((frame.source, frame.symbol))
    return found


def _plain(heads: Sequence[Head | None], others: set[tuple[str, str]]) -> list[bool]:
    """Whose records may be taken: not those of a symbol that has other ones."""
    seen: set[tuple[str, str]] = set()
    odd = set(others)
    for head in heads:
        if head is not None:
            # Of two beginnings, say two points, the order of the log would be lost.
            (odd if head.key in seen else seen).add(head.key)
    return [head is not None and head.frame.mode == "bid" and head.key not in odd for head in heads]


def _ticks_in(order: Places, counts: Places) -> Places:
    """The indices of the ticks of records in another order."""
    ends = np.cumsum(counts)
    begins = (ends - counts)[order]
    of_each = counts[order]
    if int(ends[-1]) == len(counts) and (counts == 1).all():
        return begins
    shifts = begins - (np.cumsum(of_each) - of_each)
    return np.repeat(shifts, of_each) + np.arange(int(of_each.sum()))
