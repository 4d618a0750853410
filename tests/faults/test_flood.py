"""Outages and senders that do not give up fill no disk: lines of every service are counted while something is away."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from runtime.settings import Settings
from tests.kafka_log import delete_topic
from tests.servers import EmbeddedServers
from tests.services import Service, running

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.long(300), pytest.mark.timeout(1200)]

#: Longer than what a service may say in its own pace a hundred times (seconds).
AWAY_SECONDS = 90.0

#: Lines of one wording, and of all, that one service may write in such a time: the bursts, then one in half a minute.
MOST_OF_A_WORDING, MOST = 30, 250

WRONG_KEYS = 3_000


@pytest.fixture
def services(settings: Settings, tmp_path: Path) -> Iterator[list[Service]]:
    with running(settings, "producer", "stream_app", "sink", "dashboard", logs=tmp_path) as started:
        yield started


async def test_no_line_is_repeated_without_end(
    services: list[Service], settings: Settings, servers: EmbeddedServers
) -> None:
    trading = asyncio.create_task(trade(services[0]))
    try:
        await wrong_keys(services[0])
        expect_few_lines(services, "wrong keys")

        await asyncio.to_thread(servers.stop_kafka)
        await asyncio.sleep(AWAY_SECONDS)
        await asyncio.to_thread(servers.start_kafka)
        expect_few_lines(services, "Kafka was away")

        await asyncio.to_thread(servers.stop_postgres)
        await asyncio.sleep(AWAY_SECONDS)
        await asyncio.to_thread(servers.start_postgres)
        expect_few_lines(services, "PostgreSQL was away")

        for _ in range(3):
            await delete_topic(settings, settings.candles_topic)
            await asyncio.sleep(AWAY_SECONDS / 3)
        expect_few_lines(services, "candles.m1 was deleted")
    finally:
        trading.cancel()
    assert [service.returncode for service in services] == [None] * len(services)


async def trade(producer: Service) -> None:
    """A tick ten times a second, whatever the answer."""
    headers = {"X-API-Key": next(iter(producer.settings.api_keys.values())).get_secret_value(), "X-Source": "EA"}
    async with httpx.AsyncClient(trust_env=False, headers=headers, timeout=30) as client:
        number = 0
        while True:
            number += 1
            body = {"symbol": "EURUSD", "time_msc": 1_700_000_000_000 + number * 100, "bid": 1.1, "ask": 1.2}
            with suppress(httpx.HTTPError):
                await client.post(producer.url + "/ingest/tick", json=body)
            await asyncio.sleep(0.1)


async def wrong_keys(producer: Service) -> None:
    async with httpx.AsyncClient(trust_env=False, headers={"X-API-Key": "wrong"}, timeout=30) as client:
        for _ in range(WRONG_KEYS // 20):
            answers = await asyncio.gather(*(client.post(producer.url + "/ingest/tick", json={}) for _ in range(20)))
            assert {answer.status_code for answer in answers} <= {401, 429}


def expect_few_lines(services: list[Service], what: str) -> None:
    for service in services:
        lines = [line for line in service.said().splitlines() if re.match(r"\d{4}-", line)]
        wordings = Counter(re.sub(r"\d+", "N", line)[:110] for line in lines)
        print(f"{what}: {service.module} wrote {len(lines)} lines, {wordings.most_common(3)}")
        assert len(lines) < MOST, what
        assert max(wordings.values(), default=0) <= MOST_OF_A_WORDING, what
        service.forget_said()
