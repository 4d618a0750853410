from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry, Counter

from runtime.guard import Guard
from runtime.health import Health
from runtime.status_server import StatusServer
from tests import plainhttp

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
