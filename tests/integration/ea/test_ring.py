"""The ring on the disk: what is in it is sent once and in order, whatever ends in between."""

import fcntl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from marketdata.tick import Tick
from tests.integration.ea.conftest import StartTerminal
from tests.integration.ea.scenario import FIRST_MSC, NOW_MS, begin, held, sent, tick
from tests.integration.ea.terminal import Terminal
from tests.scripted import Answer, ScriptedServer

#: Ten minutes, five ticks a second.
TICKS = [tick(ms, 1.1 + ms / 1e7) for ms in range(0, 600_000, 200)]


@pytest.fixture
def away(server: ScriptedServer) -> Iterator[ScriptedServer]:
    """A server that takes nothing until `answers` is cleared."""
    server.answers = [Answer(503) for _ in range(10_000)]
    yield server
    server.answers.clear()


def at_desk(terminal: Terminal, ticks: list[Tick]) -> Terminal:
    terminal.symbol("EURUSD")
    terminal.ticks("EURUSD", ticks)
    return terminal


def ring_files(terminal: Terminal) -> list[Path]:
    return sorted((terminal.common / "DataCollectorPRO" / "Broker-Demo").glob("*.ring"))


def ring_bytes(terminal: Terminal) -> int:
    return sum(path.stat().st_size for path in ring_files(terminal))


def test_while_nobody_answers_the_ring_fills_and_is_sent_in_order(terminal: Terminal, away: ScriptedServer) -> None:
    at_desk(terminal, TICKS)
    begin(terminal, away)
    terminal.run(620)
    assert terminal.waiting > 50
    assert len({str(request.body) for request in away.requests}) == 1
    away.answers.clear()
    terminal.run_until_sent(len(TICKS))
    assert sent(away) == TICKS
    assert terminal.waiting == 0
    # What is confirmed leaves the disk, but for the newest file.
    assert len(ring_files(terminal)) == 1


def test_a_full_ring_keeps_the_oldest_and_the_rest_waits_in_the_terminal(
    terminal: Terminal, away: ScriptedServer
) -> None:
    ticks = [tick(ms) for ms in range(0, 600_000, 20)]  # 30,000 ticks, 4.5 MB
    at_desk(terminal, ticks)
    begin(terminal, away, RingMegabytes=1)
    terminal.run(620)
    # One request of 2,000 ticks more than the limit at most.
    assert 1_048_576 <= ring_bytes(terminal) < 1_048_576 + 350_000
    assert sum("The ring is full" in line for line in terminal.log) == 1
    assert "ring full 1 times" in terminal.status()
    away.answers.clear()
    terminal.run_until_sent(len(ticks))
    assert sent(away) == ticks
    assert ring_bytes(terminal) < 500_000


@pytest.mark.full
def test_a_busy_market_is_kept_up_with_while_nobody_answers(terminal: Terminal, away: ScriptedServer) -> None:
    ticks = [tick(ms) for ms in range(60_000)]  # a thousand a second
    at_desk(terminal, ticks)
    begin(terminal, away)
    terminal.run(80)
    # All of it is in the ring, not only in the terminal.
    assert ring_bytes(terminal) > 140 * len(ticks)
    away.answers.clear()
    terminal.run_until_sent(len(ticks))
    assert sent(away) == ticks


def test_a_restart_goes_on_where_the_last_run_stopped(start_terminal: StartTerminal, server: ScriptedServer) -> None:
    first = at_desk(start_terminal(), TICKS)
    begin(first, server)
    first.run(100)
    before = len(sent(server))
    assert 0 < before < len(TICKS)
    first("deinit")
    first.kill()
    second = at_desk(start_terminal(), TICKS)
    second("now", NOW_MS + 700_000)
    begin(second, server)
    second.run(10)
    assert sent(server) == TICKS
    assert second.sent == len(TICKS) - before


def test_a_kill_before_the_first_tick_does_not_move_the_beginning(
    start_terminal: StartTerminal, server: ScriptedServer
) -> None:
    quoted = [tick(-86_400_000), *TICKS]
    first = at_desk(start_terminal(), quoted)
    begin(first, server)
    first.run(5)
    first.kill()
    second = at_desk(start_terminal(), quoted)
    second("now", NOW_MS + 700_000)
    begin(second, server)
    second.run(10)
    assert sent(server) == TICKS


def test_a_kill_with_a_full_ring_loses_nothing(start_terminal: StartTerminal, away: ScriptedServer) -> None:
    first = at_desk(start_terminal(), TICKS)
    begin(first, away)
    first.run(300)
    waited = first.waiting
    assert waited > 10
    first.kill()
    away.answers.clear()
    away.requests.clear()
    second = at_desk(start_terminal(), TICKS)
    second("now", NOW_MS + 700_000)
    begin(second, away)
    second.run(10)
    assert f"{waited} requests of the last run wait" in "".join(second.log)
    assert sent(away) == TICKS


@pytest.mark.parametrize("request_number", [0, 1, 7])
def test_killed_in_the_middle_of_a_request_the_very_same_is_sent_again(
    start_terminal: StartTerminal, server: ScriptedServer, request_number: int
) -> None:
    first = at_desk(start_terminal(), TICKS)
    begin(first, server)
    first.die_in_request(request_number)
    last = server.requests[-1]
    assert len(server.requests) == request_number + 1
    # The broker's history of that time is not what the terminal had seen live: one tick has other flags.
    changed = [Tick(t.time_msc, t.bid, t.ask, t.last, t.volume, 134) for t in TICKS]
    second = at_desk(start_terminal(), changed)
    second("now", NOW_MS + 700_000)
    begin(second, server)
    second.run(10)
    again = server.requests[request_number + 1]
    assert again.body == last.body
    ticks = sent(server)
    assert [t.time_msc for t in dict.fromkeys(ticks)] == [t.time_msc for t in TICKS]


def test_a_torn_record_is_read_from_the_terminal_again(start_terminal: StartTerminal, away: ScriptedServer) -> None:
    first = at_desk(start_terminal(), TICKS)
    begin(first, away)
    first.run(300)
    first.kill()
    path = ring_files(first)[-1]
    # A power cut: the end of the file was not on the disk.
    content = path.read_bytes()
    path.write_bytes(content[:-700])
    away.answers.clear()
    second = at_desk(start_terminal(), TICKS)
    second("now", NOW_MS + 700_000)
    begin(second, away)
    second.run(10)
    assert sent(away) == TICKS


def test_a_spoilt_byte_costs_no_tick(start_terminal: StartTerminal, away: ScriptedServer) -> None:
    first = at_desk(start_terminal(), TICKS)
    begin(first, away)
    first.run(300)
    first.kill()
    path = ring_files(first)[-1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    away.answers.clear()
    second = at_desk(start_terminal(), TICKS)
    second("now", NOW_MS + 700_000)
    begin(second, away)
    second.run(10)
    assert sent(away) == TICKS


@pytest.mark.parametrize("is_cut", [True, False], ids=["cut", "spoilt"])
def test_an_older_file_that_is_not_whole_costs_no_tick(
    start_terminal: StartTerminal, away: ScriptedServer, is_cut: bool
) -> None:
    first = at_desk(start_terminal(), TICKS)
    begin(first, away, RingMegabytes=1)
    first.run(450)
    first.kill()
    older, *newer = ring_files(first)
    assert newer
    # A power cut: files are written in whatever order Windows likes.
    content = bytearray(older.read_bytes())
    if is_cut:
        del content[-700:]
    else:
        content[len(content) // 2] ^= 1
    older.write_bytes(content)
    away.answers.clear()
    second = at_desk(start_terminal(), TICKS)
    second("now", NOW_MS + 700_000)
    begin(second, away, RingMegabytes=1)
    second.run(30)
    assert held(away) == Counter(TICKS)
    assert second.waiting == 0
    assert "are missing; their ticks are read again" in "".join(second.log)


def test_files_that_were_deleted_when_they_were_confirmed_are_not_missed(
    start_terminal: StartTerminal, away: ScriptedServer
) -> None:
    first = at_desk(start_terminal(), TICKS)
    begin(first, away, RingMegabytes=1)
    first.run(350)
    assert len(ring_files(first)) > 1
    # The oldest file goes, the next has requests that wait.
    waiting = first.waiting
    away.answers[:] = [*[Answer(200)] * (waiting * 2 // 3), *away.answers]
    first.run(60)
    assert first.waiting > 0
    first.kill()
    assert ring_files(first)[0].name > "00000001.ring"
    away.answers.clear()
    second = at_desk(start_terminal(), TICKS)
    second("now", NOW_MS + 700_000)
    begin(second, away, RingMegabytes=1)
    second.run(30)
    assert sent(away) == TICKS
    assert not [line for line in second.log if "missing" in line]


def test_a_request_that_cannot_be_read_back_is_counted_and_its_ticks_are_sent_all_the_same(
    terminal: Terminal, away: ScriptedServer
) -> None:
    at_desk(terminal, TICKS)
    begin(terminal, away)
    terminal.run(300)
    waited = terminal.waiting
    (path,) = ring_files(terminal)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    away.answers.clear()
    terminal.run(400)
    assert "1 requests lost" in terminal.status()
    assert waited > 10
    assert terminal.waiting == 0
    assert held(away) == Counter(TICKS)


def test_a_file_that_another_program_has_for_a_moment_is_waited_for(
    start_terminal: StartTerminal, away: ScriptedServer
) -> None:
    first = at_desk(start_terminal(), TICKS)
    begin(first, away, MaxTicks=100)
    first.run(100)
    first.kill()
    away.answers.clear()

    second = at_desk(start_terminal(), TICKS)
    second("now", NOW_MS + 700_000)
    with ring_files(first)[0].open("rb") as held_by_another:
        fcntl.flock(held_by_another, fcntl.LOCK_EX)
        begin(second, away)
        second.run(30)
    assert any("has another program its files" in line for line in second.log)
    assert sent(away) == []
    second.run(30)
    assert sent(away) == TICKS


def test_a_file_that_another_program_has_for_minutes_is_not_given_up(terminal: Terminal, away: ScriptedServer) -> None:
    at_desk(terminal, TICKS)
    begin(terminal, away, RingMegabytes=1, MaxTicks=100)
    terminal.run(400)
    with ring_files(terminal)[0].open("rb") as held_by_another:
        fcntl.flock(held_by_another, fcntl.LOCK_EX | fcntl.LOCK_NB)
        away.answers.clear()
        terminal.run(180)
        assert terminal.waiting > 0
    terminal.run(400)
    assert "lost" not in terminal.status()
    assert sent(away) == TICKS


def test_a_full_disk_is_said_and_costs_no_tick(terminal: Terminal, server: ScriptedServer) -> None:
    at_desk(terminal, TICKS)
    begin(terminal, server)
    terminal.run(60)
    terminal("disk", 5_000)
    terminal.run(120)
    terminal("disk", -1)
    terminal.run(500)
    assert sent(server) == TICKS
    assert sum("is it full" in line for line in terminal.log) == 1


def test_a_second_ea_on_the_same_broker_does_not_start(start_terminal: StartTerminal, server: ScriptedServer) -> None:
    first, second = at_desk(start_terminal(), TICKS), at_desk(start_terminal(), TICKS)
    begin(first, server)
    first.run(30)
    begin(second, server)
    second("now", NOW_MS + 30_000)
    second.run(60)
    assert sum("Does another chart or terminal run" in line for line in second.log) == 1
    first.run(600)
    assert sent(server) == TICKS
    # It takes over when the first has gone.
    first("deinit")
    second("now", NOW_MS + 700_000)
    second.run(10)
    assert sent(server) == TICKS


def test_only_the_wanted_hours_are_caught_up_and_the_rest_is_counted(
    start_terminal: StartTerminal, server: ScriptedServer
) -> None:
    later = [tick(ms + 7_200_000) for ms in range(0, 600_000, 200)]
    first = at_desk(start_terminal(), TICKS)
    begin(first, server)
    first.run(100)
    first.kill()
    had = sent(server)
    second = at_desk(start_terminal(), TICKS + later)
    second("now", FIRST_MSC + 7_200_000 + 3_600_000)
    begin(second, server, CatchUpHours=1)
    second.run(10)
    assert sent(server) == had + later
    assert any("CatchUpHours" in line for line in second.log)
    assert "minutes left out at the start" in second.status()


def test_brokers_have_rings_of_their_own(ea_binary: Path, tmp_path: Path, server: ScriptedServer) -> None:
    for broker in ("First-Live", "Second Broker/Demo"):
        with Terminal(ea_binary, tmp_path / "Files", broker=broker) as terminal:
            at_desk(terminal, TICKS[:10])
            begin(terminal, server)
            terminal.run(30)
    assert sorted(path.name for path in (tmp_path / "Common" / "DataCollectorPRO").iterdir()) == [
        "First-Live",
        "Second-Broker-Demo",
    ]
    assert sent(server) == TICKS[:10] * 2


@pytest.mark.full
def test_changed_inputs_go_on_with_the_same_ring(terminal: Terminal, away: ScriptedServer) -> None:
    at_desk(terminal, TICKS)
    begin(terminal, away)
    terminal.run(200)
    waited = terminal.waiting
    # MetaTrader keeps the program's variables when inputs change.
    terminal("deinit")
    assert terminal("init") == "0"
    away.answers.clear()
    terminal.run(600)
    assert waited > 10
    assert sent(away) == TICKS
