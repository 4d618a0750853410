import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from marketdata.errors import SettingsError
from runtime.addresses import require_listenable
from runtime.health import Guard, Health, StatusServer
from runtime.process import EXIT_FAILED
from tests import plainhttp
from tests.waiting import PATIENCE_SECONDS

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def test_a_service_is_not_ready_before_its_first_success() -> None:
    health = Health("kafka", now=lambda: NOON)
    assert health.ready()[0] == 503
    health.set("kafka", True)
    assert health.ready() == (200, {"status": "ready", "checks": {"kafka": True}})


@given(st.lists(st.tuples(st.sampled_from(["kafka", "database"]), st.booleans())))
def test_since_is_the_first_failure_after_the_last_success(outcomes: list[tuple[str, bool]]) -> None:
    clock = iter(NOON + timedelta(seconds=n) for n in range(1_000_000))
    now = NOON
    health = Health("kafka", "database", now=lambda: now)
    first_failure: dict[str, datetime | None] = {"kafka": NOON, "database": NOON}
    for check, passes in outcomes:
        now = next(clock)
        health.set(check, passes)
        first_failure[check] = None if passes else first_failure[check] or now
    status, body = health.ready()
    failing = {check: since.isoformat() for check, since in first_failure.items() if since}
    assert body.get("since", {}) == failing
    assert body["checks"] == {check: check not in failing for check in first_failure}
    assert (status == 200) == (not failing)


NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.fixture
def health() -> Health:
    health = Health("kafka", "database", now=lambda: NOON)
    health.set("kafka", True)
    health.set("database", True)
    return health


@pytest.fixture
def ended() -> list[str]:
    """Grows when the guard ends the process."""
    return []


@pytest.fixture
def server(health: Health, ended: list[str]) -> Iterator[StatusServer]:
    registry = CollectorRegistry()
    Counter("rows", "Rows.", ["action"], registry=registry).labels("inserted").inc(3)
    server = StatusServer("127.0.0.1", 0, registry, health, Guard(health, end=lambda: ended.append("process")))
    server.start()
    yield server
    server.close()


@pytest.fixture
def url(server: StatusServer) -> str:
    return f"http://127.0.0.1:{server.port}"


def test_an_address_that_is_taken_is_said_in_one_sentence(server: StatusServer, health: Health) -> None:
    taken = f"cannot listen on 127.0.0.1 port {server.port}: .*in use; does this service run already"
    with pytest.raises(SettingsError, match=taken):
        StatusServer("127.0.0.1", server.port, CollectorRegistry(), health, Guard(health))
    with pytest.raises(SettingsError, match=taken):
        require_listenable("127.0.0.1", server.port)
    with pytest.raises(SettingsError, match="cannot listen on no-such-host"):
        require_listenable("no-such-host.invalid", 0)


def test_health_ready_and_metrics(url: str) -> None:
    assert plainhttp.get(f"{url}/health").json() == {"status": "ok"}
    assert plainhttp.get(f"{url}/ready").json() == {"status": "ready", "checks": {"kafka": True, "database": True}}
    assert 'rows_total{action="inserted"} 3.0' in plainhttp.get(f"{url}/metrics").text
    assert plainhttp.get(f"{url}/").status_code == 404


def test_not_ready_without_the_database(url: str, health: Health) -> None:
    health.set("database", False)
    answer = plainhttp.get(f"{url}/ready")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "not ready",
        "checks": {"kafka": True, "database": False},
        "since": {"database": "2026-11-28T12:00:00+00:00"},
    }


def test_failed_part_shows_in_both_probes(url: str, health: Health) -> None:
    health.fail("store", "OSError: gone")
    for path in ("/health", "/ready"):
        answer = plainhttp.get(f"{url}{path}")
        assert (answer.status_code, answer.json()["failed"]) == (503, {"store": "OSError: gone"})


def test_orderly_end_is_no_failure(server: StatusServer, health: Health, ended: list[str]) -> None:
    server.close()
    assert (dict(health.failed), ended) == ({}, [])


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
        import runtime.process
        from runtime.health import Guard
        from runtime.health import Health
        runtime.process._HARD_END_SECONDS = 0.5
        guard = Guard(Health())
        runtime.process.exit_on_stop_signal(lambda: guard.exit_code)
        if {is_deaf}:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        def work():
            raise RuntimeError("a bug")
        guard.thread("store", work).start()
        while True:
            threading.Event().wait(0.1)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == EXIT_FAILED
    assert b"RuntimeError: a bug" in done.stdout + done.stderr
