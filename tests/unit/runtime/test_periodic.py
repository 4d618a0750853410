"""A background task that fails neither ends the service nor stops for good."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from runtime import periodic
from runtime.periodic import PeriodicTask, TaskMetrics


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
    monkeypatch.setattr(periodic, "_FIRST_PAUSE_SECONDS", 0.001)
    registry, stopping = CollectorRegistry(), asyncio.Event()
    task = _Task(stopping, fails_before=3, steps=6)
    await asyncio.wait_for(task.run(stopping, TaskMetrics(registry)), 10)
    assert task.begun == 6
    assert registry.get_sample_value("tickpipe_task_failures_total", {"task": "count"}) == 3
    assert registry.get_sample_value("tickpipe_task_success_timestamp_seconds", {"task": "count"})


async def test_what_is_broken_off_by_the_stop_is_no_failure() -> None:
    registry, stopping = CollectorRegistry(), asyncio.Event()
    task = _Task(stopping, fails_before=1, steps=1)
    await asyncio.wait_for(task.run(stopping, TaskMetrics(registry)), 10)
    assert registry.get_sample_value("tickpipe_task_failures_total", {"task": "count"}) is None


async def test_the_stop_is_not_waited_for() -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stopping.set)
    await asyncio.wait_for(periodic.sleep_unless(stopping, 3600), 5)
