"""The application: its start, a part that fails, the bounds of its metrics."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx

from producer.app import create_app
from producer.metrics import Metrics
from runtime import clock
from runtime.health import Guard, Health
from runtime.process import EXIT_FAILED
from tests.unit.producer.conftest import ANY_KEY, KEY, new_settings
from tests.unit.producer.gateway import InMemoryGateway
from tests.waiting import PATIENCE_SECONDS


def test_without_a_key_the_process_ends_with_2_and_says_what_to_set(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKPIPE_")}
    done = subprocess.run(
        [sys.executable, "-m", "producer"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        cwd=tmp_path,
        env=environment,
    )

    assert done.returncode == 2
    assert "TICKPIPE_API_KEYS" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_failed_publisher_shows_and_ends_the_process() -> None:
    class Broken(InMemoryGateway):
        async def run(self) -> None:
            raise RuntimeError("a bug")

    ends: list[str] = []
    guard = Guard(Health("kafka"), end=lambda: ends.append("process"))
    app = create_app(new_settings(), gateway=Broken(), guard=guard)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://producer") as client,
    ):
        await asyncio.sleep(0.01)  # its turn to fail
        answer = await client.get("/health")
    assert (answer.status_code, answer.json()["failed"]) == (503, {"publisher": "RuntimeError: a bug"})
    assert (ends, guard.exit_code) == (["process"], EXIT_FAILED)


async def test_a_thousand_sources_share_a_bounded_number_of_series() -> None:
    # Arrange: the key's own source comes last, and still has a series of its own
    gateway, metrics = InMemoryGateway(), Metrics(sources=["Broker-Demo", "*"])
    transport = httpx.ASGITransport(create_app(new_settings(), gateway=gateway, metrics=metrics))
    tick = {"symbol": "EURUSD", "time_msc": clock.now_ms(), "bid": 1.1, "ask": 1.2, "flags": 6}

    # Act: of each source a tick that is taken and one that is not
    async with httpx.AsyncClient(transport=transport, base_url="http://producer") as client:
        for number in range(1_000):
            headers = {"X-API-Key": ANY_KEY, "X-Source": f"source-{number}"}
            await client.post("/ingest/tick", json={"ticks": [tick, {}]}, headers=headers)
        await client.post("/ingest/tick", json={"ticks": [tick]}, headers={"X-API-Key": KEY})

    # Assert: every tick is counted, under a hundred names and `other`
    samples = [
        sample for family in metrics.registry.collect() for sample in family.samples if "source" in sample.labels
    ]
    ticks = {s.labels["source"]: s.value for s in samples if s.name == "tickpipe_producer_ticks_accepted_total"}
    assert sum(ticks.values()) == 1_001
    assert (len(ticks), ticks["Broker-Demo"], ticks["source-0"]) == (100, 1, 1)
    assert ticks["other"] > 900
    assert len({(s.labels["source"], s.labels.get("symbol", "")) for s in samples}) < 700
