"""Symbols that wait, fail, hide, vanish, expire or change cost no other symbol anything."""

from collections import Counter

import pytest

from tests.integration.ea.scenario import FIRST_MSC, begin, held, sent, tick
from tests.integration.ea.terminal import HISTORY_NOT_FOUND, HISTORY_TIMEOUT, NOT_SELECTED, UNKNOWN_SYMBOL, Terminal
from tests.scripted import ScriptedServer

#: Fifteen minutes.
TICKS = [tick(ms) for ms in range(0, 900_000, 1_000)]


def in_watch(terminal: Terminal, *symbols: str) -> None:
    for symbol in symbols:
        terminal.symbol(symbol)
        terminal.ticks(symbol, [tick(-3_600_000), *TICKS])


def test_a_symbol_whose_history_never_comes_does_not_stop_its_neighbour(
    terminal: Terminal, server: ScriptedServer
) -> None:
    in_watch(terminal, "AAA", "EURUSD")
    terminal.waits_for_history("AAA", calls=1_000_000)
    begin(terminal, server)
    # Of 15 minutes each call of the other takes 45 s.
    terminal.run_until_time(FIRST_MSC + 910_000)
    assert len(sent(server)) > 700
    assert sent(server) == TICKS[: len(sent(server))]
    assert "AAA: its history is on its way (4403)" in terminal.status()
    assert sum("AAA: error 4403" in line for line in terminal.log) == 1
    # When it comes, nothing of it is missing.
    terminal.fault("AAA", 0, calls=0)
    terminal.run(1_300, step_ms=1_000)
    assert held(server, "AAA") == held(server) == Counter(TICKS)
    assert "on its way" not in terminal.status()


@pytest.mark.parametrize(
    "error",
    [
        4001, HISTORY_NOT_FOUND, HISTORY_TIMEOUT,
        *(pytest.param(error, marks=pytest.mark.full) for error in (4004, 4022, 4405, 4407)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("most", [-1, pytest.param(0, marks=pytest.mark.full), 3])
def test_an_answer_with_an_error_is_not_used(terminal: Terminal, server: ScriptedServer, error: int, most: int) -> None:
    in_watch(terminal, "EURUSD")
    begin(terminal, server)
    terminal.run(30)
    # What it gives begins behind a hole.
    terminal.fault("EURUSD", error, calls=5, most=most, from_msc=FIRST_MSC + 25_000)
    terminal.run(5)
    assert f"({error})" in terminal.status()
    terminal.run(100)
    assert sent(server) == TICKS[: len(sent(server))]
    assert len(sent(server)) > 110


@pytest.mark.parametrize(
    ("away", "back", "named"),
    [
        ({"exists": 0}, {"exists": 1}, f"EURUSD: the broker does not know it ({UNKNOWN_SYMBOL})"),
        ({"selected": 0}, {"selected": 1}, f"EURUSD: it is not in the Market Watch ({NOT_SELECTED})"),
    ],
)
def test_a_symbol_that_goes_is_named_and_tried_slowly_until_it_is_back(
    terminal: Terminal, server: ScriptedServer, away: dict[str, int], back: dict[str, int], named: str
) -> None:
    in_watch(terminal, "EURUSD", "GBPUSD")
    begin(terminal, server)
    terminal.run(30)
    terminal.state("EURUSD", **away)
    terminal.run(400, step_ms=1_000)
    assert named in terminal.status()
    assert sum("EURUSD: error" in line for line in terminal.log) == 1
    terminal.state("EURUSD", **back)
    terminal.run(600, step_ms=1_000)
    assert named not in terminal.status()
    assert sent(server) == sent(server, "GBPUSD") == TICKS


def test_a_symbol_that_is_renamed_goes_on_by_its_new_name(terminal: Terminal, server: ScriptedServer) -> None:
    in_watch(terminal, "EURUSD")
    begin(terminal, server)
    terminal.run(110)
    terminal.state("EURUSD", exists=0)
    terminal.symbol("EURUSD.a")
    terminal.ticks("EURUSD.a", TICKS)
    terminal.run(200)
    assert "EURUSD: the broker does not know it" in terminal.status()
    late_by_s = (sent(server, "EURUSD.a")[0].time_msc - sent(server)[-1].time_msc) / 1_000
    # The Market Watch is looked at twice a minute.
    assert 0 < late_by_s <= 32


def test_a_contract_that_expired_is_named_once(terminal: Terminal, server: ScriptedServer) -> None:
    in_watch(terminal, "WINV26")
    terminal.state("WINV26", expires=FIRST_MSC // 1_000 + 60)
    begin(terminal, server)
    terminal.run(1_000, step_ms=1_000)
    assert sum("WINV26: expired" in line for line in terminal.log) == 1


def test_what_the_terminal_selects_for_itself_is_not_collected(terminal: Terminal, server: ScriptedServer) -> None:
    in_watch(terminal, "EURUSD", "CROSS", "MADE.HERE")
    terminal.state("CROSS", visible=0)
    terminal.state("MADE.HERE", custom=1)
    begin(terminal, server)
    terminal.run(60)
    assert {item["symbol"] for item in server.taken} == {"EURUSD"}


def test_they_are_collected_when_they_are_named(terminal: Terminal, server: ScriptedServer) -> None:
    in_watch(terminal, "CROSS", "MADE.HERE")
    terminal.state("CROSS", visible=0)
    terminal.state("MADE.HERE", custom=1)
    begin(terminal, server, Symbols="CROSS,MADE.HERE")
    terminal.run(60)
    assert {item["symbol"] for item in server.taken} == {"CROSS", "MADE.HERE"}


def test_digits_and_point_are_read_again(terminal: Terminal, server: ScriptedServer) -> None:
    in_watch(terminal, "EURUSD")
    begin(terminal, server)
    terminal.run(60)
    terminal("symbol", "EURUSD", 3, 0.001, "last")
    terminal.run(60)
    first, last = server.taken[0], server.taken[-1]
    assert (first["digits"], first["point"], first["mode"]) == (5, 1e-5, "bid")
    assert (last["digits"], last["point"], last["mode"]) == (3, 1e-3, "last")


@pytest.mark.parametrize("error", [HISTORY_NOT_FOUND, HISTORY_TIMEOUT])
def test_bars_are_taken_from_whole_answers_alone(terminal: Terminal, server: ScriptedServer, error: int) -> None:
    in_watch(terminal, "EURUSD")
    terminal("bar-fault", "EURUSD", 3, error, 1)
    begin(terminal, server, SendBars=True, FirstHours=1)
    terminal.state("EURUSD", bars=0)
    terminal.run(600, step_ms=1_000)
    assert [request for request in server.requests if request.path == "/ingest"] == []
    terminal.state("EURUSD", bars=1)
    terminal.run(320, step_ms=1_000)
    bars = [item["time_msc"] for request in server.requests if request.path == "/ingest" for item in request.items]
    # Not the newest minute, which is not closed.
    minutes = sorted({t.time_msc // 60_000 * 60_000 for t in [tick(-3_600_000), *TICKS]})
    assert bars == minutes[:-1]
