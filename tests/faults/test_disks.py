"""The disk of the broker, then of the database, is full; needs root, who may mount a small one."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from marketdata.settings import Settings
from tests.faults.stage import Stage
from tickpipe.embedded.servers import EmbeddedServers

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.timeout(600)]

#: A new PostgreSQL takes some 60 MB, and its log of writes 16 MB at a time.
DISK_MB = 160


@pytest.fixture(params=["kafka", "postgres"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small disk where one of the servers will keep its data."""
    folder = tmp_path / "servers" / str(request.param)
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here (it needs root): {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def servers(disk: Path) -> Iterator[EmbeddedServers]:
    with EmbeddedServers(disk.parent) as embedded:
        yield embedded


def fill(disk: Path) -> Path:
    """Leave no byte free; returns the file that does it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    assert os.statvfs(disk).f_bavail == 0
    return ballast


async def test_a_full_disk_delays(
    settings: Settings, servers: EmbeddedServers, disk: Path, seed: int, rounds: int
) -> None:
    async with Stage(settings, servers, case=f"disk of {disk.name} full", seed=seed) as stage:
        stage.trade("EURUSD", "GBPUSD", speed=200.0)
        for _ in range(max(2, rounds // 3)):
            await stage.recovered()
            ballast = await asyncio.to_thread(fill, disk)
            await asyncio.sleep(8)
            if disk.name == "postgres":
                with pytest.raises(psycopg.OperationalError):
                    await _write_a_megabyte(settings)
            else:
                assert stage["producer"].metric("tickpipe_producer_kafka_up") == 0
            ballast.unlink()
            # What died of it is started again, as a supervisor does.
            await asyncio.to_thread(servers.start)
            stage.rounds += 1
        await stage.recovered()
        await stage.settle_and_compare()


async def _write_a_megabyte(settings: Settings) -> None:
    async with await psycopg.AsyncConnection.connect(settings.database_url.get_secret_value()) as connection:
        await connection.execute("CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 100000)")
