"""The database stops, locks the table, refuses a row."""

import asyncio

import psycopg
import pytest

from runtime.settings import Settings
from tests.faults.stage import Stage
from tests.kafka_log import KafkaLog
from tests.servers import EmbeddedServers

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.timeout(1200)]


async def test_the_database_restarts_in_order(
    settings: Settings, servers: EmbeddedServers, seed: int, rounds: int
) -> None:
    async with Stage(settings, servers, case="database restarted", seed=seed) as stage:
        stage.trade("EURUSD", "GBPUSD")
        for _ in range(rounds):
            await asyncio.sleep(stage.rng.uniform(0.5, 3))
            await stage.without(servers.stop_postgres, servers.start_postgres)
            stage.rounds += 1
        await stage.recovered()
        await stage.settle_and_compare()


@pytest.mark.parametrize("seconds", [3.0, 25.0], ids=["shorter", "longer than the lock timeout"])
async def test_a_locked_table_delays(settings: Settings, servers: EmbeddedServers, seed: int, seconds: float) -> None:
    async with Stage(settings, servers, case="table locked", seed=seed) as stage:
        stage.trade("EURUSD", "GBPUSD")
        await stage.recovered()
        async with await psycopg.AsyncConnection.connect(settings.database_url.get_secret_value()) as connection:
            # Readers must see the table, or the test could not measure: EXCLUSIVE keeps writers away alone.
            await connection.execute("LOCK TABLE market_data IN EXCLUSIVE MODE")
            newest = await stage.newest()
            await asyncio.sleep(seconds)
            assert await stage.newest() == newest
        stage.rounds = 1
        await stage.recovered()
        await stage.settle_and_compare()
    assert stage.ended == []


async def test_a_row_that_the_database_refuses_is_set_aside_alone(
    settings: Settings, servers: EmbeddedServers, kafka: KafkaLog, seed: int
) -> None:
    async with Stage(settings, servers, case="rows refused", seed=seed) as stage:
        stage.trade("EURUSD", "GBPUSD")
        await stage.recovered()
        async with await psycopg.AsyncConnection.connect(settings.database_url.get_secret_value()) as connection:
            await connection.execute("ALTER TABLE market_data ADD CHECK (symbol <> 'XAUUSD') NOT VALID")
        stage.trade("XAUUSD")
        stage.rounds = 1
        await stage.recovered(without=("XAUUSD",))
        await asyncio.sleep(5)
        await stage.settle_and_compare(without=("XAUUSD",))
    assert stage.ended == []
    rejected = await kafka.read(settings.candles_rejected_topic)
    assert rejected
    assert all(b'"symbol":"XAUUSD"' in (value or b"") for _, value in rejected)
