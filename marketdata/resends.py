"""Tells resends from forward flow. Pure.

A *pass* is a run of frames of one source and symbol in which time does not go back from one frame to the next. Within
a pass every tick counts. A resend goes back in time and opens a new pass, or begins in the very millisecond where the
frame before it ended and repeats it (docs/decisions/0002).

The ticks of a minute are the element-wise maximum over its passes; `marketdata.fold` does that for times in
milliseconds. Whole seconds give no order within a second, and equal ticks in one second are ordinary. There a queue
that is replayed beside live requests, or an exporter that sends its newest page first, would lose ticks: it goes back
in time without sending anything twice. So with whole seconds a resend is told by the run of ticks that it repeats:

- Honest requests are pieces of one flow: their times may touch but never overlap. A frame whose times overlap those of
  an earlier one is a resend, perhaps with newer ticks behind.
- A frame that overlaps nothing, goes back and holds nothing new is a resend when it repeats a run: two ticks of one
  request, or two different ones of requests in a row. A single tick that is repeated alone may be honest: it counts.

Only the frames that touch the period decide, and how often time went back between them. So folding stored ranges again
decides alike, whatever came before.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from operator import eq
from typing import NamedTuple, Protocol

from marketdata.offsets import Ranges, last_position
from marketdata.tick import MAX_TIME_MSC, MINUTE_MS, Columns, Frame, Tick, same

#: Ticks of minutes that are not complete; more are folded.
_MOST_HELD = 100_000


class Passes:
    """Numbers the passes of one source and symbol; fed with every frame of it, in log order."""

    __slots__ = ("_before", "_high", "number", "opener", "turned")

    def __init__(self) -> None:
        #: Number of the pass that the newest frame belongs to.
        self.number = 0
        #: The newest frame, or the first of the newest run, if it has whole-second times and opened its pass by going
        #: back in time.
        self.opener: Frame | None = None
        #: The last frame of the pass before, if the newest pass was opened by going back in time.
        self.turned: Frame | None = None
        self._high = -1
        # The newest frame; none after a cut.
        self._before: Sequence[Frame] = ()

    def cut(self) -> None:
        """Begin a new pass with the next frame: the log was not read without a gap."""
        self._high = -1
        self._before = ()
        self.opener = self.turned = None
        self.number += 1

    def enter(self, frame: Frame, earliest: int, latest: int) -> None:
        """Register the next frame, given the times of its earliest and latest tick."""
        self.enter_run((frame,), earliest, latest)

    def enter_run(self, frames: Sequence[Frame], earliest: int, latest: int) -> None:
        """The same for frames that follow each other as one pass; only the first and the last are looked at.

        Neither is asked for unless time stands still or goes back: to make it may take longer than all the rest.
        """
        high = self._high
        self.opener = None
        if earliest < high or (earliest == high and self._before and repeats(self._before[-1], frames[0], high)):
            self.number += 1
            self.turned = None
            if earliest < high:
                self.turned = self._before[-1] if self._before else None
                self.opener = frames[0] if frames[0].coarse else None
        self._high = latest
        self._before = frames if len(frames) == 1 else frames[-1:]


def repeats(before: Frame, frame: Frame, boundary: int) -> bool:
    """Whether a frame that begins in the millisecond `boundary` where the one before it ended repeats that one.

    A lone tick whose answer was lost is sent again at the same millisecond, with newer ones behind it; a collector that
    asks for "everything from the last time on" repeats the last millisecond. Neither goes back in time.
    """
    if frame.request == before.request and frame.received == before.received and frame.ticks == before.ticks:
        return True  # one record, written twice
    if frame.coarse or before.coarse:
        return False  # equal ticks in one second are honest
    sent, again = before.ticks, frame.ticks
    if frame.mode == "last" and sent[0].time_msc != boundary:
        return False  # equal deals in one millisecond are honest, cut anywhere; only a whole frame tells a resend
    # Of columns only these few ticks are made.
    tail = list(takewhile(lambda tick: tick.time_msc == boundary, reversed(sent)))[::-1]
    head = list(takewhile(lambda tick: tick.time_msc == boundary, again))
    common = min(len(tail), len(head))
    return common > 0 and all(map(eq, map(same, tail), map(same, head)))


class Piece(NamedTuple):
    """What one frame holds of the period."""

    #: Of its pass.
    number: int
    #: It opened that pass by going back in time.
    is_opener: bool
    frame: Frame
    #: See `Passes.turned`.
    turned: Frame | None
    #: Times of the whole frame's earliest and latest tick (UTC epoch milliseconds).
    earliest: int
    latest: int
    ticks: list[Tick]
    #: The ticks as the fold compares them (`same`).
    keys: list[Tick]


class _Repeat:
    """Frames in a row that hold nothing new: a resend, or honest equal ticks as long as nothing proves otherwise."""

    __slots__ = ("content", "doubtful", "high", "is_resend", "low")

    def __init__(self) -> None:
        self.content: Counter[Tick] = Counter()
        self.doubtful: list[Tick] = []
        self.is_resend = False
        self.low, self.high = -1, -1

    def reaches(self, piece: Piece, best: Counter[Tick]) -> bool:
        """Whether a frame with new ticks is the next one of a resend: nothing of the second between is left out."""
        if piece.earliest == self.high:
            second = self.high
        elif piece.latest == self.low:
            second = self.low
        else:
            return False
        held = self.content + Counter(piece.keys)
        return all(count <= held[key] for key, count in best.items() if key.time_msc == second)

    def goes_on(self, piece: Piece, best: Counter[Tick]) -> bool:
        """Whether the frame follows, forward or newest first; a run that is sent again leaves nothing out."""
        if not self.content:
            return False
        if piece.earliest >= self.high:
            low, high = self.high, piece.earliest
        elif piece.latest <= self.low:
            low, high = piece.latest, self.low
        else:
            return False
        return not any(low < key.time_msc < high for key in best)

    def include(self, piece: Piece) -> None:
        """Extend its times by those of the frame."""
        self.low = min(self.low, piece.earliest) if self.content else piece.earliest
        self.high = max(self.high, piece.latest)

    def proves_resend(self, piece: Piece, *, went_back_between: bool) -> bool:
        """Whether a frame that holds nothing new makes it a run that was sent before."""
        return (
            self.is_resend
            or went_back_between
            or len(piece.ticks) > 1
            or any(key != piece.keys[0] for key in self.content)
        )


class CoarseFrames:
    """The frames of whole-second times that touch one period, in log order."""

    __slots__ = ("_begin", "_bounds", "_end", "_high", "_newest", "_number", "_repeat", "_tail", "_trusted")

    def __init__(self, begin: int, end: int, number: int, high: int) -> None:
        """Of the period from `begin` to `end`, given the pass and the latest tick of the frames before the first."""
        # Times outside the period count as just outside, so there are no more bounds than the period's seconds allow.
        self._begin, self._end = begin - 1, end
        self._bounds: set[tuple[int, int]] = set()
        self._high = high
        self._number = number
        self._newest: Frame | None = None
        # Where the newest frame ends, when its ticks were new: what begins there continues it.
        self._tail = -1
        self._repeat = _Repeat()
        self._trusted: list[Tick] = []

    @property
    def copies(self) -> Sequence[Tick]:
        """Ticks that repeat a single one and count, as far as is known by now. They draw nothing: an equal one did."""
        return self._trusted + self._repeat.doubtful

    def forward(self, number: int, bounds: Sequence[tuple[int, int]], newest: Frame) -> None:
        """Note frames of the first pass, in which every tick counts, by the times of their first and last ticks."""
        self._newest = newest
        for earliest, latest in bounds:
            self._note(number, *self._clipped(earliest, latest))

    def later(self, piece: Piece, best: Counter[Tick]) -> list[Tick]:
        """The ticks of a frame that are new and draw; what counts is added to `best`."""
        earliest, latest = self._clipped(piece.earliest, piece.latest)
        piece = piece._replace(earliest=earliest, latest=latest)
        overlaps = any(earliest < high and low < latest for low, high in self._bounds)
        times_back = piece.number - self._number
        # Beside a queue that is replayed a live request continues the one before it, whatever older ones lie between.
        continues = earliest == self._tail and (
            times_back == 0 or (times_back == 1 and piece.turned is not None and piece.turned is self._newest)
        )
        is_forward = earliest > self._high or continues
        self._newest = piece.frame
        self._note(piece.number, earliest, latest)

        repeat = self._repeat if self._repeat.goes_on(piece, best) else _Repeat()
        if not overlaps and is_forward:
            if times_back and not continues:
                self._trust(_Repeat(), best)
            return self._all(piece, best)
        if not overlaps and _holds_nothing_new(piece, repeat, best):
            if not repeat.proves_resend(piece, went_back_between=times_back > piece.is_opener):
                self._doubt(piece, repeat, best)
                return []
        elif not overlaps and not (repeat.is_resend and repeat.reaches(piece, best)):
            # New, though behind what came: a queue is replayed, and what it seemed to repeat was honest as well.
            if not repeat.is_resend:
                self._trust(_Repeat(), best)
            return self._all(piece, best)
        return self._beyond(piece, repeat, best)

    def _note(self, number: int, earliest: int, latest: int) -> None:
        self._bounds.add((earliest, latest))
        self._number = number
        self._high = max(self._high, latest)
        self._tail = latest

    def _clipped(self, earliest: int, latest: int) -> tuple[int, int]:
        return max(earliest, self._begin), min(latest, self._end)

    def _all(self, piece: Piece, best: Counter[Tick]) -> list[Tick]:
        best.update(piece.keys)
        return piece.ticks

    def _doubt(self, piece: Piece, repeat: _Repeat, best: Counter[Tick]) -> None:
        self._trust(repeat, best)
        repeat.include(piece)
        repeat.content.update(piece.keys)
        repeat.doubtful += piece.ticks
        self._tail = -1

    def _beyond(self, piece: Piece, repeat: _Repeat, best: Counter[Tick]) -> list[Tick]:
        """What of a resend goes beyond what it repeats."""
        self._trust(repeat, best)
        repeat.include(piece)
        repeat.is_resend = True
        repeat.doubtful = []
        new = []
        for tick, key in zip(piece.ticks, piece.keys, strict=True):
            repeat.content[key] += 1
            if repeat.content[key] > best[key]:
                best[key] = repeat.content[key]
                new.append(tick)
        self._tail = -1
        return new

    def _trust(self, following: _Repeat, best: Counter[Tick]) -> None:
        """Begin another repeat; nothing proves any more that the one before was a resend."""
        before, self._repeat = self._repeat, following
        if before is not following and before.doubtful:
            best.update(before.content)
            self._trusted += before.doubtful


def _holds_nothing_new(piece: Piece, repeat: _Repeat, best: Counter[Tick]) -> bool:
    return all(repeat.content[key] + count <= best[key] for key, count in Counter(piece.keys).items())


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
        self._ends = [last_position(minute.ranges) for minute in minutes]
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
            self.is_whole = self.is_whole and in_form and held.in_order and len(held) <= _MOST_HELD
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
