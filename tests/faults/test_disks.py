"""The disk of the broker, then of the database, is full or read-only; needs root, who may mount a small one."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from marketdata.errors import StackError
from runtime.settings import Settings
from tests import tools
from tests.faults.stage import Stage
from tests.servers import EmbeddedServers

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.timeout(600)]

#: A new PostgreSQL takes some 60 MB, and its log of writes 16 MB at a time.
DISK_MB = 192

#: How long a server has a disk that it cannot write (seconds).
FAULT_SECONDS = 8


class Disk:
    """A small ext4 file system in a file, mounted where one of the servers will keep its data."""

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder = folder
        self._image = image
        folder.mkdir(parents=True)
        with image.open("wb") as file:
            file.truncate(DISK_MB * 2**20)
        _run("mkfs.ext4", "-q", "-b", "4096", "-m", "0", str(image))
        self.mount()

    @property
    def server(self) -> str:
        return self.folder.name

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.folder))

    def fill(self) -> Path:
        """Leave no byte free; returns the file that does it."""
        ballast = self.folder / "ballast"
        with ballast.open("wb", buffering=0) as file:
            # The server may give some blocks back meanwhile.
            for _ in range(100):
                with suppress(OSError):
                    while True:
                        file.write(b"\0" * 4096)
                if os.statvfs(self.folder).f_bavail == 0:
                    return ballast
        raise AssertionError("the disk does not stay full")

    def fail(self) -> None:
        """Turn read-only at once, as ext4 does when the disk reports errors; what was written is on the disk."""
        _run("sync", "--file-system", str(self.folder))
        _run("mount", "-o", "remount,abort", str(self.folder))
        with pytest.raises(OSError, match="Read-only file system"):
            (self.folder / "probe").touch()

    def repair(self) -> None:
        """Check the file system and mount it again; nothing may have it open."""
        _run("umount", str(self.folder))
        # 1: errors were found and put right, which is what it is here for.
        _run("fsck.ext4", "-y", str(self._image), accepted=(0, 1))
        self.mount()

    def remove(self) -> None:
        _run("umount", "--lazy", str(self.folder))


def _run(*command: str, accepted: tuple[int, ...] = (0,)) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode not in accepted:
        raise OSError(f"{' '.join(command)}: {finished.stderr.strip()}")


@pytest.fixture(params=["kafka", "postgres"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    try:
        small = Disk(tmp_path / "servers" / str(request.param), tmp_path / "disk.img")
    except OSError as error:
        tools.unavailable("mount", f"cannot mount a small disk here, which takes root and a loop device: {error}")
    yield small
    small.remove()


@pytest.fixture
def servers(disk: Disk) -> Iterator[EmbeddedServers]:
    with EmbeddedServers(disk.folder.parent) as embedded:
        yield embedded


async def test_a_full_disk_delays(
    settings: Settings, servers: EmbeddedServers, disk: Disk, seed: int, rounds: int
) -> None:
    async with Stage(settings, servers, case=f"disk of {disk.server} full", seed=seed) as stage:
        stage.trade("EURUSD", "GBPUSD", speed=200.0)
        for _ in range(max(2, rounds // 3)):
            await stage.recovered()
            ballast = await asyncio.to_thread(disk.fill)
            await asyncio.sleep(FAULT_SECONDS)
            await _assert_that_nothing_is_written(settings, stage, disk)
            ballast.unlink()
            await asyncio.to_thread(_start_what_died, servers)
            stage.rounds += 1
        await stage.recovered()
        await stage.settle_and_compare()


async def test_a_read_only_disk_delays(
    settings: Settings, servers: EmbeddedServers, disk: Disk, seed: int, rounds: int
) -> None:
    async with Stage(settings, servers, case=f"disk of {disk.server} read-only", seed=seed) as stage:
        stage.trade("EURUSD", "GBPUSD")
        for _ in range(max(2, rounds // 3)):
            await stage.recovered()
            # What Kafka acknowledged in its last second may be in memory alone (docs/decisions/0003): that is the case
            # of a power cut. Here it is paused until everything is on the disk.
            servers.pause_kafka()
            await asyncio.to_thread(disk.fail)
            servers.resume_kafka()
            await asyncio.sleep(FAULT_SECONDS)
            await _assert_that_nothing_is_written(settings, stage, disk)
            kill = servers.kill_kafka if disk.server == "kafka" else servers.kill_postgres
            await asyncio.to_thread(kill)
            await asyncio.to_thread(disk.repair)
            await asyncio.to_thread(servers.start)
            stage.rounds += 1
        await stage.recovered()
        await stage.settle_and_compare()


def _start_what_died(servers: EmbeddedServers) -> None:
    """Start what died of it as a supervisor does: once more when it was just about to die."""
    with suppress(StackError):
        servers.start()
    servers.start()


async def _assert_that_nothing_is_written(settings: Settings, stage: Stage, disk: Disk) -> None:
    if disk.server == "kafka":
        assert stage["producer"].metric("tickpipe_producer_kafka_up") == 0
    else:
        with pytest.raises(psycopg.OperationalError):
            await _write_a_megabyte(settings)


async def _write_a_megabyte(settings: Settings) -> None:
    async with await psycopg.AsyncConnection.connect(settings.database_url.get_secret_value()) as connection:
        await connection.execute("CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 100000)")
