"""The fold once more, naive and declarative: what the tests hold the real one against.

Nothing is incremental here. A minute's ticks are written down with pass and arrival, and every rule is a sentence
about the whole list.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby

from marketdata.offsets import Ranges, from_spans, place, spans
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
            for _, group in groupby(sorted(found), key=lambda at: place(at)[0])
            for positions in [list(group)]
        )
        for key, found in offsets.items()
    }


def fold(log: list[tuple[int, Frame]], source: str, symbol: str, ts: int, ranges: Ranges) -> OracleCandle | None:
    """The candle of one minute from the offsets in `ranges`; the log has its frames by position."""
    passes: list[list[tuple[int, int, Frame, Tick]]] = []  # per pass: (offset, index, frame, tick)
    for first, last in spans(ranges):
        before: Frame | None = None
        for offset, frame in log:
            if not (first <= offset <= last and (frame.source, frame.symbol) == (source, symbol)):
                continue
            if before is None or _goes_back(before, frame):
                passes.append([])
            before = frame
            passes[-1].extend(
                (offset, i, frame, tick)
                for i, tick in enumerate(frame.ticks)
                if tick.time_msc // MINUTE_MS * MINUTE_MS == ts
            )

    # The k-th copy of a tick counts once, at the earliest arrival of a k-th copy in any pass.
    counted: dict[tuple[Tick, int], tuple[int, int, Frame, Tick]] = {}
    for one_pass in passes:
        copies: dict[Tick, int] = defaultdict(int)
        for offset, i, frame, tick in one_pass:
            identity = _identity(tick)
            copies[identity] += 1
            arrival = (offset, i, frame, tick)
            key = (identity, copies[identity])
            if key not in counted or arrival[:2] < counted[key][:2]:
                counted[key] = arrival
    ticks = sorted((tick.time_msc, offset, i, tick, frame) for offset, i, frame, tick in counted.values())
    priced = [
        tick.bid if frame.mode == "bid" else tick.last
        for _, _, _, tick, frame in ticks
        if frame.mode == "bid" or _is_deal(tick)
    ]
    priced = [price for price in priced if price != 0 and math.isfinite(price)]
    if not priced:
        return None
    spreads = [t.ask - t.bid for _, _, _, t, _ in ticks if t.bid != 0 and t.ask != 0 and math.isfinite(t.ask - t.bid)]
    points = [frame.point for _, _, _, _, frame in ticks if frame.point is not None]
    return OracleCandle(
        open=priced[0],
        high=max(priced),
        low=min(priced),
        close=priced[-1],
        volume=len(ticks),
        real_volume=float(sum(Fraction(t.volume) for _, _, _, t, _ in ticks if t.volume > 0 and _is_deal(t))),
        spread=round(min(spreads) / min(points)) if spreads and points else None,
        first_tick=ticks[0][0],
        last_tick=ticks[-1][0],
        received=ticks[-1][4].received,
    )


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
