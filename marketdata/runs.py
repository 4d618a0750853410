"""Runs of frames: many frames of one source and symbol in order of time, which fold in one go. Pure.

A backlog is read in polls of thousands of records, nearly all of them plain forward flow. Folded together they take
less time than frame by frame and give the same candles (tests/unit/marketdata/test_runs.py folds both ways). What is
not a run, such as a resend or late ticks, is folded frame by frame.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, compress, islice
from operator import attrgetter, eq
from typing import NamedTuple, Protocol, Self, overload

from marketdata.offsets import Ranges, spans
from marketdata.resends import repeats
from marketdata.tick import MAX_TIME_MSC, MINUTE_MS, Columns, Frame, Ticks, period_of

#: Fewer ticks than this fold as fast frame by frame.
MIN_TICKS = 8

#: Frames that are folded together, with their offsets.
Chunk = Sequence[tuple[int, Frame]]

#: Ticks of minutes that are not complete; more are folded.
_MOST_HELD = 100_000

#: Many more bytes than this, once decoded, do not stay in the processor's cache until they are folded.
_PIECE_BYTES = 192 * 1024

#: With many symbols a piece is larger, so that it has a run of most of them: some sixteen single ticks. Beyond the most
#: it takes longer than other work may wait, and what it decodes to takes tens of megabytes.
_SYMBOL_BYTES = 3 * 1024
_MAX_PIECE_BYTES = 4 * 1024 * 1024

_form = attrgetter("mode", "point", "coarse")
_time = attrgetter("time_msc")


#: By source and symbol the frames of a chunk in order, their offsets first.
Flows = Mapping[tuple[str, str], tuple[Sequence[int], Sequence[Frame]]]


def flows(chunk: Chunk, first: int = 0) -> dict[tuple[str, str], tuple[list[int], list[Frame]]]:
    """The chunk from offset `first` on by source and symbol: offsets and frames, in their order."""
    by_key: dict[tuple[str, str], tuple[list[int], list[Frame]]] = {}
    for offset, frame in chunk:
        if offset >= first:
            key = (frame.source, frame.symbol)
            flow = by_key.get(key)
            if flow is None:
                flow = by_key[key] = ([], [])
            flow[0].append(offset)
            flow[1].append(frame)
    return by_key


class ColumnFrames(Sequence[Frame]):
    """Frames of one source, symbol and form whose ticks are columns; a frame is made when it is asked for."""

    __slots__ = ("_made", "_make", "_numbers", "starts", "ticks")

    def __init__(
        self,
        ticks: Columns,
        starts: Sequence[int],
        make: Callable[[int, Ticks], Frame],
        numbers: range | None = None,
        made: dict[int, Frame] | None = None,
    ) -> None:
        """`starts` are the indices of each frame's first tick, `make` makes the frame of a number from its ticks.

        `numbers` are those of the frames in this part of them, `made` those that all parts have made.
        """
        #: Of all frames, also where this is a part of them.
        self.ticks = ticks
        self.starts = starts
        self._make = make
        self._numbers = range(len(starts)) if numbers is None else numbers
        self._made: dict[int, Frame] = {} if made is None else made

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> "ColumnFrames": ...
    def __getitem__(self, index: int | slice) -> "Frame | ColumnFrames":
        if isinstance(index, slice):
            return ColumnFrames(self.ticks, self.starts, self._make, self._numbers[index], self._made)
        number = self._numbers[index]
        if (frame := self._made.get(number)) is None:
            end = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.ticks)
            frame = self._made[number] = self._make(number, self.ticks[self.starts[number] : end])
        return frame


def too_few(chunk: Chunk, symbols: int) -> bool:
    """Whether the chunk has too few frames of each of so many symbols for runs of several, so that it is not sorted."""
    return len(chunk) < MIN_TICKS * symbols


class Part(NamedTuple):
    """The ticks of one period in a run, and the frames that hold them."""

    #: Start of the period (UTC epoch milliseconds).
    ts: int
    offsets: Sequence[int]
    frames: Sequence[Frame]
    ticks: Ticks


class Run:
    """Frames of one source and symbol that follow each other in the log, of one form and without a resend inside.

    Times never go back, neither within a frame nor from one to the next, so all frames belong to one pass.
    """

    __slots__ = ("_since_ms", "_starts", "_ticks", "_times", "frames", "offsets")

    def __init__(
        self,
        offsets: Sequence[int],
        frames: Sequence[Frame],
        ticks: Ticks,
        times: list[int],
        starts: Sequence[int],
    ) -> None:
        self.offsets = offsets
        self.frames = frames
        self._ticks = ticks
        # Of columns as they are there, which count from a time of their own.
        self._times = times
        self._since_ms = ticks.time_msc if isinstance(ticks, Columns) else 0
        # Index of the first tick of each frame.
        self._starts = starts

    @classmethod
    def of(cls, offsets: Sequence[int], frames: Sequence[Frame]) -> Self | None:
        """The run of these frames, or None when they are none or too few to gain by it."""
        ticks: Ticks
        starts: Sequence[int]
        if isinstance(frames, ColumnFrames):
            if len(frames.ticks) < MIN_TICKS:
                return None
            ticks, times, starts = frames.ticks, frames.ticks.after_ms, frames.starts
        else:
            parts = [frame.ticks for frame in frames]
            lengths = list(map(len, parts))
            if sum(lengths) < MIN_TICKS or len(set(map(_form, frames))) > 1:
                return None
            if set(map(type, parts)) == {list}:
                ticks = list(chain.from_iterable(parts))
                times = list(map(_time, ticks))
            else:
                ticks = Columns.joined(parts)
                times = ticks.after_ms
            starts = range(len(ticks)) if len(ticks) == len(frames) else [0, *accumulate(lengths[:-1])]
        if times != sorted(times):
            return None
        if _repeats_within(frames, times, starts):
            return None
        return cls(offsets, frames, ticks, times, starts)

    def __len__(self) -> int:
        """Number of ticks."""
        return len(self._ticks)

    @property
    def earliest(self) -> int:
        """Time of the first tick (UTC epoch milliseconds)."""
        return self._since_ms + self._times[0]

    @property
    def latest(self) -> int:
        """Time of the last tick (UTC epoch milliseconds)."""
        return self._since_ms + self._times[-1]

    def parts(self, width_ms: int) -> Iterator[Part]:
        """The run by periods of `width_ms`, in order."""
        begin = 0
        while begin < len(self._times):
            ts = period_of(self._since_ms + self._times[begin], width_ms)
            end = bisect_left(self._times, ts + width_ms - self._since_ms, begin)
            yield self._part(ts, begin, end)
            begin = end

    def within(self, first: int, last: int) -> Self | None:
        """What the offsets from `first` to `last` hold of the run; None when that is nothing."""
        begin, end = bisect_left(self.offsets, first), bisect_right(self.offsets, last)
        if begin == 0 and end == len(self.offsets):
            return self
        if begin == end:
            return None
        ticks_begin = self._starts[begin]
        ticks_end = self._starts[end] if end < len(self._starts) else len(self._ticks)
        return type(self)(
            self.offsets[begin:end], self.frames[begin:end],
            self._ticks[ticks_begin:ticks_end], self._times[ticks_begin:ticks_end],
            _shifted(self._starts[begin:end], ticks_begin),
        )  # fmt: skip

    def part(self, ts: int, width_ms: int) -> Part | None:
        """The ticks of the period of `width_ms` that begins at `ts`; None when the run has none of it."""
        begin = bisect_left(self._times, ts - self._since_ms)
        end = bisect_left(self._times, ts + width_ms - self._since_ms, begin)
        return self._part(ts, begin, end) if begin < end else None

    def _part(self, ts: int, begin: int, end: int) -> Part:
        first, last = bisect_right(self._starts, begin) - 1, bisect_right(self._starts, end - 1)
        return Part(ts, self.offsets[first:last], self.frames[first:last], self._ticks[begin:end])


def _repeats_within(frames: Sequence[Frame], times: Sequence[int], starts: Sequence[int]) -> bool:
    """Whether a frame begins in the millisecond in which the one before it ended, and repeats it."""
    begins: Iterable[int]
    if len(frames) == len(times):
        ends, begins = times, islice(times, 1, None)
    else:
        ends, begins = [times[start - 1] for start in starts[1:]], [times[start] for start in starts[1:]]
    # Found without a call of Python's for each frame, and those alone are looked at: frames of columns have to be made.
    touching = compress(range(1, len(frames)), map(eq, ends, begins))
    return any(repeats(frames[at - 1], frames[at], frames[at].ticks[0].time_msc) for at in touching)


def _shifted(starts: Sequence[int], by: int) -> Sequence[int]:
    return range(len(starts)) if isinstance(starts, range) else [start - by for start in starts]


class Counted(Protocol):
    """A minute, the records that it was folded from, and how many ticks its candle counts."""

    @property
    def ts(self) -> int: ...
    @property
    def ranges(self) -> Ranges: ...
    @property
    def ticks(self) -> int: ...


class FullMinutes:
    """Gives out the ticks of minutes whose records hold no more ticks than count, so that nothing needs to be folded.

    A fold counts some of the ticks that the records of a minute have. Where it counts as many, these are all of them,
    and where time never goes back they are in order.
    """

    def __init__(self, minutes: Sequence[Counted]) -> None:
        """`minutes` are ascending, those of one source and symbol."""
        self._minutes = minutes
        self._ends = [spans(minute.ranges[-1:])[0][1] for minute in minutes]
        self._held: Columns | None = None
        #: How many minutes were given out.
        self.given = 0
        #: False from the first minute on of which only a fold tells what counts.
        self.is_whole = True

    def feed(self, frames: Sequence[Frame], reached: int) -> Columns | None:
        """The ticks of the minutes that are complete with these frames, when all up to position `reached` was fed.

        None when there are none, or `is_whole` has become false.
        """
        if frames:
            parts = [frame.ticks for frame in frames]
            held = self._held = Columns.joined(parts if self._held is None else [self._held, *parts])
            # Of other charts a candle counts deals alone; whole seconds are no order.
            in_form = all(frame.mode == "bid" and not frame.coarse for frame in frames)
            in_order = held.after_ms == sorted(held.after_ms)
            self.is_whole = self.is_whole and in_form and in_order and len(held) <= _MOST_HELD
        end = bisect_right(self._ends, reached, self.given) if self.is_whole else self.given
        if end == self.given or self._held is None:
            return None
        complete = self._minutes[self.given : end]
        end_ms = complete[-1].ts + MINUTE_MS
        ticks = self._held.between(complete[0].ts, end_ms)
        self._held = self._held.between(end_ms, MAX_TIME_MSC + 1) or None
        self.given = end
        self.is_whole = len(ticks) == sum(minute.ticks for minute in complete)
        return ticks if self.is_whole else None


class Record(Protocol):
    """One record as a consumer hands it out, bare or not."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def timestamp_type(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


def in_pieces(records: Sequence[Record], symbols: int = 1) -> Iterator[Sequence[Record]]:
    """A poll in pieces to decode and fold one after the other; `symbols` are those that tick.

    Bytes bound a piece, not records: one of 200 ticks takes up to twice as long for each byte as one of one.
    """
    total_bytes = sum(len(record.value) for record in records if record.value is not None)
    piece_bytes = min(max(_PIECE_BYTES, symbols * _SYMBOL_BYTES), _MAX_PIECE_BYTES)
    step = max(1, piece_bytes * len(records) // max(1, total_bytes))
    return (records[begin : begin + step] for begin in range(0, len(records), step))
