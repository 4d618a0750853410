"""A real Kafka; each test has topics and a producer process of its own."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from runtime.settings import Settings, load_settings
from tests.integration.producer.service import Service, running
from tests.servers import EmbeddedServers

_numbers = count(1)


@pytest.fixture
def settings(servers: EmbeddedServers) -> Settings:
    """Settings with topics that nobody used before."""
    name = f"producer_{os.getpid()}_{next(_numbers)}"
    return load_settings(
        kafka_bootstrap=servers.kafka_bootstrap,
        ticks_topic=f"{name}.ticks",
        candles_topic=f"{name}.candles.m1",
        broker_candles_topic=f"{name}.candles.broker",
        reference_topic=f"{name}.reference",
        ticks_rejected_topic=f"{name}.ticks.rejected",
        candles_rejected_topic=f"{name}.candles.rejected",
        api_keys={"Broker-Demo": "key-of-the-broker", "*": "key-of-everybody"},
        confirm_timeout_seconds=2.0,
    )


@pytest.fixture
def service(settings: Settings, tmp_path: Path) -> Iterator[Service]:
    """A producer that is ready."""
    with running(settings, tmp_path / "producer.log") as started:
        started.wait_ready()
        yield started
