"""Fixtures of the relay's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.relay.process import RelayProcess

StartRelay = Callable[[str | None], RelayProcess]


@pytest.fixture
def start_relay(tmp_path: Path) -> Iterator[StartRelay]:
    """Starts a relay on the test's database, forwarding to the given address."""
    relays: list[RelayProcess] = []

    def start(forward_to: str | None) -> RelayProcess:
        relays.append(RelayProcess(tmp_path / "ea.db", forward_to))
        relays[-1].start()
        return relays[-1]

    yield start
    for relay in relays:
        relay.close()
