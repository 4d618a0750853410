"""No task and no thread ends unnoticed."""

import asyncio
import subprocess
import sys
import textwrap

import pytest

from runtime.guard import Guard
from runtime.health import Health
from runtime.signals import EXIT_FAILED


class _Process:
    """Counts how often it was ended."""

    def __init__(self) -> None:
        self.ends = 0
        self.health = Health()
        self.guard = Guard(self.health, end=self._end)

    def _end(self) -> None:
        self.ends += 1


async def _fail() -> None:
    raise RuntimeError("a bug")


async def _return() -> None:
    return


async def _cancelled_by_a_library() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("work", "why"),
    [(_fail, "RuntimeError: a bug"), (_return, "it ended"), (_cancelled_by_a_library, "it ended")],
)
async def test_a_task_that_ends_ends_the_process(work: object, why: str) -> None:
    process = _Process()
    async with process.guard.running(reader=work(), other=asyncio.Event().wait()):  # type: ignore[operator, arg-type]  # parametrised
        for _ in range(3):
            await asyncio.sleep(0)
        assert dict(process.health.failed) == {"reader": why}
    assert process.health.health() == (503, {"status": "failed", "failed": {"reader": why}})
    assert (process.ends, process.guard.exit_code) == (1, EXIT_FAILED)


async def test_tasks_that_are_told_to_stop_end_nothing() -> None:
    process = _Process()
    async with process.guard.running(reader=asyncio.sleep(60)):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (process.ends, process.guard.exit_code, process.health.health()[0]) == (0, 0, 200)


def test_a_thread_that_raises_tells_those_who_wait_before_it_ends_the_process() -> None:
    process = _Process()
    told: list[tuple[BaseException, int]] = []

    def work() -> None:
        raise OSError("the disk is gone")

    thread = process.guard.thread("store", work, lambda exc: told.append((exc, process.ends)))
    thread.start()
    thread.join()
    [(error, ends_before)] = told
    assert (str(error), ends_before, process.ends) == ("the disk is gone", 0, 1)
    assert dict(process.health.failed) == {"store": "OSError: the disk is gone"}


def test_a_thread_that_returns_has_ended_in_order() -> None:
    process = _Process()
    thread = process.guard.thread("store", lambda: None)
    thread.start()
    thread.join()
    assert process.ends == 0


@pytest.mark.parametrize("is_deaf", [False, True])
def test_a_failed_thread_ends_a_process_with_another_code_than_0(is_deaf: bool) -> None:
    code = f"""
        import threading, signal, sys
        import runtime.signals
        from runtime.guard import Guard
        from runtime.health import Health
        runtime.signals._HARD_END_SECONDS = 0.5
        guard = Guard(Health())
        runtime.signals.exit_on_stop_signal(lambda: guard.exit_code)
        if {is_deaf}:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        def work():
            raise RuntimeError("a bug")
        guard.thread("store", work).start()
        while True:
            threading.Event().wait(0.1)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, timeout=30, check=False)
    assert done.returncode == EXIT_FAILED
    assert b"RuntimeError: a bug" in done.stdout + done.stderr
