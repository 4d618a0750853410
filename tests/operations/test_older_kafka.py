"""Kafka's data folder is replaced by an older copy under running services: same cluster, same topics, shorter logs."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from marketdata.tick import Frame, Tick
from runtime.kafka import new_producer
from runtime.settings import Settings
from runtime.topics import ensure_topics
from tests.conftest import NewDataDir
from tests.days import eurusd_ticks
from tests.kafka_log import KafkaLog, frames_of
from tests.servers import TEST_DATABASE, EmbeddedServers
from tests.services import running
from tests.waiting import eventually

pytestmark = [pytest.mark.full, pytest.mark.long(25)]


@pytest.fixture
def folder(new_data_dir: NewDataDir) -> Path:
    return new_data_dir("servers")


@pytest.fixture
def servers(folder: Path) -> Iterator[EmbeddedServers]:
    with EmbeddedServers(folder, database_settings=TEST_DATABASE) as started:
        yield started


def rows(settings: Settings) -> dict[tuple[str, int], int]:
    """Ticks by symbol and minute."""
    query = "SELECT symbol, extract(epoch FROM ts)::bigint * 1000, volume FROM market_data"
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        return {(symbol, int(ts)): volume for symbol, ts, volume in connection.execute(query)}


def noted_end(settings: Settings) -> int:
    """The end of the log of ticks as the sink has stored it."""
    query = "SELECT coalesce(sum(next_offset), 0)::bigint FROM sink_progress WHERE log LIKE '%/ticks.%'"
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def counted(*flows: list[Frame]) -> dict[tuple[str, int], int]:
    """What the rows have to be; the flows share no minute of a symbol."""
    volumes: dict[tuple[str, int], int] = {}
    for frame in (frame for flow in flows for frame in flow):
        for tick in frame.ticks:
            key = (frame.symbol, tick.time_msc // 60_000 * 60_000)
            volumes[key] = volumes.get(key, 0) + 1
    return volumes


async def test_minutes_after_the_copy_and_before_it_are_all_stored(
    servers: EmbeddedServers, folder: Path, settings: Settings, tmp_path: Path
) -> None:
    """New ticks get offsets that rows name already. Minutes of which Kafka has lost the ticks stay as they are."""
    # Arrange
    minutes: dict[int, list[Tick]] = {}
    for tick in eurusd_ticks():
        minutes.setdefault(tick.time_msc // 60_000, []).append(tick)
    numbers = sorted(minutes)
    first, second, third = ([t for n in numbers[i : i + 4] for t in minutes[n]] for i in (0, 4, 8))
    before, lost, after = frames_of(first, 20), frames_of(second, 20), frames_of(third, 20)
    # The EA sends a minute once more of which only a part is left in Kafka.
    resent = frames_of(second, 10, "GBPUSD")
    half = resent[: len(resent) // 2]
    copy = tmp_path / "copy"

    async def stored(*flows: list[Frame]) -> bool:
        return await asyncio.to_thread(rows, settings) == counted(*flows)

    async def is_noted(end: int) -> bool:
        return await asyncio.to_thread(noted_end, settings) == end

    async def says_log_shortened() -> bool:
        return "action=log_shortened" in sink.said()

    async def is_well() -> bool:
        checks = await asyncio.to_thread(lambda: sink.get("/ready").json()["checks"])
        return bool(checks == {"kafka": True, "database": True, "log": True})

    await ensure_topics(settings)
    with running(settings, "stream_app", "sink", logs=tmp_path) as (worker, sink):
        kafka = await _log(settings)
        await kafka.send(*before)
        await eventually(lambda: stored(before), what="the ticks before the copy")
        await kafka.producer.stop()
        await asyncio.to_thread(servers.stop_kafka)
        shutil.copytree(folder / "kafka", copy)
        await asyncio.to_thread(servers.start_kafka)
        kafka = await _log(settings)
        await kafka.send(*lost, *half)
        await eventually(lambda: stored(before, lost, half), what="the ticks after the copy")
        await eventually(lambda: is_noted(len([*before, *lost, *half])), what="the end of the log in the database")
        await kafka.producer.stop()

        # Act
        await asyncio.to_thread(servers.stop_kafka)
        shutil.rmtree(folder / "kafka")
        shutil.copytree(copy, folder / "kafka")
        await asyncio.to_thread(servers.start_kafka)
        await eventually(says_log_shortened, what="the sink to see it")
        kafka = await _log(settings)
        await kafka.send(*resent, *after)

        # Assert
        await eventually(lambda: stored(before, lost, resent, after), what="every tick")
        await kafka.producer.stop()
        assert "action=log_shortened" in worker.said()
        await eventually(is_well, what="a sink that is ready")
        assert (worker.returncode, sink.returncode) == (None, None)


async def _log(settings: Settings) -> KafkaLog:
    producer = new_producer(settings)
    await producer.start()
    return KafkaLog(settings, producer)
