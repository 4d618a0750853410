"""Fixtures of the relay's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.store import Store
from tests.scripted import ScriptedServer, scripted_server


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "ea.db", busy_seconds=0.2) as opened:
        yield opened


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as running:
        yield running
