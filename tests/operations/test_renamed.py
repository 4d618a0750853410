"""Groups, topics and the schema get other names in the settings, and later their former ones: nothing is lost."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from marketdata.tick import Frame
from runtime.settings import Settings
from sink.db.session import database_conninfo, open_session
from sink.verify import verify
from tests.days import eurusd_ticks
from tests.finished_topics import finish_topics
from tests.integration.sink.flow import value
from tests.kafka_log import KafkaLog, frames_of
from tests.services import Service
from tests.waiting import eventually

pytestmark = [pytest.mark.full, pytest.mark.long(60)]


async def has(settings: Settings, ticks: int) -> bool:
    async with await open_session(database_conninfo(settings), "test") as connection:
        return bool(await value(connection, "SELECT coalesce(sum(volume), 0) FROM market_data") == ticks)


@asynccontextmanager
async def services(settings: Settings, folder: Path) -> AsyncIterator[list[Service]]:
    """A worker and a sink, ready."""
    running = [Service(name, settings, log=folder / f"{name}.log").start() for name in ("stream_app", "sink")]
    try:
        for service in running:
            await asyncio.to_thread(service.wait_ready)
        yield running
    finally:
        for service in running:
            await asyncio.to_thread(service.close)


async def test_names_that_change_and_change_back_lose_nothing(
    settings: Settings, kafka: KafkaLog, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    frames = frames_of(eurusd_ticks()[:2_500], 100)
    other_names = {
        name: f"{getattr(settings, name)}.renamed"
        for name in ("stream_group", "candles_topic", "ticks_rejected_topic", "candles_rejected_topic")
    }
    renamed = settings.model_copy(update=other_names | {"sink_group": f"{settings.stream_group}.sink.renamed"})
    request.addfinalizer(partial(finish_topics, renamed))
    elsewhere = settings.model_copy(update={"database_schema": "renamed"})

    async def phase(used: Settings, sent: Sequence[Frame], ticks: int) -> None:
        async with services(used, tmp_path):
            await kafka.send(*sent)
            await eventually(partial(has, used, ticks), what=f"{ticks} ticks in the table")
            found = await verify(used, complete=True)
            assert (found.missing, found.differences) == ([], [])

    await phase(settings, frames[:10], 1_000)
    await phase(renamed, frames[10:15], 1_500)
    await phase(settings, frames[15:20], 2_000)
    await phase(elsewhere, frames[20:], 2_500)
    await phase(settings, [], 2_500)
