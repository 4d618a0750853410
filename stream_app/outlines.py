"""What plain ticks of many symbols draw, minute by minute, in one go over arrays. Pure."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketdata.parts import Outline
from marketdata.tick import MAX_TIME_MSC

Times = NDArray[np.int64]
Places = NDArray[np.int64]
Prices = NDArray[np.float64]

#: Of a period the first frame and the one after the last, the first tick, the number of ticks, and its start.
Span = tuple[int, int, int, int, int]


class FrameArrays(NamedTuple):
    """The ticks of one frame; times count from `time_msc`."""

    received: int
    time_msc: int
    after_ms: Times
    bid: Prices
    ask: Prices


class BlockTicks(NamedTuple):
    """The ticks of all frames of a block, one symbol after the other."""

    time_msc: Times
    bid: Prices
    ask: Prices
    #: Index of the first tick of each frame, and at last the number of ticks.
    starts: Times
    #: The first frame of each symbol, and at last the number of frames.
    frames: list[int]

    @classmethod
    def of(cls, symbols: Sequence[Sequence[FrameArrays]]) -> "BlockTicks | None":
        """Those of the frames of each symbol; None when a time is none."""
        columns = [one for symbol in symbols for one in symbol]
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
        return cls(time_msc, bid, ask, starts, [0, *accumulate(map(len, symbols))])

    @classmethod
    def of_rows(cls, values: Prices, counts: Places, frames: list[int]) -> "BlockTicks":
        """Those of frames of `counts` ticks each, given the fields of each tick; `frames` as below."""
        starts = np.concatenate(([0], np.cumsum(counts)))
        bid, ask = np.ascontiguousarray(values[:, 1]), np.ascontiguousarray(values[:, 2])
        return cls(values[:, 0].astype(np.int64), bid, ask, starts, frames)

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """Of each symbol the number of its ticks, and the times of the first and the last one."""
        firsts = self.starts[self.frames]
        times = self.time_msc[firsts[:-1]], self.time_msc[firsts[1:] - 1]
        return zip(*(column.tolist() for column in (np.diff(firsts), *times)), strict=True)

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
        found = np.flatnonzero(times[firsts] == times[firsts - 1]) + 1
        if len(starts) == len(times) + 1:
            # Each frame is a single tick.
            yield from found[(bid[found] == bid[found - 1]) & (ask[found] == ask[found - 1])].tolist()
            return
        for frame in found.tolist():
            first = starts[frame]
            begin = starts[frame - 1]
            # The first tick of that millisecond in the frame before.
            before = begin + np.searchsorted(times[begin:first], times[first])
            if bid[before] == bid[first] and ask[before] == ask[first]:
                yield frame

    def parts(self, width_ms: int) -> Iterator[tuple[Span, Outline | None]]:
        """What is of each period of each symbol, and what it draws; None when not every price is positive."""
        times, bid, ask, starts, _ = self
        periods = times // width_ms
        is_first = np.empty(len(times), np.bool_)
        is_first[0] = True
        np.not_equal(periods[1:], periods[:-1], out=is_first[1:])
        is_first[starts[self.frames[:-1]]] = True
        begins = np.flatnonzero(is_first)
        lasts = np.append(begins[1:], len(times)) - 1
        low, high = np.minimum.reduceat(bid, begins), np.maximum.reduceat(bid, begins)
        # JSON has neither infinity nor NaN.
        is_plain = (low > 0.0) & (np.minimum.reduceat(ask, begins) > 0.0)
        with np.errstate(over="ignore"):  # of prices that are not plain
            spread = np.minimum.reduceat(ask - bid, begins)
        outlines = (
            bid[begins], high, low, bid[lasts], spread, bid[lasts], ask[lasts],
            times[begins], times[lasts],
        )  # fmt: skip
        spans = (
            np.searchsorted(starts, begins, "right") - 1, np.searchsorted(starts, lasts, "right"),
            begins, lasts - begins + 1, periods[begins] * width_ms,
        )  # fmt: skip
        drawn: Iterator[Outline | None] = map(Outline, *(column.tolist() for column in outlines))
        if not is_plain.all():
            drawn = (outline if plain else None for outline, plain in zip(drawn, is_plain.tolist(), strict=True))
        return zip(zip(*(column.tolist() for column in spans), strict=True), drawn, strict=True)
