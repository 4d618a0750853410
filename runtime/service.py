"""How a service runs: its tasks, the steps that it repeats, and its process where no HTTP application is served."""

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from marketdata.errors import SettingsError, TickpipeError
from runtime.logs import configure_logs
from runtime.process import collect_rarely, on_stop_signal
from runtime.settings import Settings, load_settings

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

#: The first pause after a failure, doubled with each that follows, and the longest (seconds).
_FIRST_PAUSE_SECONDS: Final = 5.0
_LONGEST_PAUSE_SECONDS: Final = 300.0


async def unless_set(stopping: asyncio.Event, work: Awaitable[Result]) -> Result | None:
    """The result of `work`, or None when `stopping` is set before; then it is cancelled."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        await cancel(task, stopped)


async def until_first_ends(*work: Awaitable[None]) -> None:
    """Run all of them until all have ended, or one has raised: that cancels the others, and is raised here."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        await cancel(*tasks)


async def cancel(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel the tasks and return when they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class TaskMetrics:
    """The metrics of a service's periodic tasks, by the name of the task."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.failures = Counter(
            "tickpipe_task_failures", "Steps of a background task that failed.", ["task"], registry=registry
        )
        self.succeeded = Gauge(
            "tickpipe_task_success_timestamp_seconds",
            "When a background task last completed a step.",
            ["task"],
            registry=registry,
        )


class PeriodicTask(ABC, Generic[Result]):
    """A background task that a service's main work does not depend on.

    So a failed step does not end the service: it is logged and counted, and the task tries again, less and less often.
    """

    #: In metrics and log lines.
    name: ClassVar[str]

    #: From the end of a step to the beginning of the next (seconds).
    interval_seconds: ClassVar[float]

    @abstractmethod
    async def step(self) -> Result:
        """Do the work once."""

    def pause_seconds(self, result: Result) -> float:
        """How long to wait after a step with this result."""
        return self.interval_seconds

    async def rest(self, stopping: asyncio.Event, seconds: float) -> None:
        """Wait so long, at most until told to stop; a task that hears of news ends it earlier."""
        await sleep_unless(stopping, seconds)

    async def run(self, stopping: asyncio.Event, metrics: TaskMetrics) -> None:
        """Run step after step until told to stop."""
        failures = 0
        while not stopping.is_set():
            try:
                result = await self.step()
            except Exception as exc:  # whatever it is, the service goes on
                if stopping.is_set():
                    return  # what was under way was broken off
                pause_seconds = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**failures)
                failures += 1
                metrics.failures.labels(self.name).inc()
                # Our own errors say what to do; of others the place tells more.
                reason = {"error": str(exc)} if isinstance(exc, TickpipeError) else {"exc_info": exc}
                log.error(
                    "A background task failed; it is tried again.",
                    action="task_failed", task=self.name, failures=failures, pause_seconds=pause_seconds, **reason,
                )  # fmt: skip
            else:
                failures = 0
                metrics.succeeded.labels(self.name).set_to_current_time()
                pause_seconds = self.pause_seconds(result)
            await self.rest(stopping, pause_seconds)


async def sleep_unless(stopping: asyncio.Event, seconds: float) -> None:
    """Sleep, but no longer than until `stopping` is set."""
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return


#: Changes after which the next update waits the whole interval: with the interval of 0.2 s, up to 1,000 a second.
_WHOLE_PAUSE_CHANGES: Final = 200

#: As many are counted at least, since an update of one change is a message, a transaction or an event as well.
_LEAST_CHANGES: Final = 5


def pause_after(changes: int, interval_seconds: float) -> float:
    """How long the next update waits after one of so many changes (seconds): the whole interval only if they are many.

    What changes seldom is passed on at once, and under load the number of changes a second stays bounded: by a constant
    while few things change, and then by one a thing and interval.
    """
    return interval_seconds * min(1.0, max(_LEAST_CHANGES, changes) / _WHOLE_PAUSE_CHANGES)


class LongRunning(Protocol):
    """A service that runs in an event loop until it is stopped."""

    @property
    def exit_code(self) -> int:
        """Once it has ended."""

    async def run(self) -> None:
        """Work until `stop` is called."""

    def stop(self) -> None:
        """End soon."""


def run_service(
    name: str,
    new_service: Callable[[Settings], LongRunning],
    *,
    logger: str,
    load: Callable[[], Settings] = load_settings,
    left: str = "",
) -> int:
    """Run a service until SIGTERM or Ctrl-C; returns the exit code: 2 for settings, 1 after an error.

    Args:
        name: what its log lines call it.
        new_service: makes it, within the event loop.
        logger: the name of the logger.
        load: gives the settings, or raises SettingsError.
        left: a sentence about what is left undone when it ends by an error.
    """

    async def serve(settings: Settings) -> int:
        service = new_service(settings)
        on_stop_signal(service.stop)
        await service.run()
        return service.exit_code

    try:
        settings = load()
    except SettingsError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    configure_logs(settings)
    collect_rarely()
    log = structlog.get_logger(logger)
    try:
        return asyncio.run(serve(settings))
    except TickpipeError as exc:
        log.error(f"The {name} ends.{left}", action=f"{name}_refused", error=str(exc))
        return 1
    except Exception:
        log.exception(f"The {name} ends: this was not foreseen.{left}", action=f"{name}_failed")
        return 1
