"""The supervisor with processes of a line each."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from marketdata.errors import StackError
from tests.waiting import PATIENCE_SECONDS
from tickpipe.embedded import supervisor as module
from tickpipe.embedded.process import ServiceSpec, tail
from tickpipe.embedded.supervisor import StackEvent, Supervisor, backoff_seconds

_SLEEPS = "import time; time.sleep(60)"


def _spec(directory: Path, name: str, code: str = _SLEEPS, **changes: Any) -> ServiceSpec:
    facts = {"ready": lambda: True} | changes
    argv = [sys.executable, "-c", code]
    return ServiceSpec(name=name, argv=argv, env=dict(os.environ), log=directory / f"{name}.log", **facts)


@asynccontextmanager
async def _supervised(*specs: ServiceSpec, events: list[StackEvent] | None = None) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(specs, events.append if events is not None else lambda _: None)
    supervisor.start_all()
    try:
        yield supervisor
    finally:
        await supervisor.stop_all()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("failures", "longest"),
    [(0, 0.2), (1, 0.4), (3, 1.6), (6, 12.8), (7, 15.0), (10_000, 15.0)],  # 0.2 s doubled, at most 15 s
)
def test_backoff_doubles_up_to_fifteen_seconds(failures: int, longest: float) -> None:
    assert all(0.75 * longest <= backoff_seconds(failures) <= longest for _ in range(50))


async def test_dead_process_comes_back(tmp_path: Path) -> None:
    async with _supervised(_spec(tmp_path, "a")) as supervisor:
        (service,) = supervisor.services
        await service.is_ready.wait()
        first = service.pid

        service.kill()
        await _until(lambda: service.restarts == 1 and service.state == "running")

        assert service.pid not in (None, first)


async def test_a_process_runs_where_it_is_told_to_though_the_folder_of_its_parent_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, data = tmp_path / "gone", tmp_path / "data"
    gone.mkdir()
    data.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    says = "import os, time; open('where', 'w').write(os.getcwd()); time.sleep(60)"
    async with _supervised(_spec(tmp_path, "a", says, cwd=data)):
        await _until(lambda: (data / "where").exists() and (data / "where").read_text() == str(data))


async def test_events_say_what_a_process_died_of(tmp_path: Path) -> None:
    events: list[StackEvent] = []
    async with _supervised(_spec(tmp_path, "a", "raise SystemExit(3)", ready=lambda: False), events=events):
        await _until(lambda: any("exited with code 3" in event.message for event in events))
    assert [event.state for event in events[:3]] == ["starting", "starting", "backoff"]
    assert events[-1].state == "stopped"


async def test_failed_preparation_is_tried_again_and_logged(tmp_path: Path) -> None:
    attempts: list[int] = []

    def prepare() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise StackError("no room yet")

    spec = _spec(tmp_path, "a", prepare=prepare)
    async with _supervised(spec) as supervisor:
        await supervisor.services[0].is_ready.wait()
    assert tail(spec.log) == "could not start: no room yet"


async def test_services_start_after_what_they_need_and_stop_before_it(tmp_path: Path) -> None:
    events: list[StackEvent] = []
    first, second = _spec(tmp_path, "first"), _spec(tmp_path, "second", after=("first", "absent"))

    async with _supervised(second, first, events=events) as supervisor:
        await supervisor.services[0].is_ready.wait()

    order = [(event.service, event.state) for event in events]
    assert order.index(("first", "running")) < order.index(("second", "running"))
    assert order.index(("second", "stopped")) < order.index(("first", "stopped"))


async def test_stop_waits_for_nothing_that_is_still_to_start(tmp_path: Path) -> None:
    never = _spec(tmp_path, "never", ready=lambda: False)
    async with _supervised(never, _spec(tmp_path, "waits", after=("never",))) as supervisor:
        await _until(lambda: supervisor.services[0].pid is not None)
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 14  # less than a service has to stop, before it is killed


async def test_process_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STOP_TIMEOUT_SECONDS", 0.3)
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); {_SLEEPS}"
    spec = _spec(tmp_path, "a", deaf)
    async with _supervised(spec) as supervisor:
        (service,) = supervisor.services
        await _until(lambda: tail(spec.log) == "deaf")

        await supervisor.stop("a")

        assert (service.state, service.pid) == ("stopped", None)


async def test_stopped_service_is_started_on_demand(tmp_path: Path) -> None:
    async with _supervised(_spec(tmp_path, "a")) as supervisor:
        (service,) = supervisor.services
        await service.is_ready.wait()
        await supervisor.stop("a")
        pid_of_the_stopped = service.pid

        await supervisor.start("a")

        assert pid_of_the_stopped is None
        assert (service.state, service.restarts) == ("running", 0)


async def test_what_is_started_while_it_stops_runs_once(tmp_path: Path) -> None:
    """As when Ctrl-C ends a replay that is stopping the workers: it starts them again at once."""
    pids = tmp_path / "pids"
    ends_slowly = (
        f"import os, signal, sys, time; open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n'); "
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.7), sys.exit(0))); time.sleep(60)"
    )
    events: list[StackEvent] = []

    def started() -> list[int]:
        return list(map(int, pids.read_text().split())) if pids.exists() else []

    async with _supervised(_spec(tmp_path, "a", ends_slowly), events=events) as supervisor:
        (service,) = supervisor.services
        await _until(lambda: len(started()) == 1 and service.state == "running")

        stopping = asyncio.create_task(supervisor.stop("a"))
        await asyncio.sleep(0.1)
        starting = asyncio.create_task(supervisor.start("a"))
        await asyncio.sleep(0.1)
        assert not starting.done()
        await asyncio.gather(stopping, starting)
        await _until(lambda: len(started()) == 2)

        first, second = started()
        assert (service.pid, service.state, service.restarts) == (second, "running", 0)
        assert not psutil.pid_exists(first)
        # Two who stop it at once are both told when it has ended.
        await asyncio.gather(supervisor.stop("a"), supervisor.stop("a"))
        assert not psutil.pid_exists(second)
    said = [event.state for event in events]
    assert said == ["starting", "starting", "running", "stopped"] * 2


async def test_a_probe_that_raises_once_does_not_leave_the_service_alone(tmp_path: Path) -> None:
    failures = iter([ValueError("a bug in the probe")])

    def ready() -> bool:
        for failure in failures:
            raise failure
        return True

    spec = _spec(tmp_path, "a", ready=ready)
    async with _supervised(spec) as supervisor:
        (service,) = supervisor.services
        await _until(lambda: service.restarts == 1 and service.state == "running")
    assert "a bug in the probe" in tail(spec.log)


async def test_a_listener_that_fails_does_not_stop_the_supervision(tmp_path: Path) -> None:
    def tell(_: StackEvent) -> None:
        raise BrokenPipeError("the terminal is gone")

    supervisor = Supervisor([_spec(tmp_path, "a")], tell)
    supervisor.start_all()
    try:
        (service,) = supervisor.services
        await _until(service.is_ready.is_set)
        service.kill()
        await _until(lambda: service.restarts == 1 and service.is_ready.is_set())
    finally:
        await supervisor.stop_all()


async def test_a_log_that_cannot_be_rotated_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Path] = []

    def rotate(log: Path) -> None:
        tried.append(log)
        raise OSError("no space left on the device")

    monkeypatch.setattr(module, "rotate_log", rotate)
    monkeypatch.setattr(module, "_ROTATION_INTERVAL_SECONDS", 0.05)
    async with _supervised(_spec(tmp_path, "a"), _spec(tmp_path, "b")):
        await _until(lambda: len(tried) >= 4)
    assert set(tried) == {tmp_path / "a.log", tmp_path / "b.log"}
