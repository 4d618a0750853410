"""Waiting for what a test has caused.

A limit is there to end a test that has failed; it says nothing about speed. So there is one for all, long enough for a
machine that is busy with other work, and only a promise of the product has a time of its own.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

#: Shorter than the time that pytest gives a test, so that what was waited for is named (seconds).
PATIENCE_SECONDS = 240.0

#: The first and the longest pause between two looks (seconds).
_SHORT_SECONDS, _LONG_SECONDS = 0.02, 0.25


async def eventually(
    check: Callable[[], Awaitable[T]], *, what: str = "", within_seconds: float = PATIENCE_SECONDS
) -> T:
    """The first true value of `check`, which is asked over and over; an AssertionError naming `what` otherwise."""
    for pause_seconds in _pauses(within_seconds):
        value = await check()
        if value:
            return value
        await asyncio.sleep(pause_seconds)
    raise AssertionError(_complaint(what or check, within_seconds, value))


def wait_until(check: Callable[[], T], *, what: str = "", within_seconds: float = PATIENCE_SECONDS) -> T:
    """Like `eventually`, in tests that have no event loop."""
    for pause_seconds in _pauses(within_seconds):
        value = check()
        if value:
            return value
        time.sleep(pause_seconds)
    raise AssertionError(_complaint(what or check, within_seconds, value))


def _complaint(what: object, within_seconds: float, answer: object) -> str:
    return f"{what} not within {within_seconds} s; the last answer was {answer!r}"


def _pauses(within_seconds: float) -> Iterator[float]:
    """Growing pauses until the time is over, at least one."""
    deadline = time.monotonic() + within_seconds
    pause_seconds = _SHORT_SECONDS
    while True:
        yield pause_seconds
        if time.monotonic() > deadline:
            return
        pause_seconds = min(2 * pause_seconds, _LONG_SECONDS)


@contextmanager
def shorter_than(seconds: float) -> Iterator[None]:
    """What stands in the block takes less: a promise, or the time after which a fault would be over by itself."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds, f"it took {took:.1f} s, not less than {seconds} s"
