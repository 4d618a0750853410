"""The archiver is killed at random moments, and its disk fills up: afterwards every record is in the archive once."""

import asyncio
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from archive.checking import check
from marketdata.tick import Frame
from runtime.archive.files import LocalFiles
from runtime.settings import Settings
from tests import tools
from tests.faults.test_disks import Disk
from tests.integration.archive.test_service import sent, stored
from tests.kafka_log import KafkaLog
from tests.services import Service
from tests.unit.archive.test_writer import MIDNIGHT, frames
from tests.waiting import eventually, wait_until

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.timeout(600)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        small = Disk(tmp_path / "archive", tmp_path / "disk.img")
    except OSError as error:
        tools.unavailable("mount", f"cannot mount a small disk here, which takes root and a loop device: {error}")
    yield small
    small.remove()


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(
        update={"archive": str(tmp_path / "archive"), "archive_flush_seconds": 0.3, "kafka_partitions": 2}
    )


def some_frames(dice: random.Random, round_: int) -> list[Frame]:
    """Frames of three symbols on both sides of midnight, so that each flush writes six files and more."""
    return [
        replace(frame, request=f"{round_}-{frame.request}")
        for symbol in ("EURUSD", "WIN$", "a/b")
        for _, frame in frames(dice.randint(1, 80), symbol=symbol, time_msc=MIDNIGHT - 30_000 + round_)
    ]


async def assert_that_everything_is_archived_once(settings: Settings, kafka: KafkaLog) -> None:
    async def is_all_stored() -> bool:
        return await stored(settings) == sent(kafka)

    await eventually(is_all_stored, what="every record in the archive")
    # Merging may go on meanwhile; a file is never listed and missing.
    assert list(check(LocalFiles(Path(settings.archive)))) == []


async def test_kills_at_random_repeat_and_drop_nothing(
    settings: Settings, kafka: KafkaLog, seed: int, rounds: int
) -> None:
    print(f"archiver killed: seed {seed}")
    dice = random.Random(seed)
    archiver = Service("archive", settings)
    try:
        for round_ in range(rounds):
            archiver.start()
            await kafka.send(*some_frames(dice, round_))
            await asyncio.sleep(dice.uniform(0.5, 2.5))
            archiver.send_signal(signal.SIGKILL)
            archiver.wait()
        archiver.start().wait_ready()
        await assert_that_everything_is_archived_once(settings, kafka)
    finally:
        archiver.close()


async def test_a_full_disk_delays(settings: Settings, kafka: KafkaLog, disk: Disk, seed: int, rounds: int) -> None:
    print(f"the archive's disk full: seed {seed}")
    dice = random.Random(seed)
    archiver = Service("archive", settings).start()
    try:
        archiver.wait_ready()
        for round_ in range(max(2, rounds // 3)):
            ballast = await asyncio.to_thread(disk.fill)
            failures = archiver.metric("tickpipe_archive_failures_total")
            await kafka.send(*some_frames(dice, round_))
            wait_until(
                lambda failures=failures: archiver.metric("tickpipe_archive_failures_total") > failures,  # type: ignore[misc]
                what="an attempt that failed",
            )
            assert await stored(settings) != sent(kafka)
            ballast.unlink()
            await assert_that_everything_is_archived_once(settings, kafka)
        assert archiver.stop() == 0
    finally:
        archiver.close()
