"""The network between the services and their servers is cut, hangs or is slow."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from runtime.settings import Settings
from tests.faults.network import ProxiedServers, Proxy
from tests.faults.stage import Stage

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ProxiedServers]:
    proxied = ProxiedServers(tmp_path_factory.mktemp("proxied"))
    await proxied.broker_proxy.start()
    await proxied.database_proxy.start()
    try:
        await asyncio.to_thread(proxied.start)
        yield proxied
    finally:
        await asyncio.to_thread(proxied.stop)
        await proxied.broker_proxy.stop()
        await proxied.database_proxy.stop()


@dataclass(frozen=True)
class BadNetwork:
    """Services on the far side of the proxies, one of which is to be bad."""

    server: str
    proxy: Proxy
    near: Settings
    far: Settings
    servers: ProxiedServers
    seed: int

    def stage(self, case: str) -> Stage:
        return Stage(self.far, self.servers, case=f"{case}: {self.server}", seed=self.seed, truth_settings=self.near)


@pytest.fixture(params=["broker", "database"])
def network(request: pytest.FixtureRequest, settings: Settings, servers: ProxiedServers, seed: int) -> BadNetwork:
    server = str(request.param)
    proxy: Proxy = getattr(servers, f"{server}_proxy")
    far = servers.through_proxies(settings)
    return BadNetwork(server, proxy, settings, far, servers, seed)


async def test_connections_are_cut(network: BadNetwork, rounds: int) -> None:
    async with network.stage("connections cut") as stage:
        stage.trade("EURUSD", "GBPUSD")
        for _ in range(rounds):
            await asyncio.sleep(stage.rng.uniform(0.2, 3))
            network.proxy.refuses = stage.rng.random() < 0.5
            await network.proxy.cut()
            await asyncio.sleep(stage.rng.uniform(0, 3))
            network.proxy.heal()
            stage.rounds += 1
        await stage.recovered()
        await stage.settle_and_compare()


@pytest.mark.parametrize("seconds", [4.0, 25.0])
async def test_connections_hang(network: BadNetwork, seconds: float) -> None:
    """Shorter and longer than the timeouts of group, confirmation and request."""
    async with network.stage("connections hang") as stage:
        stage.trade("EURUSD", "GBPUSD")
        await stage.recovered()
        network.proxy.hang()
        await asyncio.sleep(seconds)
        network.proxy.heal()
        stage.rounds = 1
        await stage.recovered()
        await stage.settle_and_compare()


async def test_a_slow_network(network: BadNetwork) -> None:
    async with network.stage("slow network") as stage:
        network.proxy.delay_seconds, network.proxy.rate = 0.15, 64_000.0
        stage.trade("EURUSD", "GBPUSD")
        await asyncio.sleep(20)
        stage.rounds = 1
        await stage.recovered()
        network.proxy.heal()
        await stage.settle_and_compare()
