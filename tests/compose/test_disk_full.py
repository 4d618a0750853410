"""Small volumes for Kafka and the database are filled: ticks are refused or kept as docs/deploy/compose.md says, and
room, which the page's reserve gives back, heals all of it. Needs root on the machine of the engine."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.compose.deployment import ComposeError, Deployment, docker, new_folder
from tests.compose.test_compose import _taken
from tests.waiting import wait_until

#: Of each volume: a new PostgreSQL takes some 60 MB, its log of writes 16 MB at a time.
_DISK_BYTES = 256 * 2**20

#: How much Kafka's volume has left when it is called low: below 15 %.
_LITTLE_BYTES = 24 * 2**20

#: What the operator has put aside: more than Kafka's start asks for.
_RESERVE_BYTES = 80 * 2**20

#: Of each server: the service, its volume and where that is in its container.
_SERVERS = {
    "kafka": ("kafka-data", "/var/lib/kafka/data"),
    "timescaledb": ("database-data", "/var/lib/postgresql/data"),
}


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


class Disks:
    """An ext4 file system of its own as the volume of each server, which the engine mounts."""

    def __init__(self, folder: Path, deployment: Deployment) -> None:
        self._devices = []
        self._deployment = deployment
        for volume, _ in _SERVERS.values():
            image, name = folder / volume, f"{deployment.project}_{volume}"
            with image.open("wb") as file:
                file.truncate(_DISK_BYTES)
            run("mkfs.ext4", "-q", "-b", "4096", "-m", "0", image)
            # Neither server takes a folder that holds anything.
            run("debugfs", "-w", "-R", "rmdir lost+found", image)
            self._devices.append(run("losetup", "--find", "--show", image))
            docker("volume", "rm", "--force", name)
            device = ("--opt", "type=ext4", "--opt", f"device={self._devices[-1]}")
            docker("volume", "create", *device, name)

    def remove(self) -> None:
        """Once the deployment and its volumes are deleted."""
        for device in self._devices:
            run("losetup", "--detach", device)

    def take(self, service: str, name: str, script: str) -> None:
        """Take room by a file; in the script `$left` is how many bytes are left, `$file` the file."""
        folder = _SERVERS[service][1]
        left = f"left=$(($(stat -f -c '%a * %S' {folder}))) file={folder}/{name}"
        self._deployment.compose("exec", "-T", service, "sh", "-c", f"{left}; {script}")

    def fill(self, service: str) -> None:
        """Leave no byte; what the server gives back meanwhile is taken as well, until it ends."""
        fill = 'for n in 1 2 3 4 5; do cat /dev/zero >> "$file"; sleep 0.2; done'
        with suppress(ComposeError):  # the container may end under it
            self.take(service, "ballast", f"({fill}) 2>/dev/null; true")

    def free(self, service: str, name: str) -> None:
        """Delete a file, also while the server does not run."""
        volume, folder = _SERVERS[service]
        image = self._deployment.containers("producer")[0]["Image"]
        mount = ("--volume", f"{self._deployment.project}_{volume}:{folder}", "--user", "0", "--entrypoint", "rm")
        docker("run", "--rm", "--network", "none", *mount, image, f"{folder}/{name}")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Deployment, Disks]]:
    if os.environ.get("TICKPIPE_TEST_IMAGES") == "real" or os.geteuid():
        pytest.skip("mounts file systems of its own into the engine of the tests")
    (tmp_path / "deployment").mkdir()
    (tmp_path / "disks").mkdir()
    deployment = Deployment(new_folder(tmp_path / "deployment"))
    deployment.make_env()
    disks = Disks(tmp_path / "disks", deployment)
    try:
        yield deployment, disks
    finally:
        deployment.delete()
        docker("volume", "rm", "--force", f"{deployment.project}_database-data")
        disks.remove()


@pytest.mark.full
def test_a_full_disk_refuses_or_keeps_ticks_and_room_heals_it(small: tuple[Deployment, Disks]) -> None:
    deployment, disks = small
    deployment.up("kafka", "timescaledb")
    disks.take("kafka", "reserve", f"fallocate -l {_RESERVE_BYTES} $file")
    disks.take("kafka", "others", f"fallocate -l $((left - {_LITTLE_BYTES})) $file")
    deployment.up("producer", "stream", "sink")
    sent = Sent(deployment)

    # Little room: said without the profile `monitoring`, and ticks are taken.
    assert sent.tick()
    health = wait_until(lambda: httpx.get(deployment.url + "/health").json().get("warnings"), what="a warning")
    assert "GB are free" in health["disk"]
    assert any('"volume_low"' in line for line in deployment.log_lines("producer"))

    # Kafka's is full: 503, and senders keep what was not confirmed. The reserve is room enough to go on.
    disks.fill("kafka")
    wait_until(lambda: not sent.tick(), what="a refusal")
    wait_until(lambda: httpx.get(deployment.url + "/ready").status_code == 503, what="not ready")
    assert httpx.get(deployment.url + "/health").status_code == 200
    # It is started on the full disk again and again; without `compose/kafka/start.sh` that loses every topic.
    wait_until(
        lambda: any("Kafka is not started" in line for line in deployment.log_lines("kafka")),
        what="Kafka that waits for room",
    )  # fmt: skip
    disks.free("kafka", "reserve")
    wait_until(sent.tick, what="ticks that are taken again")
    assert httpx.get(deployment.url + "/ready").status_code == 200
    disks.free("kafka", "ballast")

    # The database's is full: ticks are taken, and stored once there is room.
    disks.fill("timescaledb")
    assert sent.tick()
    disks.free("timescaledb", "ballast")
    wait_until(sent.is_stored, what="every confirmed tick in a candle")
    assert deployment.compose("run", "--rm", "-T", "tickpipe", "verify", "--from", "-1d")
    said = [*deployment.log_lines("producer"), *deployment.log_lines("stream")]
    assert not any(word in line for line in said for word in ('"topic_created"', '"log_recreated"', '"log_lost"'))


class Sent:
    """An EA that sends one tick after the other, and repeats what was not confirmed."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._first_msc = time.time_ns() // 10**6 - 60_000
        self._confirmed = 0

    def tick(self) -> bool:
        """Whether the next tick was confirmed."""
        tick = {"ts_msc": self._first_msc + self._confirmed, "symbol": "X", "bid": 1.1, "ask": 1.2}
        with self._deployment.client("small-disk") as client:
            taken = _taken(client, {"ticks": [tick]})
        self._confirmed += taken
        return taken

    def is_stored(self) -> bool:
        return self._deployment.ticks("small-disk") == self._confirmed
