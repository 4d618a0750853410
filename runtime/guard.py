"""Watches over the tasks and threads that a service consists of: none of them ends unnoticed."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog

from runtime.health import Health
from runtime.signals import EXIT_FAILED, end_process
from runtime.tasks import cancel

log = structlog.get_logger(__name__)


class Guard:
    """Starts tasks and threads; one that ends unexpectedly is logged, shows in `/health` and ends the process.

    A service that lacks a part looks alive and does not work, and nothing inside it can repair that: a supervisor has
    to start a new process. `end` begins the shutdown; it is called once, from whatever thread or task failed.
    """

    def __init__(self, health: Health, end: Callable[[], None] = end_process) -> None:
        self.health = health
        self._end = end
        self._ending = threading.Lock()

    @property
    def exit_code(self) -> int:
        """The exit code of the process: 0 as long as nothing failed."""
        return EXIT_FAILED if self.health.failed else 0

    def fail(
        self, part: str, error: BaseException | None, on_failure: Callable[[BaseException], None] = lambda _: None
    ) -> None:
        """Report that a part of the service ended; without `error` it returned although it should not."""
        why = "it ended" if error is None else f"{type(error).__name__}: {error}"
        log.critical(
            f"{part} failed, so the process ends: it cannot do its work without.",
            action="part_failed", part=part, error=why, exc_info=error,
        )  # fmt: skip
        self.health.fail(part, why)
        try:
            if error is not None:
                on_failure(error)
        finally:
            self._begin_end()

    def _begin_end(self) -> None:
        if self._ending.acquire(blocking=False):
            self._end()

    @asynccontextmanager
    async def running(self, **work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run coroutines as tasks, by the name of each, until the block is left; then cancel them.

        They are not to end before, in whatever way: returning and being cancelled by a library count as failures too.
        """
        leaving = False

        def ended(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if not leaving:
                self.fail(task.get_name(), error)

        tasks = [asyncio.create_task(coroutine, name=name) for name, coroutine in work.items()]
        for task in tasks:
            task.add_done_callback(ended)
        try:
            yield
        finally:
            leaving = True
            await cancel(*tasks)

    def thread(
        self, name: str, work: Callable[[], None], on_failure: Callable[[BaseException], None] = lambda _: None
    ) -> threading.Thread:
        """A daemon thread, not started, that does `work`; to return from it is its orderly end.

        When it raises, `on_failure` is called before the process ends: whoever waits for the thread must be told.
        """

        def guarded() -> None:
            try:
                work()
            except BaseException as exc:
                self.fail(name, exc, on_failure)

        return threading.Thread(target=guarded, name=name, daemon=True)
