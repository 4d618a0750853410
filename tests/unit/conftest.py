"""What tests of producer and relay together start from."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from relay.store import Store
from tests.unit.producer.conftest import Bench, new_bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = new_bench()
    async with made.client:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "ea.db") as opened:
        yield opened
