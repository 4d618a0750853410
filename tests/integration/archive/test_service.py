"""The archiver on a real Kafka: killed at any time, twice by mistake, and with what it may delete."""

import asyncio
import random
import shutil
import signal
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from msgspec.structs import replace

from marketdata.offsets import position
from marketdata.tick import Frame
from marketdata.wire import encode
from runtime.archive.files import LocalFiles
from runtime.archive.manifest import Catalogue
from runtime.archive.reader import ArchiveReader
from runtime.kafka import admin_client, log_ends
from runtime.kafka_groups import group_offsets
from runtime.logreader import own_log
from runtime.settings import Settings
from tests.kafka_log import KafkaLog, send_empty
from tests.services import Service
from tests.unit.archive.test_writer import MIDNIGHT, frames
from tests.waiting import eventually, wait_until
from tickpipe.archive import _forget

LOG = list[tuple[int, Frame]]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(
        update={"archive": str(tmp_path / "archive"), "archive_flush_seconds": 0.3, "kafka_partitions": 2}
    )


async def archive_of(settings: Settings) -> Catalogue:
    return Catalogue(LocalFiles(Path(settings.archive)), await own_log(settings))


async def stored(settings: Settings) -> dict[int, LOG]:
    """The frames that the archive has, by partition, with their offsets."""
    catalogue = await archive_of(settings)
    return {
        partition: [one for chunk in ArchiveReader(catalogue).read(partition, 0, 1 << 40) for one in chunk]
        for partition in catalogue.partitions()
    }


def a_file_of(settings: Settings) -> Path:
    return next(Path(settings.archive).rglob("*.parquet"))


def sent(kafka: KafkaLog) -> dict[int, LOG]:
    return {
        partition: [(place & (1 << 48) - 1, frame) for place, frame in log] for partition, log in kafka.log.items()
    }  # fmt: skip


async def test_kills_at_random_repeat_and_drop_nothing(settings: Settings, kafka: KafkaLog) -> None:
    """What is sent meanwhile, and records that are no frames or have no key among it, comes out once; merging goes on
    as well."""
    dice = random.Random(7)
    archiver = Service("archive", settings)
    try:
        for round_ in range(3):
            archiver.start()
            for symbol in ("EURUSD", "WIN$", "a/b"):
                log = frames(dice.randint(1, 80), symbol=symbol, time_msc=MIDNIGHT - 30_000 + round_)
                await kafka.send(*(replace(frame, request=f"{round_}-{frame.request}") for _, frame in log))
            await send_empty(kafka.producer, settings.ticks_topic)
            [(_, frame)] = frames(1, symbol="keyless", time_msc=MIDNIGHT + round_)
            at = await kafka.producer.send_and_wait(settings.ticks_topic, encode(frame), partition=1)
            kafka.log.setdefault(1, []).append((position(1, at.offset), frame))
            await asyncio.sleep(dice.uniform(0.7, 2.0))
            archiver.send_signal(signal.SIGKILL)
            archiver.wait()
        archiver.start().wait_ready()

        async def is_all_stored() -> bool:
            return await stored(settings) == sent(kafka)

        await eventually(is_all_stored, what="every record in the archive")
        assert archiver.stop() == 0
        assert await stored(settings) == sent(kafka)
        catalogue = await archive_of(settings)
        shown = await group_offsets(settings, settings.archive_group, settings.ticks_topic)
        assert shown == {partition: catalogue.progress(partition).next for partition in catalogue.partitions()}
    finally:
        archiver.close()


async def test_of_two_archivers_one_waits_for_the_other(settings: Settings, kafka: KafkaLog, tmp_path: Path) -> None:
    first = Service("archive", settings).start()
    other = settings.model_copy(update={"archive_port": settings.sink_port})
    second = Service("archive", other, log=tmp_path / "second.log")
    second.port, second.url = other.archive_port, f"http://127.0.0.1:{other.archive_port}"
    try:
        first.wait_ready()
        second.start().wait_alive()
        assert second.get("/ready").status_code == 503
        await kafka.send(*(frame for _, frame in frames(20)))
        first.kill()
        second.wait_ready()

        async def is_all_stored() -> bool:
            return await stored(settings) == sent(kafka)

        await eventually(is_all_stored, what="every record in the archive")
        assert "Another archiver" in second.said()
    finally:
        first.close()
        second.close()


async def test_an_archive_that_is_gone_is_waited_for(settings: Settings, kafka: KafkaLog, tmp_path: Path) -> None:
    """As when its volume is not mounted: what came then would be in another archive than the one that comes back."""
    folder, moved = Path(settings.archive), tmp_path / "moved"

    async def is_all_stored() -> bool:
        return await stored(settings) == sent(kafka)

    async def delete_from_kafka() -> None:
        ends = await log_ends(settings, settings.ticks_topic)
        async with admin_client(settings) as client:
            await client.delete_records(
                {
                    TopicPartition(settings.ticks_topic, number): RecordsToDelete(end)
                    for number, (_, end) in ends.items()
                }
            )

    archiver = Service("archive", settings, log=tmp_path / "archiver.log").start()
    try:
        archiver.wait_ready()
        await kafka.send(*(frame for _, frame in frames(20)))
        await eventually(is_all_stored, what="every record in the archive")
        # It notices while it runs, and when it starts.
        for symbol, starts in (("GBPUSD", False), ("USDJPY", True)):
            await delete_from_kafka()
            if starts:
                archiver.kill()
            await asyncio.to_thread(folder.rename, moved)
            await kafka.send(*(frame for _, frame in frames(20, symbol=symbol)))
            if starts:
                archiver.start().wait_alive()
            wait_until(lambda: archiver.get("/ready").status_code == 503, what="an archiver that waits")
            await asyncio.sleep(3)
            assert archiver.get("/ready").status_code == 503
            assert "Is the volume mounted" in archiver.said()
            assert await stored(settings) == {}
            shutil.rmtree(folder, ignore_errors=True)
            await asyncio.to_thread(moved.rename, folder)
            await eventually(is_all_stored, what="what came meanwhile in the archive")

        # One that is gone for good is given up at the operator's word.
        await delete_from_kafka()
        shutil.rmtree(folder)
        lost = {partition: log[-1][0] for partition, log in sent(kafka).items()}
        await kafka.send(*(frame for _, frame in frames(20)))
        wait_until(lambda: archiver.get("/ready").status_code == 503, what="an archiver that waits")
        await _forget(settings)

        async def is_the_rest_stored() -> bool:
            rest = {p: [one for one in log if one[0] > lost.get(p, -1)] for p, log in sent(kafka).items()}
            return await stored(settings) == {p: log for p, log in rest.items() if log}

        await eventually(is_the_rest_stored, what="what Kafka holds in a new archive")
    finally:
        archiver.close()


async def test_damage_is_shown_and_new_ticks_are_archived_all_the_same(settings: Settings, kafka: KafkaLog) -> None:
    settings = settings.model_copy(update={"ticks_local_retention_days": 1})
    archiver = Service("archive", settings).start()
    try:
        archiver.wait_ready()
        await kafka.send(*(frame for _, frame in frames(3)))

        async def is_all_stored() -> bool:
            return await stored(settings) == sent(kafka)

        await eventually(is_all_stored, what="every record in the archive")
        file = a_file_of(settings)
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + b"x")
        # A second file of that day, which is to be merged with it.
        await kafka.send(*(frame for _, frame in frames(2, time_msc=MIDNIGHT + 60_000)))
        wait_until(lambda: archiver.metric("tickpipe_archive_damaged") == 1, what="the damage in the metrics")
        await kafka.send(*(frame for _, frame in frames(2, time_msc=MIDNIGHT + 120_000)))
        file.write_bytes(whole)
        await eventually(is_all_stored, what="every record in the archive")
        wait_until(lambda: archiver.metric("tickpipe_archive_damaged") == 0, what="the damage gone")
    finally:
        archiver.close()
