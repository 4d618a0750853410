"""The fold once more, naive and declarative: what the tests hold the real one against.

A minute's ticks are written down with frame and arrival, and every rule is a sentence about the frames so far.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby

from marketdata.offsets import Ranges, from_spans, spans
from marketdata.offsets import place as place_of
from marketdata.tick import Frame, Tick

MINUTE_MS = 60_000


@dataclass(frozen=True)
class OracleCandle:
    open: float
    high: float
    low: float
    close: float
    volume: int
    real_volume: float
    spread: int | None
    first_tick: int
    last_tick: int
    received: int


def minutes_in(frames: list[tuple[int, Frame]]) -> dict[tuple[str, str, int], Ranges]:
    """Every (source, symbol, minute) of a log, with the range from its first to its last record in each partition."""
    offsets: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for offset, frame in frames:
        for tick in frame.ticks:
            offsets[frame.source, frame.symbol, tick.time_msc // MINUTE_MS * MINUTE_MS].append(offset)
    return {
        key: from_spans(
            (min(positions), max(positions))
            for _, group in groupby(sorted(found), key=lambda at: place_of(at)[0])
            for positions in [list(group)]
        )
        for key, found in offsets.items()
    }


def fold(log: list[tuple[int, Frame]], source: str, symbol: str, ts: int, ranges: Ranges) -> OracleCandle | None:
    """The candle of one minute from the offsets in `ranges`; the log has its frames by position."""
    places, copies = _counted(_arrivals(log, source, symbol, ranges), ts)
    ticks = sorted((tick.time_msc, offset, i, tick, frame) for offset, i, frame, tick in places)
    priced = [
        tick.bid if frame.mode == "bid" else tick.last
        for _, _, _, tick, frame in ticks
        if frame.mode == "bid" or _is_deal(tick)
    ]
    priced = [price for price in priced if price != 0 and math.isfinite(price)]
    if not priced:
        return None
    by_last = any(frame.mode == "last" for _, _, _, _, frame in ticks)
    counted = [t for _, _, _, t, frame in ticks if frame.mode == "bid" or _is_deal(t)]
    counted += [t for t in copies if not by_last or _is_deal(t)]
    deals = [*(t for _, _, _, t, _ in ticks), *copies]
    spreads = [t.ask - t.bid for _, _, _, t, _ in ticks if t.bid != 0 and t.ask != 0 and math.isfinite(t.ask - t.bid)]
    points = [frame.point for _, _, _, _, frame in ticks if frame.point is not None]
    return OracleCandle(
        open=priced[0],
        high=max(priced),
        low=min(priced),
        close=priced[-1],
        volume=len(counted),
        real_volume=float(sum(Fraction(t.volume) for t in deals if t.volume > 0 and _is_deal(t))),
        spread=round(min(spreads) / min(points)) if spreads and points else None,
        first_tick=ticks[0][0],
        last_tick=ticks[-1][0],
        received=ticks[-1][4].received,
    )


@dataclass(frozen=True)
class Arrival:
    """A frame of the symbol within the ranges."""

    offset: int
    frame: Frame
    #: How many passes were begun before its own.
    number: int
    #: It began its pass by an earlier time than the frame before it had.
    is_back: bool
    #: The frame before the first one of its pass, if that one went back in time.
    turned: Frame | None

    @property
    def low(self) -> int:
        return min(tick.time_msc for tick in self.frame.ticks)

    @property
    def high(self) -> int:
        return max(tick.time_msc for tick in self.frame.ticks)


#: Offset, index in the frame, frame, tick.
Place = tuple[int, int, Frame, Tick]


def _arrivals(log: list[tuple[int, Frame]], source: str, symbol: str, ranges: Ranges) -> list[Arrival]:
    found: list[Arrival] = []
    number = -1
    turned: Frame | None = None
    for first, last in spans(ranges):
        before: Frame | None = None
        for offset, frame in log:
            if not (first <= offset <= last and (frame.source, frame.symbol) == (source, symbol)):
                continue
            if before is None or _goes_back(before, frame):
                number += 1
                turned = None
            is_back = before is not None and min(t.time_msc for t in frame.ticks) < max(
                t.time_msc for t in before.ticks
            )
            if is_back:
                turned = before
            found.append(Arrival(offset, frame, number, is_back, turned))
            before = frame
    return found


def _counted(arrivals: list[Arrival], ts: int) -> tuple[list[Place], list[Tick]]:
    """Ticks of the minute that count and draw, and those that only count.

    Milliseconds: the k-th copy of a tick counts when no earlier pass had a k-th copy. Whole seconds: `_Seconds`.
    """
    counted: list[Place] = []
    best: Counter[Tick] = Counter()
    in_pass: Counter[Tick] = Counter()
    previous: int | None = None
    is_plain = True
    latest = -1
    seconds: _Seconds | None = None
    for arrival in arrivals:
        places = [
            (arrival.offset, i, arrival.frame, tick)
            for i, tick in enumerate(arrival.frame.ticks)
            if tick.time_msc // MINUTE_MS * MINUTE_MS == ts
        ]
        if not places:
            continue
        is_plain = is_plain and previous in (None, arrival.number)
        if arrival.frame.coarse and seconds is None:
            seconds = _Seconds(arrival.number if previous is None else previous, latest)
        if is_plain or not arrival.frame.coarse:
            if arrival.number != previous:
                in_pass = Counter()
            previous = arrival.number
        new = places
        if is_plain:
            best.update(_identity(place[3]) for place in places)
            if arrival.frame.coarse:
                assert seconds is not None
                seconds.note(arrival)
        elif arrival.frame.coarse:
            assert seconds is not None
            new = seconds.new(arrival, places, best)
        else:
            new = _exceeding(places, in_pass, best)
        counted += new
        latest = max([latest, *(place[3].time_msc for place in new)])
    return counted, seconds.copies if seconds else []


def _exceeding(places: list[Place], run: Counter[Tick], best: Counter[Tick]) -> list[Place]:
    new = []
    for place in places:
        identity = _identity(place[3])
        run[identity] += 1
        if run[identity] > best[identity]:
            best[identity] = run[identity]
            new.append(place)
    return new


class _Seconds:
    """Frames of whole seconds: one that overlaps another's times, or repeats a run, is a resend."""

    def __init__(self, number: int, latest: int) -> None:
        self.number = number
        self.before: list[Arrival] = []
        self.latest = latest
        self.last_was_new = False
        self.run: list[Arrival] = []
        self.run_content: Counter[Tick] = Counter()
        self.run_copies: list[Tick] = []
        self.run_is_resend = False
        self.honest_copies: list[Tick] = []

    @property
    def copies(self) -> list[Tick]:
        return self.honest_copies + self.run_copies

    def note(self, arrival: Arrival) -> None:
        self.number, self.last_was_new = arrival.number, True
        self.before.append(arrival)
        self.latest = max(self.latest, arrival.high)

    def new(self, arrival: Arrival, places: list[Place], best: Counter[Tick]) -> list[Place]:
        low, high = arrival.low, arrival.high
        identities = [_identity(place[3]) for place in places]
        overlaps = any(low < each.high and each.low < high for each in self.before)
        times_back = arrival.number - self.number
        follows = times_back == 0 or (times_back == 1 and arrival.turned is not None and self.follows(arrival.turned))
        continues = follows and self.last_was_new and low == self.before[-1].high
        is_ahead = low > self.latest or continues
        self.note(arrival)
        goes_on = False
        if self.run:
            run_low, run_high = min(each.low for each in self.run), max(each.high for each in self.run)
            known = {identity.time_msc for identity, count in best.items() if count}
            goes_on = (low >= run_high and not known & set(range(run_high + 1, low))) or (
                low < run_high and high <= run_low and not known & set(range(high + 1, run_low))
            )
        content = (self.run_content if goes_on else Counter()) + Counter(identities)
        is_known = all(content[identity] <= best[identity] for identity in identities)
        is_run = (goes_on and (self.run_is_resend or len(self.run_content | Counter(identities)) > 1)) or len(
            identities
        ) > 1
        between = times_back - arrival.is_back > 0
        reaches = False
        if self.run and (low == run_high or high == run_low):
            second = run_high if low == run_high else run_low
            reaches = all(count <= content[each] for each, count in best.items() if each.time_msc == second)
        if not overlaps and (is_ahead or not (is_known or (goes_on and self.run_is_resend and reaches))):
            if (not is_ahead and not (goes_on and self.run_is_resend)) or (is_ahead and times_back and not continues):
                self._end_run(best)
            best.update(identities)
            return places
        if not goes_on:
            self._end_run(best)
        self.run.append(arrival)
        self.last_was_new = False
        if not overlaps and is_known and not is_run and not between:
            self.run_content.update(identities)
            self.run_copies += [place[3] for place in places]
            return []
        self.run_is_resend, self.run_copies = True, []
        return _exceeding(places, self.run_content, best)

    def follows(self, turned: Frame) -> bool:
        return bool(self.before) and self.before[-1].frame is turned

    def _end_run(self, best: Counter[Tick]) -> None:
        if not self.run_is_resend:
            best.update(self.run_content)
            self.honest_copies += self.run_copies
        self.run, self.run_content, self.run_copies, self.run_is_resend = [], Counter(), [], False


def _goes_back(before: Frame, frame: Frame) -> bool:
    times_before = [tick.time_msc for tick in before.ticks]
    times = [tick.time_msc for tick in frame.ticks]
    if min(times) < max(times_before):
        return True
    if min(times) > max(times_before):
        return False
    if (before.request, before.received, before.ticks) == (frame.request, frame.received, frame.ticks):
        return True
    if before.coarse or frame.coarse:
        return False
    boundary = min(times)
    if frame.mode == "last" and before.ticks[0].time_msc != boundary:
        return False
    tail: list[Tick] = []
    for tick in reversed(before.ticks):
        if tick.time_msc != boundary:
            break
        tail.insert(0, tick)
    head: list[Tick] = []
    for tick in frame.ticks:
        if tick.time_msc != boundary:
            break
        head.append(tick)
    pairs = zip(tail, head, strict=False)
    return bool(tail) and bool(head) and all(_identity(a) == _identity(b) for a, b in pairs)


def _is_deal(tick: Tick) -> bool:
    documented = [bit for bit in (2, 4, 8, 16, 32, 64) if tick.flags & bit]
    return not documented or any(bit >= 8 for bit in documented)


def _identity(tick: Tick) -> Tick:
    documented = sum(bit for bit in (2, 4, 8, 16, 32, 64) if tick.flags & bit)
    return Tick(tick.time_msc, tick.bid, tick.ask, tick.last, tick.volume, documented)
