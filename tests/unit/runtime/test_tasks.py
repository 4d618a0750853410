import asyncio

import pytest

from runtime.tasks import unless_set, until_first_ends


async def test_work_is_broken_off_when_told_to_stop() -> None:
    stopping, begun = asyncio.Event(), asyncio.Event()
    ended: list[str] = []

    async def work() -> int:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")
        return 1

    waiting = asyncio.create_task(unless_set(stopping, work()))
    await begun.wait()
    stopping.set()
    assert await asyncio.wait_for(waiting, 5) is None
    assert ended == ["work"]


async def test_work_that_ends_first_gives_its_result_or_its_error() -> None:
    async def answer() -> int:
        return 7

    async def fail() -> int:
        raise ValueError("mine")

    assert await unless_set(asyncio.Event(), answer()) == 7
    with pytest.raises(ValueError, match="mine"):
        await unless_set(asyncio.Event(), fail())


async def test_the_first_error_ends_the_others() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await asyncio.wait_for(until_first_ends(work(), fail(), work()), 5)
    assert ended == ["work", "work"]
