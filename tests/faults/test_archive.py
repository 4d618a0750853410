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
from tests.integration.archive.test_service import LOG, sent, stored
from tests.kafka_log import KafkaLog
from tests.services import Service
from tests.unit.archive.test_writer import MIDNIGHT, candles, frames
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


@pytest.mark.parametrize("number", range(10))
async def test_kills_at_random_repeat_and_drop_nothing(
    settings: Settings, kafka: KafkaLog, seed: int, rounds: int, number: int
) -> None:
    """Two archivers by mistake, killed at random, and what a torn write leaves behind."""
    print(f"archivers killed: seed {seed}, number {number}")
    dice = random.Random(seed + number)
    archivers = [Service("archive", settings), _second(settings)]
    try:
        for round_ in range(min(rounds, 4)):
            for archiver in archivers:
                archiver.start()
            await kafka.send(*some_frames(dice, round_))
            await asyncio.sleep(dice.uniform(0.5, 2.5))
            for archiver in dice.sample(archivers, 2):
                archiver.send_signal(signal.SIGKILL)
                archiver.wait()
            tear(Path(settings.archive), dice)
        archivers[number % 2].start().wait_ready()
        await assert_that_everything_is_archived_once(settings, kafka)
        assert_folds_are_those_of_the_log(await stored(settings), sent(kafka))
    finally:
        for archiver in archivers:
            archiver.close()


def _second(settings: Settings) -> Service:
    """Another archiver of the same archive, by mistake."""
    other = settings.model_copy(update={"archive_port": settings.sink_port})
    second = Service("archive", other, log=Path(settings.archive).with_name("second.log"))
    second.port, second.url = other.archive_port, f"http://127.0.0.1:{other.archive_port}"
    return second


def tear(archive: Path, dice: random.Random) -> None:
    """Leave behind what a power cut leaves of a file that was being written."""
    if folders := sorted(archive.glob("*/ticks/*/*/*")):
        name = f"0-{10**14:015d}-{10**14:015d}.parquet.unfinished"
        (dice.choice(folders) / name).write_bytes(dice.randbytes(dice.randint(0, 5_000)))


def assert_folds_are_those_of_the_log(found: dict[int, LOG], expected: dict[int, LOG]) -> None:
    for partition, log in expected.items():
        assert candles(found[partition]) == candles(log)


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
