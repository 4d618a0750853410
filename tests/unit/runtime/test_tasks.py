"""Waiting for several tasks, and tasks that do step after step."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from marketdata.errors import KafkaUnavailable
from runtime import service
from runtime.service import PeriodicTask, TaskMetrics, unless_set, until_first_ends
from tests.waiting import PATIENCE_SECONDS


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
    assert await asyncio.wait_for(waiting, PATIENCE_SECONDS) is None
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
        await asyncio.wait_for(until_first_ends(work(), fail(), work()), PATIENCE_SECONDS)
    assert ended == ["work", "work"]


class _Task(PeriodicTask[int]):
    name = "count"
    interval_seconds = 0.001

    def __init__(self, stopping: asyncio.Event, fails_before: int, steps: int) -> None:
        self._stopping, self._fails_before, self._steps = stopping, fails_before, steps
        self.begun = 0

    async def step(self) -> int:
        self.begun += 1
        if self.begun == self._steps:
            self._stopping.set()
        if self.begun <= self._fails_before:
            raise RuntimeError("a bug")
        return self.begun


async def test_failures_are_counted_and_the_task_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_FIRST_PAUSE_SECONDS", 0.001)
    registry, stopping = CollectorRegistry(), asyncio.Event()
    task = _Task(stopping, fails_before=3, steps=6)
    await asyncio.wait_for(task.run(stopping, TaskMetrics(registry)), PATIENCE_SECONDS)
    assert task.begun == 6
    assert registry.get_sample_value("tickpipe_task_failures_total", {"task": "count"}) == 3
    assert registry.get_sample_value("tickpipe_task_success_timestamp_seconds", {"task": "count"})


async def test_what_is_broken_off_by_the_stop_is_no_failure() -> None:
    registry, stopping = CollectorRegistry(), asyncio.Event()
    task = _Task(stopping, fails_before=1, steps=1)
    await asyncio.wait_for(task.run(stopping, TaskMetrics(registry)), PATIENCE_SECONDS)
    assert registry.get_sample_value("tickpipe_task_failures_total", {"task": "count"}) is None


async def test_the_stop_is_not_waited_for() -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stopping.set)
    await asyncio.wait_for(service.sleep_unless(stopping, 3600), PATIENCE_SECONDS)


@pytest.mark.parametrize(("error", "is_line"), [(KafkaUnavailable("start it"), True), (ValueError("odd"), False)])
async def test_only_an_error_that_was_not_foreseen_is_logged_with_its_place(error: Exception, is_line: bool) -> None:
    stopping = asyncio.Event()

    class Failing(PeriodicTask[int]):
        name = "failing"
        interval_seconds = 0.001

        async def step(self) -> int:
            asyncio.get_running_loop().call_soon(stopping.set)
            raise error

    with capture_logs() as lines:
        await asyncio.wait_for(Failing().run(stopping, TaskMetrics(CollectorRegistry())), PATIENCE_SECONDS)
    [line] = lines
    assert (line.get("error") == str(error), line.get("exc_info") is error) == (is_line, not is_line)
