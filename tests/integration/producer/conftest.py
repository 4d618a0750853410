"""A real Kafka; each test has topics and a producer process of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from runtime.settings import Settings
from tests.integration.producer.service import logging_producer
from tests.services import Service


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A source with a key of its own; the wait for Kafka's confirmation is short, yet enough for a busy machine."""
    keys = {"Broker-Demo": SecretStr("key-of-the-broker"), "*": SecretStr("key-of-everybody")}
    return settings.model_copy(update={"api_keys": keys, "confirm_timeout_seconds": 5.0})


@pytest.fixture
def service(settings: Settings, tmp_path: Path) -> Iterator[Service]:
    """A producer that is ready."""
    with logging_producer(settings, tmp_path / "producer.log") as started:
        yield started.wait_ready()
