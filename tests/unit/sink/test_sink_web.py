from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from sink.metrics import Metrics
from sink.web import StatusServer
from tests import plainhttp


class _Needs:
    database = True

    def __call__(self) -> dict[str, bool]:
        return {"kafka": True, "database": self.database}


@pytest.fixture
def needs() -> _Needs:
    return _Needs()


@pytest.fixture
def url(needs: _Needs) -> Iterator[str]:
    metrics = Metrics(CollectorRegistry())
    metrics.rows.labels("inserted").inc(3)
    server = StatusServer("127.0.0.1", 0, metrics.registry, needs)
    server.start()
    yield f"http://127.0.0.1:{server.port}"
    server.close()


def test_health_ready_and_metrics(url: str) -> None:
    assert plainhttp.get(f"{url}/health").json() == {"status": "ok"}
    assert plainhttp.get(f"{url}/ready").json() == {"status": "ready", "kafka": True, "database": True}
    assert 'tickpipe_sink_rows_total{action="inserted"} 3.0' in plainhttp.get(f"{url}/metrics").text
    assert plainhttp.get(f"{url}/").status_code == 404


def test_not_ready_without_the_database(url: str, needs: _Needs) -> None:
    needs.database = False
    answer = plainhttp.get(f"{url}/ready")
    assert (answer.status_code, answer.json()["database"]) == (503, False)
