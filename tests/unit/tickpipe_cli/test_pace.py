"""Batches at full speed and at a pace."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

from marketdata.tick import Tick
from tickpipe.sending.pace import batches


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


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (4, [2, 2]), (5, [2, 2, 1])])
def test_full_speed_cuts_by_size(count: int, sizes: list[int]) -> None:
    ticks = [tick(n) for n in range(count)]

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
