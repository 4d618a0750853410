"""Cutting a stream of ticks into batches: as fast as they come, or at the pace of the ticks' own times."""

import time
from collections.abc import Callable, Iterable, Iterator

from marketdata.tick import Tick

#: Ticks of one time beyond which a batch is cut all the same.
_MOST_EQUAL = 10_000


def batches(
    ticks: Iterable[Tick],
    size: int,
    speed: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[list[Tick]]:
    """Batches of `size` ticks, in order; 0 is as fast as they come, 1 real time, 60 a minute a second.

    Ticks of one time stay together, and make a batch larger: the fold may take equal ones that begin a request for a
    resend of those that ended the one before.
    With a pace, a tick is handed on as soon as it is due and never before: whatever is due together makes one batch.
    Ticks whose time goes back are due at once.
    """
    batch: list[Tick] = []
    start, first_ms = clock(), None
    for tick in ticks:
        if speed > 0:
            if first_ms is None:
                first_ms = tick.time_msc
            due = start + (tick.time_msc - first_ms) / 1000 / speed
            if due > clock():
                if batch:
                    yield batch
                    batch = []
                if (early_seconds := due - clock()) > 0:
                    sleep(early_seconds)
        if len(batch) >= size and (tick.time_msc != batch[-1].time_msc or len(batch) >= _MOST_EQUAL):
            yield batch
            batch = []
        batch.append(tick)
    if batch:
        yield batch
