"""Fixtures of the command line's tests."""

from collections.abc import Iterator

import pytest

from tests.scripted import ScriptedServer, scripted_server


@pytest.fixture
def producer() -> Iterator[ScriptedServer]:
    with scripted_server() as running:
        yield running
