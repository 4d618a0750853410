"""The log loses its beginning, or is re-created, while the table stays."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from functools import cache

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from marketdata.tick import Tick
from runtime.kafka import admin_client, log_ends
from runtime.settings import Settings
from runtime.topics import ensure_topics
from tests.days import eurusd_ticks
from tests.faults import truth
from tests.faults.stage import Stage
from tests.kafka_log import delete_ticks_topic
from tests.servers import EmbeddedServers

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.timeout(600)]

Loss = Callable[[Settings], Awaitable[None]]

#: Shorter than the tests wait, so that a worker that takes a lost log for lag is caught.
WATCHDOG_SECONDS = 15.0

#: Length of a half hour; they share no minute (milliseconds).
HALF_HOUR_MS = 30 * 60_000


@cache
def half_hour(number: int) -> list[Tick]:
    """The ticks of one half hour."""
    first_ms = eurusd_ticks()[0].time_msc // HALF_HOUR_MS * HALF_HOUR_MS + (number + 2) * HALF_HOUR_MS
    return [tick for tick in eurusd_ticks() if first_ms <= tick.time_msc < first_ms + HALF_HOUR_MS]


async def truncate(settings: Settings) -> None:
    """What retention does, at once: all records that there are."""
    ends = await log_ends(settings, settings.ticks_topic)
    before = {
        TopicPartition(settings.ticks_topic, p): RecordsToDelete(before_offset=end) for p, (_, end) in ends.items()
    }
    async with admin_client(settings) as client:
        await client.delete_records(before)


async def recreate(settings: Settings) -> None:
    """Delete the ticks topic and create it again."""
    await delete_ticks_topic(settings)
    await ensure_topics(settings)


async def recreate_smaller(settings: Settings) -> None:
    """Delete the ticks topic and create it again with a single partition."""
    await delete_ticks_topic(settings)
    await ensure_topics(settings.model_copy(update={"kafka_partitions": 1}))


def impatient(settings: Settings) -> Settings:
    return settings.model_copy(update={"watchdog_seconds": WATCHDOG_SECONDS})


@pytest.mark.parametrize("loss", [truncate, recreate, recreate_smaller])
async def test_the_table_stays_and_the_flow_goes_on(
    settings: Settings, servers: EmbeddedServers, seed: int, loss: Loss
) -> None:
    """The pipeline runs while it happens; then half an hour is sent that is new, and the old one once more."""
    async with Stage(impatient(settings), servers, case=f"log: {loss.__name__}", seed=seed) as stage:
        await stage.post("EURUSD", half_hour(0))
        held = (await stage.settle_and_compare(is_over=False)).expected()
        await loss(settings)
        stage.rounds += 1
        await stage.post("EURUSD", half_hour(1)[:1_000])
        await stage.post("GBPUSD", half_hour(1))
        held |= (await stage.settle_and_compare(held=held, is_over=False)).expected()
        await stage.post("EURUSD", half_hour(0))
        await stage.settle_and_compare(held=held)
    # A worker that reads what is another log before it is told begins with nothing.
    assert stage.ended == [] if loss is truncate else set(stage.ended) <= {"stream_app 70"}


async def test_another_log_that_grew_past_the_old_one_is_read_from_its_beginning(
    settings: Settings, servers: EmbeddedServers, seed: int
) -> None:
    """The worker's position lies within the new log, so no answer of the broker tells that it is another one."""
    async with Stage(impatient(settings), servers, case="log: recreate, grown past the old", seed=seed) as stage:
        requests = await stage.post("EURUSD", half_hour(0))
        held = (await stage.settle_and_compare(is_over=False)).expected()
        stage["stream_app"].send_signal(signal.SIGSTOP)
        await recreate(settings)
        stage.rounds += 1
        assert await stage.post("EURUSD", half_hour(1), size=25) > requests
        stage["stream_app"].send_signal(signal.SIGCONT)
        await stage.settle_and_compare(held=held)
    assert set(stage.ended) <= {"stream_app 70"}


@pytest.mark.parametrize("loss", [truncate, recreate])
async def test_a_worker_that_was_away_finds_another_log(
    settings: Settings, servers: EmbeddedServers, seed: int, loss: Loss
) -> None:
    """What was never folded is lost with the log, and only that; nothing is lag for ever."""
    async with Stage(impatient(settings), servers, case=f"log: {loss.__name__}, worker away", seed=seed) as stage:
        await stage.post("EURUSD", half_hour(0))
        held = (await stage.settle_and_compare(is_over=False)).expected()
        await stage.remove_worker(stage["stream_app"])
        await stage.post("EURUSD", half_hour(1))
        await loss(settings)
        stage.rounds += 1
        await asyncio.to_thread(stage.add_worker().wait_ready)
        await asyncio.sleep(2 * WATCHDOG_SECONDS)
        assert await truth.lag(settings) == 0
        await stage.post("EURUSD", half_hour(2))
        await stage.settle_and_compare(held=held)
    assert stage.ended == []
