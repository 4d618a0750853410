"""Batches at full speed, at a pace, and of a live feed."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.tick import Tick
from tickpipe.sending.batches import batches, live
from tickpipe.sending.columnfile import DataFileError


def tick(time_msc: int) -> Tick:
    return Tick(time_msc, 1.1, 1.2, 0.0, 0.0, 6)


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.seconds += seconds


@pytest.mark.parametrize(("number", "sizes"), [(0, []), (1, [1]), (4, [2, 2]), (5, [2, 2, 1])])
def test_full_speed_cuts_by_size(number: int, sizes: list[int]) -> None:
    ticks = [tick(n) for n in range(number)]

    cut = list(batches(ticks, 2, 0))

    assert [len(batch) for batch in cut] == sizes
    assert [t for batch in cut for t in batch] == ticks


def test_tick_leaves_when_it_is_due() -> None:
    clock = Clock()
    times = [60_000, 60_000, 120_000, 119_000, 180_000]

    left = [
        (clock() - 100.0, [t.time_msc for t in batch])
        for batch in batches([tick(t) for t in times], 200, 60, clock=clock, sleep=clock.sleep)
    ]

    # 60: a minute of ticks takes a second; the tick that goes back in time is due at once.
    assert left == [(0.0, [60_000, 60_000]), (1.0, [120_000, 119_000]), (2.0, [180_000])]


def test_due_ticks_are_not_held_back_while_waiting() -> None:
    clock = Clock()
    asked = []

    def feed() -> Iterator[Tick]:
        for time_msc in (0, 10_000):
            asked.append(time_msc)
            yield tick(time_msc)

    stream = batches(feed(), 200, 1, clock=clock, sleep=clock.sleep)

    assert [t.time_msc for t in next(stream)] == [0]
    assert clock() == 100.0
    assert asked == [0, 10_000]
    with suppress(StopIteration):
        next(stream)
    assert clock() == 110.0


@given(st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=40), st.integers(1, 4))
def test_pauses_cut_batches_and_lose_no_tick(fed: list[int | None], size: int) -> None:
    ticks = [None if time_msc is None else tick(time_msc) for time_msc in fed]

    cut = list(batches(ticks, size, 0))

    assert [t for batch in cut for t in batch] == [t for t in ticks if t is not None]
    assert all(cut)
    # Whatever came before a pause left with it: a batch ends at every None that follows a tick.
    ends = {sum(len(batch) for batch in cut[: index + 1]) for index in range(len(cut))}
    sent_before = [sum(t is not None for t in ticks[:index]) for index, each in enumerate(ticks) if each is None]
    assert set(sent_before) - {0} <= ends


def test_feed_that_pauses_lets_the_batch_leave() -> None:
    more = threading.Event()

    def feed() -> Iterator[Tick]:
        yield from (tick(1), tick(2))
        assert more.wait(20)
        yield tick(3)

    stream = batches(live(feed()), 200, 0)

    assert next(stream) == [tick(1), tick(2)]
    more.set()
    assert list(stream) == [[tick(3)]]


def test_feed_that_never_pauses_is_posted_all_the_same() -> None:
    over = threading.Event()

    def feed() -> Iterator[Tick]:
        for time_msc in count(1):
            if over.wait(0.01):  # a pause is five times as long
                return
            yield tick(time_msc)

    started = time.monotonic()
    first = next(batches(live(feed()), 1_000_000, 0))
    waited = time.monotonic() - started
    over.set()

    assert first[0] == tick(1)
    assert waited < 1.0


def test_what_stops_the_reading_comes_behind_the_ticks_before_it() -> None:
    def feed() -> Iterator[Tick]:
        yield tick(1)
        raise DataFileError("line 2 is damaged")

    stream = (each for each in live(feed()) if each is not None)

    assert next(stream) == tick(1)
    with pytest.raises(DataFileError, match="line 2"):
        next(stream)
