"""An EA behind a relay that is killed, locked out of its file or out of disk: every tick arrives once."""

import os
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from marketdata.tick import Tick
from tests import tools
from tests.integration.ea.scenario import NOW_MS, held, tick
from tests.integration.ea.terminal import Terminal
from tests.integration.relay.process import RelayProcess
from tests.scripted import ScriptedServer

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]

#: Of twenty minutes, four a second.
TICKS = [tick(ms) for ms in range(0, 1_200_000, 250)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    tools.probe("mount", [tools.find("mount"), "-t", "tmpfs", "-o", "size=2000000", "tmpfs", folder])
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def relay(tmp_path: Path, server: ScriptedServer) -> Iterator[RelayProcess]:
    folder = tmp_path / "disk"
    folder.mkdir(exist_ok=True)
    relay = RelayProcess(folder / "ea.db", server.url, log=tmp_path / "relay.log")
    relay.start()
    yield relay
    relay.close()


def attach(terminal: Terminal, relay: RelayProcess, ticks: list[Tick]) -> None:
    terminal.symbol("EURUSD")
    terminal.ticks("EURUSD", [tick(-60_000), *ticks])
    terminal("allow", relay.url)
    terminal.inputs(RelayUrl=relay.url, SendBars=False)
    terminal.start(NOW_MS)
    terminal.run(15)


def finish(terminal: Terminal, relay: RelayProcess, server: ScriptedServer, ticks: list[Tick]) -> None:
    terminal.run_until_sent(len(ticks), most_seconds=6_000)
    relay.wait_forwarded()
    assert held(server) == Counter(ticks)


def test_a_relay_that_is_killed_while_an_ea_sends_again(
    terminal: Terminal, relay: RelayProcess, server: ScriptedServer
) -> None:
    attach(terminal, relay, TICKS)
    for _ in range(5):
        relay.kill()
        terminal.run(20)
        relay.start()
        # The first requests are those that nobody took; the next kill comes in the middle of them.
        terminal.run(8)
    finish(terminal, relay, server, TICKS)


def test_a_file_that_is_locked_for_half_a_minute(
    terminal: Terminal, relay: RelayProcess, server: ScriptedServer
) -> None:
    attach(terminal, relay, TICKS)
    before = terminal.sent
    with closing(sqlite3.connect(relay.db, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        end = time.monotonic() + 30
        while time.monotonic() < end:
            terminal.run(10)
        assert terminal.sent == before
        other.execute("ROLLBACK")
    finish(terminal, relay, server, TICKS)


def test_a_disk_that_is_full_for_an_hour(
    disk: Path, terminal: Terminal, relay: RelayProcess, server: ScriptedServer
) -> None:
    ticks = [tick(ms) for ms in range(0, 3_900_000, 500)]
    attach(terminal, relay, ticks)
    (disk / "ballast").write_bytes(os.urandom(1_300_000))
    with pytest.raises(OSError, match="space"):
        (disk / "rest").write_bytes(bytes(2_000_000))
    terminal.run(3_600, step_ms=1_000)
    waiting = terminal.waiting
    for name in ("ballast", "rest"):
        (disk / name).unlink(missing_ok=True)
    subprocess.run(["mount", "-o", "remount,size=64000000", disk], check=True)
    assert waiting > 0
    finish(terminal, relay, server, ticks)
