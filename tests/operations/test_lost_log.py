"""Kafka comes back without its topics: nothing is created in their place, and ticks stay with their senders until an
operator says what is to happen."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from marketdata.errors import UnknownTopic
from runtime.kafka import admin_client, log_ends
from runtime.known_log import KnownLog
from runtime.logreader import own_log, wait_for_log
from runtime.rights import Service as Rights
from runtime.settings import Settings
from runtime.topics import ensure_topics, restore_topics
from tests import preloaded
from tests.kafka_log import delete_topic
from tests.services import Service, environment
from tests.waiting import eventually

pytestmark = pytest.mark.long(25)

TICK = {"ts_msc": 1760926800417, "symbol": "EURUSD", "bid": 1.1, "ask": 1.2}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"known_log_file": tmp_path / "known-log"})


async def lose(settings: Settings) -> None:
    """What a full disk has done to Kafka: every topic is gone."""
    for topic in settings.topic_names:
        await delete_topic(settings, topic)


async def present(settings: Settings) -> set[str]:
    async with admin_client(settings) as client:
        return set(await client.list_topics()) & set(settings.topic_names)


def create(settings: Settings, *options: str) -> tuple[int, str]:
    """`tickpipe topics create` and what it says."""
    done = preloaded.run(["tickpipe", "topics", "create", *options], environment=environment(settings))
    return done.returncode, done.stdout + done.stderr


async def status_is(producer: Service, status: int) -> bool:
    body: dict[str, Any] = {"ticks": [TICK]}
    return await asyncio.to_thread(lambda: producer.post(body).status_code) == status


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_lost_log_is_not_replaced_until_the_operator_says_so(
    settings: Settings, tmp_path: Path, restarts: bool
) -> None:
    await ensure_topics(settings)
    lost = await own_log(settings)
    producer = Service("producer", settings, log=tmp_path / "producer.log").start()
    try:
        await asyncio.to_thread(producer.wait_ready)
        assert await status_is(producer, 200)
        if restarts:
            await asyncio.to_thread(producer.close)
        await lose(settings)
        if restarts:
            producer.start()
            await asyncio.to_thread(producer.wait_for, "/health")

        # An idle producer notices as well.
        async def is_not_ready() -> bool:
            return "action=log_lost" in producer.said() and producer.get("/ready").status_code == 503

        await eventually(is_not_ready, what="a producer that is not ready")
        assert await status_is(producer, 503)
        (line,) = [line for line in producer.said().splitlines() if "action=log_lost" in line]
        assert lost in line
        assert "tickpipe topics create --recreate" in line

        code, said = await asyncio.to_thread(create, settings)
        assert (code, "--recreate" in said, lost in said) == (1, True, True)
        assert await present(settings) == set()

        code, said = await asyncio.to_thread(create, settings, "--recreate")
        assert code == 0, said
        await eventually(partial(status_is, producer, 200), what="ticks that are taken again")
        assert "action=log_recreated" in producer.said()
        assert KnownLog(settings.known_log_file).name == await own_log(settings) != lost
        assert sum(end for _, end in (await log_ends(settings, settings.ticks_topic)).values()) == 1
    finally:
        producer.close()


async def test_whoever_reads_the_log_waits_for_it(settings: Settings) -> None:
    await lose(settings)

    with pytest.raises(UnknownTopic, match="has no topic"):
        await wait_for_log(settings, service=Rights.STREAM, timeout_seconds=0.5)
    await restore_topics(settings, settings.candles_topic)

    assert await present(settings) == set()
