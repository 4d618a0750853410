"""Runs of frames: many frames of one source and symbol in order of time, which fold in one go. Pure.

A backlog is read in polls of thousands of records, nearly all of them plain forward flow. Folded together they take
less time than frame by frame and give the same candles (tests/unit/marketdata/test_runs.py folds both ways). What is
not a run, such as a resend or late ticks, is folded frame by frame.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, compress, islice
from math import inf
from operator import add, attrgetter, eq, itemgetter
from typing import Protocol, Self, cast

from marketdata.aggregates import extremes
from marketdata.columnframes import ColumnFrames
from marketdata.heads import HeadFrames
from marketdata.packed import PackedTicks
from marketdata.parts import Outline
from marketdata.resends import repeats
from marketdata.tick import Columns, Frame, RecordColumns, Tick, Ticks, chained, is_deal, period_of
from marketdata.wire import MIN_TICKS

#: Frames that are folded together, with their offsets.
Chunk = Sequence[tuple[int, Frame]]

_form = attrgetter("mode", "point", "coarse")
_time, _bid, _ask, _last, _volume, _flags = map(attrgetter, ("time_msc", "bid", "ask", "last", "volume", "flags"))
_first = itemgetter(0)


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


def too_few(chunk: Chunk, symbols: int) -> bool:
    """Whether the chunk has too few ticks of each of so many symbols for runs of several, so that it is not sorted."""
    return len(chunk) < MIN_TICKS * symbols and not (chunk and isinstance(chunk[0][1].ticks, Columns))


class Run:
    """Frames of one source and symbol that follow each other in the log, of one form and without a resend inside.

    Times never go back, neither within a frame nor from one to the next, so all frames belong to one pass.
    """

    __slots__ = (
        "_after_ms", "_begins", "_ends", "_since_ms", "_starts", "ask", "bid", "columns", "frames", "has_volume",
        "is_finite", "offsets", "records", "ticks",
    )  # fmt: skip

    #: Whether every price is known to be finite.
    is_finite: bool
    #: Whether any tick has a volume.
    has_volume: bool
    #: The record of each frame, where they are of columns and came from the log; otherwise none.
    records: Sequence[bytes]
    ticks: list[Tick] | None
    columns: Sequence[Columns]
    bid: list[float]
    ask: list[float]
    # Times in segments, each of one frame or of all: what they count from, the times, the index of the first tick, and
    # the time of the last one.
    _since_ms: list[int]
    _after_ms: list[list[int]]
    _begins: Sequence[int]
    _ends: list[int]

    def __init__(self, offsets: Sequence[int], frames: Sequence[Frame], starts: Sequence[int] | None) -> None:
        self.offsets = offsets
        self.frames = frames
        # Index of the first tick of each frame; None when each has one.
        self._starts = starts

    @classmethod
    def of(cls, offsets: Sequence[int], frames: Sequence[Frame]) -> Self | None:
        """The run of these frames, or None when they are none or too few to gain by it."""
        if isinstance(frames, ColumnFrames):
            if len(frames.ticks) < MIN_TICKS:
                return None
            run = cls(offsets, frames, frames.starts)
            in_order = run.take_columns([frames.ticks])
        else:
            parts = frames.ticks if isinstance(frames, HeadFrames) else [frame.ticks for frame in frames]
            lengths = list(map(len, parts))
            if sum(lengths) < MIN_TICKS:
                return None
            if not (frames.are_alike if isinstance(frames, HeadFrames) else len(set(map(_form, frames))) == 1):
                return None
            run = cls(offsets, frames, None if sum(lengths) == len(frames) else [0, *accumulate(lengths[:-1])])
            kinds = set(map(type, parts))
            if kinds == {list}:
                in_order = run.take_ticks(list(chain.from_iterable(parts)))
            else:
                in_order = run.take_columns([Columns.joined(parts)] if list in kinds else cast(list[Columns], parts))
        return None if not in_order or run.repeats_within() else run

    def take_ticks(self, ticks: list[Tick]) -> bool:
        """Take the ticks of all frames; False when time goes back."""
        times = list(map(_time, ticks))
        self._since_ms, self._after_ms, self._begins, self._ends = [0], [times], [0], times[-1:]
        self.ticks, self.columns, self.records = ticks, (), ()
        self.bid, self.ask = list(map(_bid, ticks)), list(map(_ask, ticks))
        self.is_finite = False
        self.has_volume = any(map(_volume, ticks))
        return times == sorted(times)

    def take_columns(self, columns: Sequence[Columns]) -> bool:
        """Take the columns of each frame, or one of all; False when time goes back."""
        # The times stay as they came: to add up those of all frames takes longer than to decode them.
        self._since_ms, self._after_ms = [one.time_msc for one in columns], [one.after_ms for one in columns]
        self._begins = [0] if len(columns) == 1 else self._starts or range(len(columns))
        if not all(one.in_order for one in columns):
            return False
        self._ends = []
        latest = -1
        for since_ms, after_ms in zip(self._since_ms, self._after_ms, strict=True):
            if since_ms + after_ms[0] < latest:
                return False
            latest = since_ms + after_ms[-1]
            self._ends.append(latest)
        self.ticks, self.columns = None, columns
        if len(columns) == 1:
            self.bid, self.ask = columns[0].bid, columns[0].ask
        else:
            self.bid, self.ask = chained(map(_bid, columns)), chained(map(_ask, columns))
        self.records = [one.record for one in columns if isinstance(one, RecordColumns) and one.record is not None]
        if len(self.records) != len(self.frames):
            self.records = ()
        # JSON has neither infinity nor NaN.
        self.is_finite = set(map(type, columns)) == {RecordColumns}
        self.has_volume = any(map(_volume, columns))
        return True

    def repeats_within(self) -> bool:
        """Whether a frame begins in the millisecond in which the one before it ended, and repeats it."""
        frames, starts = self.frames, self._starts
        if len(frames) == 1:
            return False
        if len(self._ends) == len(frames):
            ends: Iterable[int] = self._ends
            begins: Iterable[int] = map(
                add, islice(self._since_ms, 1, None), map(_first, islice(self._after_ms, 1, None))
            )
        elif starts is None:
            ends, begins = self._after_ms[0], islice(self._after_ms[0], 1, None)
        else:
            times = self._after_ms[0]
            ends, begins = [times[start - 1] for start in starts[1:]], [times[start] for start in starts[1:]]
        # Found without a call of Python's for each frame, and those alone are looked at: frames of columns have to be
        # made.
        touching: Iterable[int] = compress(range(1, len(frames)), map(eq, ends, begins))
        if starts is None:
            bid, ask = self.bid, self.ask
            touching = (at for at in touching if bid[at] == bid[at - 1] and ask[at] == ask[at - 1])
        return any(repeats(frames[at - 1], frames[at], frames[at].ticks[0].time_msc) for at in touching)

    def __len__(self) -> int:
        """Number of ticks."""
        return len(self.bid)

    @property
    def ends(self) -> Sequence[Frame]:
        """Frames of which the first and the last are those of the run."""
        return self.frames

    @property
    def earliest(self) -> int:
        """Time of the first tick (UTC epoch milliseconds)."""
        return self._since_ms[0] + self._after_ms[0][0]

    @property
    def latest(self) -> int:
        """Time of the last tick (UTC epoch milliseconds)."""
        return self._ends[-1]

    def parts(self, width_ms: int) -> "Iterator[Part]":
        """The run by periods of `width_ms`, in order."""
        begin = segment = at = 0
        while segment < len(self._ends):
            ts = period_of(self._since_ms[segment] + self._after_ms[segment][at], width_ms)
            segment, at = self._place(ts + width_ms, segment)
            end = self._begins[segment] + at if segment < len(self._ends) else len(self.bid)
            yield Part(self, begin, end, ts)
            begin = end

    def within(self, first: int, last: int) -> "Part | None":
        """What the offsets from `first` to `last` hold of the run; None when that is nothing."""
        begin, end = bisect_left(self.offsets, first), bisect_right(self.offsets, last)
        if begin == end:
            return None
        if (starts := self._starts) is None:
            return Part(self, begin, end)
        return Part(self, starts[begin], starts[end] if end < len(starts) else len(self.bid))

    def time(self, index: int) -> int:
        """Time of a tick (UTC epoch milliseconds)."""
        segment = bisect_right(self._begins, index) - 1
        return self._since_ms[segment] + self._after_ms[segment][index - self._begins[segment]]

    def index(self, time_msc: int) -> int:
        """The index of the first tick that is not before `time_msc` (UTC epoch milliseconds)."""
        segment, at = self._place(time_msc)
        return self._begins[segment] + at if segment < len(self._ends) else len(self.bid)

    def _place(self, time_msc: int, segment: int = 0) -> tuple[int, int]:
        """The same as segment, of those from `segment` on, and index in its times."""
        segment = bisect_left(self._ends, time_msc, segment)
        if segment == len(self._ends):
            return segment, 0
        return segment, bisect_left(self._after_ms[segment], time_msc - self._since_ms[segment])

    def frames_of(self, begin: int, end: int) -> tuple[int, int]:
        """Which frames hold the ticks from `begin` to `end`, as indices."""
        if self._starts is None:
            return begin, end
        return bisect_right(self._starts, begin) - 1, bisect_right(self._starts, end - 1)

    def cut(self, begin: int, end: int) -> Ticks:
        """The ticks from index `begin` to `end`."""
        if self.ticks is not None:
            return self.ticks[begin:end]
        if len(self.columns) == 1:
            return self.columns[0][begin:end]
        first, last = self.frames_of(begin, end)
        return Columns.joined(
            [
                one[max(0, begin - start) : end - start]
                for one, start in zip(self.columns[first:last], self._begins[first:last], strict=True)
            ]
        )


class Part:
    """Ticks of a run that follow each other, and the frames that hold them."""

    __slots__ = ("_begin", "_end", "_first", "_last", "run", "ts")

    def __init__(self, run: Run, begin: int, end: int, ts: int = 0) -> None:
        #: Start of their period, where they are of one (UTC epoch milliseconds).
        self.ts = ts
        self.run = run
        self._begin = begin
        self._end = end
        self._first, self._last = run.frames_of(begin, end)

    def __len__(self) -> int:
        """Number of ticks."""
        return self._end - self._begin

    @property
    def first_offset(self) -> int:
        """The offset of the first frame."""
        return self.run.offsets[self._first]

    @property
    def last_offset(self) -> int:
        """The offset of the last frame."""
        return self.run.offsets[self._last - 1]

    @property
    def offsets(self) -> Sequence[int]:
        """The offsets of all frames."""
        return self.run.offsets[self._first : self._last]

    @property
    def frames(self) -> Sequence[Frame]:
        """The frames, whole."""
        return self.run.frames[self._first : self._last]

    @property
    def first_frame(self) -> Frame:
        """The first frame, whole."""
        return self.run.frames[self._first]

    def keep(self, held: PackedTicks) -> None:
        """Keep the ticks in case they are sent again: the records, where they are of columns and came from the log."""
        if records := self.run.records[self._first : self._last]:
            held.add_records(records, len(self))
        else:
            held.add(self.ticks)

    @property
    def earliest(self) -> int:
        """Time of the first tick (UTC epoch milliseconds)."""
        return self.run.time(self._begin)

    @property
    def latest(self) -> int:
        """Time of the last tick (UTC epoch milliseconds)."""
        return self.run.time(self._end - 1)

    @property
    def form(self) -> Frame:
        """The last frame, whole: all have its chart mode, point and kind of times."""
        return self.run.frames[self._last - 1]

    @property
    def received(self) -> int:
        """When the producer took the request of the last frame (UTC epoch milliseconds)."""
        return self.form.received

    @property
    def has_volume(self) -> bool:
        """Whether any tick of the run has a volume."""
        return self.run.has_volume

    @property
    def outline(self) -> Outline | None:
        """What they draw; None when not every price is positive and finite."""
        run = self.run
        prices = bids = run.bid[self._begin : self._end]
        asks = run.ask[self._begin : self._end]
        low, high, spread = extremes(bids, asks)
        if self.form.mode == "last":
            ticks = self.ticks
            are_deals = ticks.are_deals if isinstance(ticks, Columns) else all(map(is_deal, map(_flags, ticks)))
            if not (low > 0.0 and are_deals):
                return None
            prices = ticks.column("last") if isinstance(ticks, Columns) else list(map(_last, ticks))
            low, high = min(prices), max(prices)
        # Where no ask is below its bid, asks are prices too. A sum is finite only when all that is added is.
        if not (low > 0.0 and (spread >= 0.0 or min(asks) > 0.0)):
            return None
        if not (run.is_finite or (sum(prices) + sum(asks) < inf and (prices is bids or sum(bids) < inf))):
            return None
        return Outline(prices[0], high, low, prices[-1], spread, bids[-1], asks[-1], self.earliest, self.latest)

    @property
    def ticks(self) -> Ticks:
        """The ticks, which are put together here."""
        return self.run.cut(self._begin, self._end)

    def part(self, ts: int, width_ms: int) -> "Part | None":
        """What is of the period of `width_ms` that begins at `ts`; None when that is nothing."""
        begin, end = max(self.run.index(ts), self._begin), min(self.run.index(ts + width_ms), self._end)
        return Part(self.run, begin, end, ts) if begin < end else None


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
