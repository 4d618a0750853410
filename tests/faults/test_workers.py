"""Several stream workers on the partitions of one topic: they come, go and sleep while EAs trade."""

import asyncio
import signal

import pytest

from runtime.settings import Settings
from tests.faults.stage import Stage
from tests.servers import EmbeddedServers

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.timeout(1200)]

SYMBOLS = tuple(f"SYM{i}" for i in range(8))

#: Longer than the session timeout of a worker (10 s): it wakes as the owner of what others have taken over.
OUTLIVED_SECONDS = 13.0


async def test_two_then_three_workers_one_of_which_sleeps(
    settings: Settings, servers: EmbeddedServers, seed: int, rounds: int
) -> None:
    async with Stage(settings, servers, case="a worker sleeps through its session", seed=seed) as stage:
        await asyncio.to_thread(stage.add_worker().wait_ready)
        stage.trade(*SYMBOLS)
        for number in range(max(2, rounds // 3)):
            if number == 1:
                await asyncio.to_thread(stage.add_worker().wait_ready)
            workers = [service for service in stage.services if service.module == "stream_app"]
            await asyncio.sleep(stage.rng.uniform(1, 4))
            sleeper = stage.rng.choice(workers)
            sleeper.send_signal(signal.SIGSTOP)
            await asyncio.sleep(OUTLIVED_SECONDS)
            sleeper.send_signal(signal.SIGCONT)
            stage.rounds += 1
        await stage.recovered()
        await stage.settle_and_compare()


async def test_workers_are_added_and_removed_under_load(
    settings: Settings, servers: EmbeddedServers, seed: int, rounds: int
) -> None:
    async with Stage(settings, servers, case="workers added and removed", seed=seed) as stage:
        stage.trade(*SYMBOLS)
        for _ in range(rounds):
            workers = [service for service in stage.services if service.module == "stream_app"]
            if len(workers) == 1 or (len(workers) < 3 and stage.rng.random() < 0.5):
                await asyncio.to_thread(stage.add_worker().wait_ready)
            else:
                # Whichever it is, the first one as well: none has a part of its own.
                assert await stage.remove_worker(stage.rng.choice(workers)) == 0
            stage.rounds += 1
            await asyncio.sleep(stage.rng.uniform(0.5, 4))
        await stage.recovered()
        await stage.settle_and_compare()
