"""The program in its terminal: how it starts, stops, costs and shares the PC with others."""

from collections import Counter

import pytest

from tests.integration.ea.conftest import StartTerminal
from tests.integration.ea.scenario import FIRST_MSC, NOW_MS, begin, held, sent, tick
from tests.integration.ea.terminal import Terminal
from tests.scripted import Answer, ScriptedServer

INIT_FAILED = 1
TICKS = [tick(ms) for ms in range(0, 300_000, 500)]


@pytest.fixture
def quoted(terminal: Terminal) -> Terminal:
    terminal.symbol("EURUSD")
    terminal.ticks("EURUSD", [tick(-3_600_000), *TICKS])
    return terminal


@pytest.mark.parametrize("calls", [0, 1, 2, 5, 9])
def test_a_turn_ends_when_the_user_stops_the_program(terminal: Terminal, server: ScriptedServer, calls: int) -> None:
    for name in [f"S{n}" for n in range(40)]:
        terminal.symbol(name)
        terminal.ticks(name, [tick(-3_600_000), *TICKS])
    server.answers = [Answer(503) for _ in range(20)]
    begin(terminal, server, MaxTicks=10)
    terminal.run(60)
    server.answers.clear()
    terminal("stop", calls)
    terminal.run(1)
    # What was under way when it was stopped.
    assert int(terminal("calls").split()[0]) <= 1


def test_no_request_takes_longer_than_a_closing_terminal_waits(terminal: Terminal) -> None:
    terminal("now", NOW_MS)
    terminal.inputs(TimeoutMs=2_501)
    assert terminal("init") == "32767"
    terminal.inputs(TimeoutMs=2_500)
    assert terminal("init") == "0"


def test_without_a_timer_it_says_so(terminal: Terminal) -> None:
    terminal("now", NOW_MS)
    terminal("no-timer")
    assert int(terminal("init")) == INIT_FAILED
    assert any("gives no timer" in line for line in terminal.log)


@pytest.mark.parametrize("name", ["RelayUrl", "ServerUrl", "ApiKey", "Source", "Symbols"])
def test_a_text_that_the_dialog_may_have_cut_off_is_refused(terminal: Terminal, name: str) -> None:
    terminal("now", NOW_MS)
    terminal.inputs(**{name: "x" * 191})
    assert terminal("init") == "32767"
    assert any(f"{name} has more than 190 characters" in line for line in terminal.log)


def test_symbols_and_key_may_lie_in_files(terminal: Terminal, server: ScriptedServer) -> None:
    names = [f"SYMBOL{n}" for n in range(60)]
    for name in [*names, "OTHER"]:
        terminal.symbol(name)
        terminal.ticks(name, [tick(-3_600_000), *TICKS[:10]])
    terminal.files.mkdir()
    # As Windows' Notepad writes it.
    (terminal.files / "symbols.txt").write_text("\r\n".join(names) + "\r\n", encoding="utf-8-sig", newline="")
    (terminal.files / "key.txt").write_text("the key\n")
    begin(terminal, server, Symbols="@symbols.txt", ApiKey="@key.txt")
    terminal.run(30)
    assert {item["symbol"] for item in server.taken} == set(names)
    assert {request.headers["X-API-Key"] for request in server.requests} == {"the key"}


def test_a_file_that_is_missing_is_named(terminal: Terminal) -> None:
    terminal("now", NOW_MS)
    terminal.inputs(ApiKey="@no.txt")
    assert terminal("init") == "32767"
    assert any("no.txt cannot be opened" in line for line in terminal.log)


def test_a_service_collects_without_a_chart(quoted: Terminal, server: ScriptedServer) -> None:
    quoted("allow", server.url)
    quoted.inputs(RelayUrl=server.url, SendBars=False)
    quoted("now", NOW_MS)
    quoted("service", 320_000)
    assert sent(server) == TICKS
    assert any("1 symbols" in line for line in quoted.log)


def test_another_account_gets_its_own_ring_and_names(quoted: Terminal, server: ScriptedServer) -> None:
    begin(quoted, server, Source="auto")
    quoted.run(100)
    # A service goes on when the user logs in elsewhere.
    quoted("server", "Other-Live")
    quoted.run(100)
    assert {request.headers["X-Source"] for request in server.requests} == {"Broker-Demo", "Other-Live"}
    assert {path.name for path in (quoted.common / "DataCollectorPRO").iterdir()} == {"Broker-Demo", "Other-Live"}


def test_another_terminal_of_the_pc_takes_over_where_the_first_stopped(
    start_terminal: StartTerminal, server: ScriptedServer
) -> None:
    first, second = start_terminal(), start_terminal()
    for terminal in (first, second):
        terminal.symbol("EURUSD")
        terminal.ticks("EURUSD", [tick(-3_600_000), *TICKS])
        begin(terminal, server)
    for _ in range(10):
        first.run(10)
        second.run(10)
    assert sum("Does another chart or terminal run" in line for line in second.log) == 1
    first.kill()
    second.run(220)
    assert sent(server) == TICKS


def test_a_disk_that_is_full_without_saying_so_costs_no_tick(
    start_terminal: StartTerminal, server: ScriptedServer
) -> None:
    first = start_terminal()
    first.symbol("EURUSD")
    first.ticks("EURUSD", [tick(-3_600_000), *TICKS])
    begin(first, server)
    first.run(60)
    server.answers = [Answer(503) for _ in range(1_000)]
    first("disk", 5_000, "late")
    first.run(120)
    # Now it crashes; what it believed to be on the disk must not be missing.
    first.kill()
    server.answers.clear()
    second = start_terminal()
    second.symbol("EURUSD")
    second.ticks("EURUSD", [tick(-3_600_000), *TICKS])
    second("now", FIRST_MSC + 400_000)
    begin(second, server)
    second.run(30)
    assert held(server) == Counter(TICKS)
    assert any("is it full" in line for line in first.log)


def test_five_hundred_symbols_ten_times_a_second_cost_two_percent_of_a_core(
    terminal: Terminal, server: ScriptedServer
) -> None:
    for n in range(500):
        name = f"S{n:03d}"
        terminal.symbol(name)
        # 30 of them are busy, the others quote once a minute.
        every_ms = 1_000 if n < 30 else 60_000
        terminal.ticks(name, [tick(-3_600_000), *(tick(ms) for ms in range(n * 100, 120_000, every_ms))])
    begin(terminal, server)
    terminal.run(12, step_ms=100)
    before_ns = int(terminal("calls").split()[1])
    terminal.run(20, step_ms=100)
    spent_ns = int(terminal("calls").split()[1]) - before_ns
    assert spent_ns / 20e9 < 0.02
