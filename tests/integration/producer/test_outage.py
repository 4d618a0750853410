"""Kafka goes away and comes back while the producer runs."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.settings import Settings
from tests.integration.producer.service import logging_producer, read_frames
from tests.integration.producer.test_service import BAR, MSC, PRO
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import Service
from tests.waiting import shorter_than, wait_until

pytestmark = [pytest.mark.fault, pytest.mark.long(20)]

#: What the stack's supervisor gives a service before it kills it.
STOP_SECONDS = 15.0


@pytest.fixture(scope="module")
def servers(own_servers: EmbeddedServers) -> EmbeddedServers:
    """Servers that the tests of this file stop."""
    return own_servers


@pytest.fixture(autouse=True)
def _kafka_is_there_afterwards(servers: EmbeddedServers) -> Iterator[None]:
    yield
    servers.start_kafka()


@pytest.mark.parametrize("how", [pytest.param("stop_kafka", marks=pytest.mark.full), "kill_kafka"])
async def test_what_was_refused_in_an_outage_is_accepted_after_it(
    service: Service, settings: Settings, servers: EmbeddedServers, how: str
) -> None:
    bodies = [{"ticks": [PRO | {"ts_msc": MSC + n, "symbol": f"S{n % 5}"}]} for n in range(20)]
    assert service.post(bodies[0]).status_code == 200
    take_away: Callable[[], None] = getattr(servers, how)
    take_away()

    with ThreadPoolExecutor(10) as pool:
        refused = list(pool.map(service.post, bodies))
    assert {response.status_code for response in refused} == {503}
    assert all(int(response.headers["Retry-After"]) > 0 for response in refused)

    # Once the first confirmation timed out, nobody waits for another.
    with shorter_than(settings.confirm_timeout_seconds):
        assert service.post(PRO).status_code == 503
    assert service.get("/ready").status_code == 503
    assert service.get("/health").status_code == 200

    servers.start_kafka()
    service.wait_ready()
    for body in bodies:
        assert service.post(body).status_code == 200
    times = {tick.time_msc for frame in await read_frames(settings) for tick in frame.ticks}
    assert times == {MSC + n for n in range(20)}
    assert service.stop() == 0
    for complaint in ("Traceback", "never retrieved", "was destroyed", "Unclosed"):
        assert complaint not in service.said()


@pytest.mark.full  # faults/test_kills.py and the test above kill it as well
async def test_every_confirmed_tick_is_in_the_log_when_the_broker_is_killed_under_load(
    service: Service, settings: Settings, servers: EmbeddedServers
) -> None:
    confirmed: list[int] = []
    ended = threading.Event()

    def send(worker: int) -> None:
        number = 0
        while not ended.is_set():
            time_msc = MSC + number * 10 + worker
            body = {"ticks": [PRO | {"ts_msc": time_msc, "symbol": f"S{worker}"}]}
            # The same tick again until it is taken, as an EA does.
            if service.post(body).status_code == 200:
                confirmed.append(time_msc)
                number += 1
            else:
                time.sleep(0.02)

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(send, worker) for worker in range(4)]
        try:
            await asyncio.sleep(1.0)
            servers.kill_kafka()
            before = len(confirmed)
            servers.start_kafka()
            service.wait_ready()
            await asyncio.to_thread(wait_until, lambda: len(confirmed) >= before + 50, what="50 more ticks")
        finally:
            ended.set()
        for worker in workers:
            worker.result()

    logged = {tick.time_msc for frame in await read_frames(settings) for tick in frame.ticks}
    assert set(confirmed) <= logged
    assert len(set(confirmed)) == len(confirmed)


async def test_a_broker_that_hangs_is_503_and_is_taken_up_again(
    service: Service, settings: Settings, servers: EmbeddedServers
) -> None:
    with _suspended(servers):
        started = time.monotonic()
        # Shorter than the time after which Kafka's client gives up by itself.
        with shorter_than(20.0):
            assert service.post(PRO).status_code == 503
        assert time.monotonic() - started > 0.75 * settings.confirm_timeout_seconds
        assert service.post(PRO).status_code == 503

    service.wait_ready()
    assert service.post(PRO).status_code == 200
    assert service.post(BAR, "/ingest").status_code == 200


def test_more_requests_than_may_wait_are_turned_away_at_once(
    settings: Settings, servers: EmbeddedServers, tmp_path: Path
) -> None:
    crowded = settings.model_copy(update={"max_pending_requests": 2})
    with logging_producer(crowded, tmp_path / "producer.log") as service:
        service.wait_ready()
        with _suspended(servers), ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda _: service.post(PRO), range(5)))

    assert {answer.status_code for answer in answers} == {503}
    codes = sorted(answer.json()["code"] for answer in answers)
    assert codes == ["BACK_PRESSURE"] * 3 + ["KAFKA_UNAVAILABLE"] * 2
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)


@pytest.mark.full
async def test_an_idle_producer_notices_that_kafka_went_and_another_starts_without_it(
    service: Service, settings: Settings, servers: EmbeddedServers, tmp_path: Path
) -> None:
    servers.stop_kafka()
    wait_until(lambda: service.get("/ready").status_code == 503, what="a producer that is not ready")
    assert "tickpipe_producer_kafka_up 0.0" in service.get("/metrics").text
    beside = settings.model_copy(update={"producer_port": free_port()})
    with logging_producer(beside, tmp_path / "second.log") as second:
        assert second.get("/health").status_code == 200
        assert second.get("/ready").status_code == 503
        response = second.post(PRO)
        assert (response.status_code, response.json()["code"]) == (503, "KAFKA_UNAVAILABLE")

        servers.start_kafka()
        second.wait_ready()
        assert second.post(PRO).status_code == 200
        assert len(await read_frames(settings)) == 1
    service.wait_ready()
    assert "tickpipe_producer_kafka_up 1.0" in service.get("/metrics").text


@pytest.mark.full
def test_sigterm_without_kafka_does_not_hang(
    service: Service, settings: Settings, servers: EmbeddedServers, tmp_path: Path
) -> None:
    beside = settings.model_copy(update={"producer_port": free_port()})
    with logging_producer(beside, tmp_path / "second.log") as idle:
        idle.wait_ready()
        servers.kill_kafka()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(service.post, PRO)
            time.sleep(0.5)
            with shorter_than(STOP_SECONDS):
                assert service.stop() == 0
            assert waiting.result().status_code == 503  # it was answered before the end
        with shorter_than(STOP_SECONDS):
            assert idle.stop() == 0
        for stopped in (service, idle):
            assert "Traceback" not in stopped.said()


@contextmanager
def _suspended(servers: EmbeddedServers) -> Iterator[None]:
    servers.pause_kafka()
    try:
        yield
    finally:
        servers.resume_kafka()
