"""A dashboard of which a part failed does not go on looking alive."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from dashboard.app import _end_if_failed


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """Numbers of the SIGTERMs that this process gets."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    yield received
    signal.signal(signal.SIGTERM, before)


async def _fail() -> None:
    raise RuntimeError("a bug")


async def test_failed_part_ends_the_process(signals: list[int]) -> None:
    task = asyncio.create_task(_fail())
    task.add_done_callback(_end_if_failed)
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert signals == [signal.SIGTERM]


async def test_part_that_is_told_to_stop_ends_nothing(signals: list[int]) -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    task.add_done_callback(_end_if_failed)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert signals == []
