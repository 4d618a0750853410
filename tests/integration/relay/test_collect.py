"""`tickpipe relay collect` as a process, with a stand-in of the MetaTrader5 package."""

import textwrap
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.extras import ROOT
from tests.integration.relay.process import RelayProcess
from tests.scripted import ScriptedServer
from tests.services import Process
from tests.waiting import wait_until

#: Quotes of two symbols, five a second from before the start on, with the broker two hours ahead.
_PACKAGE = """
    import time
    from marketdata.tick import Tick
    from tests.unit.relay.scripted_metatrader import ScriptedPackage

    _begin = BEGIN
    _package = ScriptedPackage(_begin)
    for _symbol in ("EURUSD", "XAUUSD"):
        _package.history[_symbol] = [
            (Tick(_begin + 7_200_000 + ms, 1.0 + ms / 1e6, 1.2, 0.0, 0.0, 6), _begin + ms)
            for ms in range(0, 300_000, 200)
        ]

    def __getattr__(name):
        _package.now_ms = int(time.time() * 1000)
        return getattr(_package, name)
"""


@pytest.fixture
def package(tmp_path: Path) -> dict[str, str]:
    """The environment in which the package is found."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "MetaTrader5.py").write_text(
        textwrap.dedent(_PACKAGE).replace("BEGIN", str(int(time.time() * 1000) - 10_000))
    )
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


@pytest.fixture
def relay(tmp_path: Path, server: ScriptedServer, package: dict[str, str]) -> Iterator[RelayProcess]:
    relay = RelayProcess(
        tmp_path / "ea.db", server.url, command="collect", environment=package, log=tmp_path / "relay.log"
    )
    relay.start()
    yield relay
    relay.close()


def test_it_collects_forwards_goes_on_after_a_kill_and_ends_soon(relay: RelayProcess, server: ScriptedServer) -> None:
    def sent(symbol: str) -> list[int]:
        return [item["time_msc"] for item in server.taken if item["symbol"] == symbol]

    wait_until(lambda: min(len(sent("EURUSD")), len(sent("XAUUSD"))) > 5, what="ticks of both symbols")
    health = relay.get("/health").json()["collecting"]
    assert (health["server"], health["symbols"], health["trouble"]) == ("Broker-Demo", 2, None)
    assert "Broker-Demo" in relay.get("/").text
    assert relay.metric("tickpipe_relay_collected_symbols") == 2
    assert relay.metric("tickpipe_relay_terminal_up") == 1
    relay.kill()
    before = len(sent("EURUSD"))
    relay.start()
    wait_until(lambda: len(set(sent("EURUSD"))) > before + 3, what="ticks after the kill")
    assert relay.stop() == 0
    times = sorted(set(sent("EURUSD")))
    assert {after - ms for ms, after in pairwise(times)} == {200}
    assert {request.body["utc_offset_s"] for request in server.requests} == {7_200}


@pytest.mark.full
def test_a_second_process_on_the_same_file_says_so_and_ends(tmp_path: Path, package: dict[str, str]) -> None:
    # Without a server: nothing would be forwarded twice, but two collectors would each store every tick.
    db = tmp_path / "ea.db"
    first = RelayProcess(db, None, command="collect", environment=package, log=tmp_path / "first.log").start()
    commands = ("collect", "serve")
    others = [
        RelayProcess(db, None, command=name, environment=package, log=tmp_path / f"{name}.log") for name in commands
    ]
    for other in others:
        # Not of the relay: that waits until it serves.
        Process.start(other)
    assert all(other.wait() != 0 for other in others)
    for name in commands:
        log = (tmp_path / f"{name}.log").read_text(encoding="utf-8")
        assert f"Another relay stores ticks in {db} already" in log
        assert "Traceback" not in log
    assert first.get("/health").json()["ok"]
    # The system gives the lock up with the process.
    first.kill()
    first.start()
    assert first.stop() == 0
