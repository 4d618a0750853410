"""A worker whose transport skips a poll ends, and the next one folds it."""

import asyncio
from pathlib import Path

import pytest

from runtime.settings import Settings
from tests.faults.stage import Stage
from tests.servers import EmbeddedServers

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]


@pytest.mark.full
async def test_a_worker_that_skipped_a_poll_ends_and_the_next_one_folds_it(
    settings: Settings, servers: EmbeddedServers, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKIP_ONCE", str(tmp_path / "skipped"))
    async with Stage(settings, servers, case="poll skipped", seed=seed, modules=("producer", "sink")) as stage:
        await asyncio.to_thread(stage.add_worker("tests.faults.skipping_worker").wait_ready)
        stage.trade("EURUSD")
        await stage.recovered()
        stage.rounds = 1
        await stage.settle_and_compare()
    assert (tmp_path / "skipped").exists()
    assert stage.ended == ["tests.faults.skipping_worker 70"]
