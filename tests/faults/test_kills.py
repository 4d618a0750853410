"""Kill -9 at random moments under trading EAs, round after round."""

import asyncio

import pytest

from runtime.settings import Settings
from tests.faults.stage import Stage
from tests.servers import EmbeddedServers

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.timeout(1200)]

VICTIMS = ("producer", "stream_app", "sink", "broker", "database")


@pytest.mark.parametrize("victim", VICTIMS)
async def test_the_same_victim_is_killed_again_and_again(
    settings: Settings, servers: EmbeddedServers, seed: int, rounds: int, victim: str
) -> None:
    async with Stage(settings, servers, case=f"{victim} killed", seed=seed) as stage:
        stage.trade("EURUSD", "GBPUSD", "USDJPY")
        for _ in range(rounds):
            await asyncio.sleep(stage.rng.uniform(0.5, 4))
            await stage.kill(victim)
            # Every other round the next kill meets a pipeline that has not recovered yet.
            if stage.rng.random() < 0.5:
                await stage.recovered()
        await stage.recovered()
        await stage.settle_and_compare()


async def test_a_worker_is_killed_between_folding_and_publishing(
    settings: Settings, servers: EmbeddedServers, seed: int, rounds: int
) -> None:
    """It publishes rarely, so that every kill finds folded ticks that nobody has seen: none may be committed."""
    # Few candles move, so the pauses between them are a fortieth of the interval.
    rare = settings.model_copy(update={"emit_interval_seconds": 120.0})
    async with Stage(rare, servers, case="stream_app killed, publishes rarely", seed=seed) as stage:
        stage.trade("EURUSD", "GBPUSD", "USDJPY")
        for _ in range(rounds):
            await stage.recovered()
            await asyncio.sleep(stage.rng.uniform(1, 4))
            await stage.kill("stream_app")
        await stage.recovered()
        await stage.settle_and_compare()


async def test_each_victim_in_turn(settings: Settings, servers: EmbeddedServers, seed: int, rounds: int) -> None:
    async with Stage(settings, servers, case="each killed in turn", seed=seed) as stage:
        stage.trade("EURUSD", "GBPUSD")
        for victim in stage.rng.sample(VICTIMS * rounds, len(VICTIMS) * rounds):
            await asyncio.sleep(stage.rng.uniform(0.2, 1))
            await stage.kill(victim)
        await stage.recovered()
        await stage.settle_and_compare()
