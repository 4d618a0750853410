"""What tests of producer and relay together start from."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from marketdata.contract import large_body
from relay.store import Store
from tests.unit.producer.conftest import Bench, new_bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = new_bench()
    async with made.client:
        yield made


@pytest.fixture
def small_large_bodies(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many bytes make a body large here: a tenth of the usual, cut into pieces that are as much smaller."""
    size_bytes = large_body.LARGE_BYTES // 10
    for module in ("marketdata.contract.large_body", "producer.ingest", "relay.api"):
        monkeypatch.setattr(f"{module}.LARGE_BYTES", size_bytes)
    monkeypatch.setattr(large_body, "_PIECE_BYTES", large_body._PIECE_BYTES // 10)
    return size_bytes


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "ea.db") as opened:
        yield opened
