"""Somebody deletes the topic of the candles under the running services: it is named and comes back, nothing is lost."""

import asyncio
from functools import partial
from pathlib import Path

import psycopg
import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from runtime.kafka import admin_client
from runtime.settings import Settings
from tests.days import eurusd_ticks
from tests.kafka_log import KafkaLog, delete_topic, frames_of
from tests.services import Service
from tests.waiting import eventually

pytestmark = pytest.mark.long(25)


def stored_ticks(settings: Settings) -> int:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        row = connection.execute("SELECT coalesce(sum(volume), 0)::bigint FROM market_data").fetchone()
    assert row is not None
    return int(row[0])


async def test_the_topic_of_the_candles_comes_back(settings: Settings, kafka: KafkaLog, tmp_path: Path) -> None:
    # Arrange
    frames = frames_of(eurusd_ticks()[:2_000], 100)
    worker = Service("stream_app", settings, log=tmp_path / "worker.log").start()
    sink = Service("sink", settings, log=tmp_path / "sink.log").start()
    try:
        worker.wait_ready()
        sink.wait_ready()
        await kafka.send(*frames[:10])

        async def first_half_is_stored() -> bool:
            return stored_ticks(settings) == 1_000

        await eventually(first_half_is_stored, what="1,000 ticks in the table")

        # Act
        await delete_topic(settings, settings.candles_topic)
        await kafka.send(*frames[10:])

        # Assert
        async def all_is_stored() -> bool:
            return stored_ticks(settings) == 2_000

        await eventually(all_is_stored, what="2,000 ticks in the table")
        assert worker.returncode is None
        assert sink.returncode is None
        (line,) = [line for line in worker.said().splitlines() if "action=topic_gone" in line]
        assert settings.candles_topic in line
        assert len(worker.said().splitlines()) < 100
    finally:
        worker.close()
        sink.close()


async def test_a_worker_whose_candles_are_not_confirmed_is_not_ready(settings: Settings, kafka: KafkaLog) -> None:
    async def largest_batch(size_bytes: int) -> None:
        async with admin_client(settings) as client:
            wanted = {"max.message.bytes": str(size_bytes)}
            await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.candles_topic, wanted)])

    def checks() -> tuple[int, dict[str, bool]]:
        answer = worker.get("/ready")
        return answer.status_code, answer.json()["checks"]

    async def candles_are(confirmed: bool) -> bool:
        status, found = await asyncio.to_thread(checks)
        return (status == 200) is confirmed and found == {"kafka": True, "candles": confirmed, "log": True}

    worker = Service("stream_app", settings).start()
    try:
        await asyncio.to_thread(worker.wait_ready)
        await largest_batch(10)
        await kafka.send(*frames_of(eurusd_ticks()[:100], 100))
        await eventually(partial(candles_are, False), what="a worker that is not ready")

        await largest_batch(1_000_000)
        await eventually(partial(candles_are, True), what="a worker that is ready")
        assert len(await kafka.candles()) > 0
    finally:
        worker.close()
