"""A real disk that is full: EAs are told to keep their ticks, what is stored goes on, and free space ends it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tools
from tests.integration.relay.process import RelayProcess
from tests.scripted import ScriptedServer
from tests.unit.relay.rows import BASE, tick
from tests.waiting import PATIENCE_SECONDS

#: A small disk, and what fills it up but for a little (bytes).
DISK_BYTES = 2_000_000
BALLAST_BYTES = 1_300_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    with tools.small_disk(tmp_path / "disk", DISK_BYTES) as directory:
        yield directory


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What the relay says; on another disk."""
    return tmp_path / "relay.log"


@pytest.fixture
def relay(disk: Path, server: ScriptedServer, log: Path) -> Iterator[RelayProcess]:
    relay = RelayProcess(disk / "ea.db", server.url, log=log)
    relay.start()
    yield relay
    relay.close()


def test_a_full_disk_is_answered_503_and_everything_goes_on_when_there_is_space(
    disk: Path, relay: RelayProcess, server: ScriptedServer, log: Path
) -> None:
    relay.post(tick(0))
    relay.wait_forwarded()
    ballast = disk / "ballast"
    ballast.write_bytes(os.urandom(BALLAST_BYTES))

    # Store until it is full; what was answered 200 before that counts.
    accepted = [0]
    for start in range(1, 100_000, 500):
        answer = relay.post([tick(n) for n in range(start, start + 500)])
        if answer.status_code != 200:
            break
        accepted += range(start, start + 500)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert (answer.json()["code"], "disk is full" in answer.json()["error"]) == ("STORE_UNAVAILABLE", True)
    assert relay.post([tick(n) for n in range(start, start + 500)]).status_code == 503
    # The other parts live.
    assert relay.get("/health").json()["total_ticks"] == len(accepted)
    assert relay.stats()["total_ticks"] == len(accepted)

    ballast.unlink()
    again = [tick(n) for n in range(start, start + 500)]
    assert relay.post(again).status_code == 200
    accepted += range(start, start + 500)
    relay.wait_forwarded()

    # Confirmation could not be written down either, so a request may have gone twice; none is missing.
    assert list(dict.fromkeys(item["ts_msc"] - BASE for item in server.taken)) == accepted
    assert relay.stop() == 0
    said = log.read_text()
    assert said.count("action=store_failing") == said.count("action=store_recovered") >= 1


def test_a_relay_that_is_killed_on_a_full_disk_starts_again_and_has_every_answered_tick(
    disk: Path, relay: RelayProcess, server: ScriptedServer
) -> None:
    server.held.set()  # nothing is confirmed
    accepted: list[int] = []
    for start in range(0, 100_000, 500):
        if relay.post([tick(n) for n in range(start, start + 500)]).status_code != 200:
            break
        accepted += range(start, start + 500)
    assert accepted
    relay.kill()
    server.held.clear()
    server.released.set()

    subprocess.run(["mount", "-o", f"remount,size={4 * DISK_BYTES}", disk], check=True)
    relay.start()
    relay.wait_forwarded()

    assert list(dict.fromkeys(item["ts_msc"] - BASE for item in server.taken)) == accepted


def test_a_disk_that_can_only_be_read_is_named_and_loses_nothing(
    disk: Path, relay: RelayProcess, server: ScriptedServer
) -> None:
    server.held.set()  # nothing is confirmed
    relay.post(tick(0))
    relay.kill()
    server.held.clear()
    server.released.set()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        refused = subprocess.run(
            [sys.executable, "-m", "tickpipe", "relay", "serve", "--db", disk / "ea.db"],
            capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert "ea.db cannot be written (Read-only file system)" in " ".join(refused.stderr.split())
    relay.start()
    relay.wait_forwarded()
    assert list(dict.fromkeys(item["ts_msc"] - BASE for item in server.taken)) == [0]
