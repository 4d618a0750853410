"""The terminal's list of ticks is not append-only, and its clocks are not to be trusted."""

from collections import Counter

import pytest

from marketdata.tick import Tick
from tests.integration.ea.conftest import StartTerminal
from tests.integration.ea.scenario import FIRST_MSC, NOW_MS, begin, held, posted, sent, tick
from tests.integration.ea.terminal import Terminal
from tests.scripted import ScriptedServer

MINUTE_MS = 60_000
HOUR_MS = 3_600_000

#: Ticks of two minutes, one a second; every third comes late.
TICKS = [tick(ms, 1.1 + ms / 1e9) for ms in range(0, 120_000, 1_000)]
LIVE = [t for k, t in enumerate(TICKS) if k % 3]
LATE = TICKS[::3]


def in_list(terminal: Terminal, symbol: str, live: list[Tick], late: list[Tick], known_ms: int) -> None:
    terminal.symbol(symbol)
    terminal.ticks(symbol, [tick(-HOUR_MS), *live])
    terminal.ticks(symbol, late, known_ms=known_ms, late=True)


@pytest.mark.parametrize("after_ms", [90_000, 5 * MINUTE_MS, 40 * MINUTE_MS], ids=["1 min", "10 min", "60 min"])
def test_ticks_that_come_behind_the_cursor_are_sent_and_counted(
    terminal: Terminal, server: ScriptedServer, after_ms: int
) -> None:
    in_list(terminal, "EURUSD", LIVE, LATE, FIRST_MSC + 120_000 + after_ms)
    begin(terminal, server)
    # Quotes go on, for it is by them that the EA knows the broker's time.
    terminal.ticks("EURUSD", [tick(ms, 1.3) for ms in range(121_000, 2 * HOUR_MS, 20_000)])
    terminal.run(4_800, step_ms=2_000)
    counted = held(server)
    assert all(counted[t] == 1 for t in TICKS)
    assert set(counted.values()) == {1}
    assert f"{len(LATE)} ticks came late" in terminal.status()
    assert any("came late" in line for line in terminal.log)
    assert Counter(said_late(server)) == Counter(LATE)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("next_ms", [2_000, 20 * MINUTE_MS])
def test_ticks_that_come_late_one_by_one_into_the_first_millisecond_count_once(
    start_terminal: StartTerminal, server: ScriptedServer, killed: bool, next_ms: int
) -> None:
    # Nothing precedes it that could show that time goes back, and nothing else is sent between.
    late = {2: 5 * MINUTE_MS, 4: 30 * MINUTE_MS}
    ticks = [*(tick(0, bid) for bid in (1.2, 1.1, 1.1, 1.2, 1.1, 1.2)), tick(next_ms)]
    quoted = [(t, FIRST_MSC + late[k] if k in late else t.time_msc) for k, t in enumerate(ticks)]
    quoted.insert(0, (tick(-HOUR_MS), NOW_MS - HOUR_MS))
    terminal = start_terminal()
    terminal.symbol("EURUSD")
    terminal.load("EURUSD", quoted)
    begin(terminal, server)
    terminal.run(1_500, step_ms=2_000)
    if killed:
        terminal.kill()
        terminal = start_terminal()
        terminal.symbol("EURUSD")
        terminal.load("EURUSD", quoted)
        terminal("now", NOW_MS + 1_500_000)
        begin(terminal, server)
    terminal.run(3_600, step_ms=2_000)
    assert held(server) == Counter(ticks)


def test_a_late_tick_of_the_newest_millisecond_counts_when_the_one_before_is_long_past(
    start_terminal: StartTerminal, server: ScriptedServer
) -> None:
    # The one before is no longer remembered, and none follows.
    ticks = [tick(0), *(tick(3 * HOUR_MS, bid) for bid in (1.2, 1.1, 1.1, 1.2))]
    quoted = [(t, t.time_msc + (5 * MINUTE_MS if k == 2 else 0)) for k, t in enumerate(ticks)]
    terminal = start_terminal()
    terminal.symbol("EURUSD")
    terminal.load("EURUSD", [(tick(-HOUR_MS), NOW_MS - HOUR_MS), *quoted])
    begin(terminal, server)
    terminal.run(15_600, step_ms=10_000)
    assert held(server) == Counter(ticks)


def said_late(server: ScriptedServer) -> list[Tick]:
    return [posted(item) for request in server.requests for item in request.items if item.get("late")]


def test_history_of_a_reconnection_that_comes_in_pieces_is_complete(terminal: Terminal, server: ScriptedServer) -> None:
    # The newest come at once, the older ones in two pieces, the last of them after minutes.
    ticks = [tick(ms) for ms in range(0, 300_000, 500)]
    back_ms = FIRST_MSC + 200_000
    terminal.symbol("EURUSD")
    known = [(t, t.time_msc) for t in ticks[:200]] + [
        (t, back_ms + (0 if k > 150 else 1_500 if k > 50 else 150_000)) for k, t in enumerate(ticks[200:400])
    ]
    terminal.load("EURUSD", [(tick(-HOUR_MS), NOW_MS - HOUR_MS), *known, *((t, t.time_msc) for t in ticks[400:])])
    begin(terminal, server)
    terminal.run(110)
    terminal("connected", 0)
    terminal.run(100)
    terminal("connected", 1)
    terminal.run(900)
    assert held(server) == Counter(ticks)
    # Two readings that agree found what came within seconds: only the last piece came late.
    assert "51 ticks came late" in terminal.status()


def test_what_changed_while_the_terminal_was_closed_is_sent_again(
    start_terminal: StartTerminal, server: ScriptedServer
) -> None:
    first = start_terminal()
    in_list(first, "EURUSD", LIVE, LATE, FIRST_MSC + HOUR_MS)
    begin(first, server)
    first.run(140)
    first.kill()
    assert held(server) == Counter(LIVE)
    second = start_terminal()
    in_list(second, "EURUSD", LIVE, LATE, FIRST_MSC + HOUR_MS)
    second("now", FIRST_MSC + 2 * HOUR_MS)
    begin(second, server)
    second.run(130)
    assert held(server) == Counter(TICKS)
    assert f"{len(LATE)} ticks came late" in second.status()
    # Which they were nobody knows any more.
    assert len(said_late(server)) == len(LATE)


def test_a_list_that_did_not_change_is_not_sent_again(start_terminal: StartTerminal, server: ScriptedServer) -> None:
    for now_ms in (NOW_MS, FIRST_MSC + HOUR_MS):
        terminal = start_terminal()
        in_list(terminal, "EURUSD", TICKS, [], 0)
        terminal("now", now_ms)
        begin(terminal, server)
        terminal.run(140)
        terminal.kill()
    assert sent(server) == TICKS


def test_the_bar_of_a_minute_that_changed_is_sent_again(terminal: Terminal, server: ScriptedServer) -> None:
    in_list(terminal, "EURUSD", LIVE, LATE, FIRST_MSC + 150_000)
    terminal.ticks("EURUSD", [tick(ms, 1.3) for ms in range(121_000, 400_000, 20_000)])
    begin(terminal, server, SendBars=True)
    terminal.run(400)
    bars = [item for request in server.requests if request.path == "/ingest" for item in request.items]
    volumes = [bar["tick_volume"] for bar in bars if bar["time_msc"] == NOW_MS + MINUTE_MS]
    assert (volumes[0], volumes[-1]) == (40, 60)


def test_an_ordinary_weekend_is_caught_up(start_terminal: StartTerminal, server: ScriptedServer) -> None:
    # The PC is shut down on Friday at noon; the market closes at ten, opens on Sunday at ten; the PC is back on Monday.
    friday = [tick(ms) for ms in range(0, 10 * HOUR_MS, 60_000)]
    monday = [tick(ms) for ms in range(58 * HOUR_MS, 70 * HOUR_MS, 60_000)]
    for seconds, now_ms in ((3_600, NOW_MS), (30, NOW_MS + 70 * HOUR_MS)):
        terminal = start_terminal()
        terminal.symbol("EURUSD")
        terminal.ticks("EURUSD", [tick(-HOUR_MS), *friday, *monday])
        terminal("now", now_ms)
        begin(terminal, server)
        terminal.run(seconds, step_ms=1_000)
        terminal.kill()
    assert held(server) == Counter(friday + monday)


@pytest.mark.parametrize("pc_error_ms", [HOUR_MS, pytest.param(-HOUR_MS, marks=pytest.mark.full)])
def test_a_pc_whose_clock_is_an_hour_wrong_begins_at_the_newest_quote(
    terminal: Terminal, server: ScriptedServer, pc_error_ms: int
) -> None:
    ticks = [tick(ms) for ms in range(0, 1_200_000, 1_000)]
    terminal.symbol("EURUSD")
    terminal.ticks("EURUSD", [tick(-HOUR_MS), tick(-1_000), *ticks])
    # A symbol that the user adds while it trades.
    terminal("clock", pc_error_ms)
    begin(terminal, server)
    terminal.run(1_230, step_ms=1_000)
    assert sent(server) == [tick(-1_000), *ticks]


def by_the_clock(bid: float, begin_ms: int, end_ms: int) -> list[Tick]:
    """One tick in 50 s, with a price of its own."""
    return [
        Tick(NOW_MS + ms, bid + ms / HOUR_MS, bid + 2, 0.0, 0.0, 6) for ms in range(begin_ms, end_ms, 50_000)
    ]  # fmt: skip


#: The hour from 03:00 to 04:00, or so, by the broker's clock; the same hour again; and then on.
FIRST_SHOWING, SECOND_SHOWING = by_the_clock(100, 0, HOUR_MS), by_the_clock(200, 0, HOUR_MS)
AFTERWARDS = by_the_clock(300, HOUR_MS, HOUR_MS + 600_000)


@pytest.mark.parametrize("order", ["by time", "by arrival"])
def test_an_hour_that_the_clock_shows_twice_is_said_and_comes_once_with_each_offset(
    terminal: Terminal, server: ScriptedServer, order: str
) -> None:
    summer, winter = 10_800, 7_200
    quoted = [(t, t.time_msc - summer * 1_000) for t in [tick(-2 * HOUR_MS, 99.0), *FIRST_SHOWING]]
    quoted += [(t, t.time_msc - winter * 1_000) for t in SECOND_SHOWING + AFTERWARDS]
    if order == "by time":
        quoted.sort(key=lambda one: one[0].time_msc)
    terminal.symbol("BTCUSD", digits=2, point=0.01)
    terminal.load("BTCUSD", quoted)
    terminal("offset", summer)
    terminal("allow", server.url)
    terminal.inputs(RelayUrl=server.url, SendBars=False)
    terminal.start(NOW_MS - summer * 1_000 - 60_000)
    terminal.run(3_660, step_ms=1_000)
    terminal("offset", winter)
    terminal.run(5_000, step_ms=1_000)
    by_offset: dict[int, list[float]] = {}
    for request in server.requests:
        by_offset.setdefault(request.body["utc_offset_s"], []).extend(item["bid"] for item in request.items)
    assert by_offset[summer] == [t.bid for t in FIRST_SHOWING]
    assert by_offset[winter] == [t.bid for t in SECOND_SHOWING + AFTERWARDS]
    assert sum("clock went back" in line for line in terminal.log) == 1
