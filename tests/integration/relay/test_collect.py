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
def relay(tmp_path: Path, server: ScriptedServer) -> Iterator[RelayProcess]:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "MetaTrader5.py").write_text(
        textwrap.dedent(_PACKAGE).replace("BEGIN", str(int(time.time() * 1000) - 10_000))
    )
    relay = RelayProcess(
        tmp_path / "ea.db", server.url, command="collect", environment={"PYTHONPATH": f"{folder}:{ROOT}"},
        log=tmp_path / "relay.log",
    )  # fmt: skip
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
    began = time.monotonic()
    assert relay.stop() == 0
    assert time.monotonic() - began < 3
    times = sorted(set(sent("EURUSD")))
    assert {after - ms for ms, after in pairwise(times)} == {200}
    assert {request.body["utc_offset_s"] for request in server.requests} == {7_200}
