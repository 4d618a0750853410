"""What a server lacks is read from the terminal's history again, newest first and behind what is new."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from marketdata.tick import Tick
from tests.integration.ea.conftest import StartTerminal
from tests.integration.ea.scenario import FIRST_MSC, NOW_MS, begin, held, posted, tick
from tests.integration.ea.terminal import HISTORY_NOT_FOUND, HISTORY_TIMEOUT, Terminal, tick_commands
from tests.integration.relay.conftest import StartRelay
from tests.scripted import Answer, Request, ScriptedServer
from tests.waiting import wait_until

MINUTE_MS, HOUR_MS = 60_000, 3_600_000

#: Three hours before the EA begins, a tick in 5 s.
HISTORY = [tick(ms, 1.1 + ms / 1e10) for ms in range(-3 * HOUR_MS, -15_000, 5_000)]


def wanted(from_ms: int, minutes: int = 1, symbol: str = "EURUSD") -> dict[str, Any]:
    """A range, by its begin after NOW_MS."""
    return {"symbol": symbol, "from": NOW_MS + from_ms, "to": NOW_MS + from_ms + minutes * MINUTE_MS}


def within(ticks: list[Tick], asked: dict[str, Any], offset_ms: int = 0) -> list[Tick]:
    return [t for t in ticks if asked["from"] <= t.time_msc - offset_ms < asked["to"]]


def fills(server: ScriptedServer) -> list[Request]:
    """The requests with ticks that were wanted."""
    return [request for request in server.requests if request.headers.get("X-Fill")]


def reports(server: ScriptedServer) -> list[dict[str, Any]]:
    return [item for request in server.fills if request.status < 300 for item in request.body.get("fills", ())]


def sessions(server: ScriptedServer) -> list[dict[str, Any]]:
    return [item for request in server.fills for item in request.body.get("sessions", ())]


def ask(terminal: Terminal, server: ScriptedServer, ranges: list[dict[str, Any]], seconds: int = 60) -> None:
    """Let the server want ranges until they are reported, for so long at most."""
    for _ in range(seconds * 4):
        said = {(item["symbol"], item["from"]) for item in reports(server)}
        server.wanted = [asked for asked in ranges if (asked["symbol"], asked["from"]) not in said]
        if not server.wanted:
            return
        terminal.run(0.25)


@pytest.fixture
def terminal(terminal: Terminal) -> Terminal:
    """One with three hours of history, and a quote each 200 ms for half an hour."""
    terminal.symbol("EURUSD")
    terminal.give(_quotes())
    return terminal


@cache
def _quotes() -> str:
    return tick_commands("EURUSD", [*HISTORY, *(tick(ms) for ms in range(-12_000, 30 * MINUTE_MS, 200))])


def test_ranges_are_filled_newest_first_and_reported_when_they_are_confirmed(
    terminal: Terminal, server: ScriptedServer
) -> None:
    ranges = [wanted(-ms) for ms in (5 * MINUTE_MS, HOUR_MS, 2 * HOUR_MS)]
    begin(terminal, server)
    ask(terminal, server, ranges)
    assert [[posted(item) for item in request.items] for request in fills(server)] == [
        within(HISTORY, asked) for asked in ranges
    ]
    assert reports(server) == [asked | {"ticks": 12} for asked in ranges]
    assert all(request.headers["X-Fill"] == "ticks" for request in fills(server))
    assert all(request.headers["X-Can-Fill"] == "ticks" for request in server.requests)
    assert {request.body["utc_offset_s"] for request in fills(server)} == {0}
    assert "36 ticks filled" in terminal.status()
    # Each tick counts once, live ones and those that were there before.
    assert set(held(server).values()) == {1}


@pytest.mark.full
def test_what_was_reported_is_not_read_again_before_the_server_knows(
    terminal: Terminal, server: ScriptedServer
) -> None:
    server.wanted = [wanted(-HOUR_MS)]
    terminal.ticks("EURUSD", [tick(ms) for ms in range(30 * MINUTE_MS, 80 * MINUTE_MS, 20_000)])
    begin(terminal, server)
    terminal.run(300)
    assert (len(fills(server)), len(reports(server))) == (1, 1)
    # It may never have come to know.
    terminal.run(3_600, step_ms=2_000)
    assert (len(fills(server)), len(reports(server))) == (2, 2)


def arrivals(terminal: Terminal, server: ScriptedServer, seconds: float) -> Iterator[tuple[int, Tick]]:
    """Live ticks as they are sent, each with the terminal's time at the end of that turn."""
    for _ in range(round(seconds * 4)):
        before = len(server.requests)
        terminal.run(0.25)
        now_ms = int(terminal("clock-shows"))
        for request in server.requests[before:]:
            if not request.headers.get("X-Fill"):
                yield from ((now_ms, posted(item)) for item in request.items)


def test_live_ticks_are_never_later_than_a_second_while_two_hundred_ranges_are_filled(
    terminal: Terminal, server: ScriptedServer
) -> None:
    # The newest has 20,000 ticks more, which is ten requests.
    busy = [tick(-20 * MINUTE_MS + k * 2, 1.2) for k in range(20_000)]
    terminal.ticks("EURUSD", busy, late=True, known_ms=NOW_MS - HOUR_MS)
    ranges = [wanted(-20 * MINUTE_MS, 2), *(wanted(-ms * MINUTE_MS) for ms in range(21, 170) if ms % 4)]
    ranges += [wanted(-ms * MINUTE_MS, symbol=name) for ms in range(21, 110) for name in ("GBPUSD",)]
    terminal.symbol("GBPUSD")
    terminal.ticks("GBPUSD", [*HISTORY, tick(-12_000)])
    assert len(ranges) >= 200
    terminal("answer-takes", 50)
    begin(terminal, server)
    latest, done = 0, 0
    for _ in range(1_200):
        said = {(item["symbol"], item["from"]) for item in reports(server)}
        server.wanted = [asked for asked in ranges if (asked["symbol"], asked["from"]) not in said]
        done = len(said)
        if not server.wanted:
            break
        for now_ms, live in arrivals(terminal, server, 0.25):
            latest = max(latest, now_ms - live.time_msc)
    assert done == len(ranges)
    assert latest <= 1_000
    assert set(held(server).values()) == {1}


def test_what_the_terminal_is_still_loading_is_not_taken_for_the_whole(
    terminal: Terminal, server: ScriptedServer
) -> None:
    # The half of it comes after the first reading.
    more = [tick(-HOUR_MS + ms, 1.3) for ms in range(0, MINUTE_MS, 1_000)]
    terminal.ticks("EURUSD", more, late=True, known_ms=NOW_MS + 2_000)
    asked = wanted(-HOUR_MS, 2)
    begin(terminal, server)
    ask(terminal, server, [asked])
    assert reports(server) == [asked | {"ticks": len(within([*HISTORY, *more], asked))}]


def test_a_time_without_ticks_is_said_to_have_none(terminal: Terminal, server: ScriptedServer) -> None:
    asked = wanted(-5 * HOUR_MS)
    begin(terminal, server)
    ask(terminal, server, [asked])
    assert (reports(server), fills(server)) == ([asked | {"ticks": 0}], [])


def test_no_ticks_and_no_error_are_not_believed_while_the_terminal_has_bars_of_that_time(
    terminal: Terminal, server: ScriptedServer
) -> None:
    terminal("history", "EURUSD", FIRST_MSC - 30 * MINUTE_MS, 0)
    asked = wanted(-HOUR_MS)
    begin(terminal, server)
    server.wanted = [asked]
    terminal.run(8)
    assert (reports(server), fills(server)) == ([], [])
    # Now it has loaded them.
    terminal("history", "EURUSD", 0, 0)
    ask(terminal, server, [asked])
    assert reports(server) == [asked | {"ticks": 12}]


def test_a_minute_with_a_bar_and_without_ticks_is_reported_and_the_others_are_sent(
    terminal: Terminal, server: ScriptedServer
) -> None:
    terminal("history", "EURUSD", NOW_MS - HOUR_MS + MINUTE_MS, 0)
    asked, none = wanted(-HOUR_MS, 2), wanted(-90 * MINUTE_MS)
    begin(terminal, server)
    ask(terminal, server, [asked, none])
    error = {"error": "the terminal has bars of it, but not all the ticks"}
    assert sorted(reports(server), key=lambda item: -item["from"]) == [asked | error, none | error]
    (filled,) = fills(server)
    assert [posted(item) for item in filled.items] == within(HISTORY, wanted(-59 * MINUTE_MS))


def test_a_bar_that_counts_more_ticks_than_the_history_ever_has_is_given_in_to(
    terminal: Terminal, server: ScriptedServer
) -> None:
    # Ten seconds of the minute are gone.
    terminal("history", "EURUSD", NOW_MS - HOUR_MS + 10_000, 0)
    asked = wanted(-HOUR_MS)
    begin(terminal, server)
    server.wanted = [asked]
    terminal.run(400, step_ms=1_000)
    assert reports(server) == []
    terminal.run(200, step_ms=1_000)
    assert reports(server) == [asked | {"ticks": 10}]


@pytest.mark.parametrize("from_ms", [-4 * HOUR_MS, -HOUR_MS])
def test_without_bars_only_ticks_are_believed(terminal: Terminal, server: ScriptedServer, from_ms: int) -> None:
    terminal.state("EURUSD", bars=0)
    asked = wanted(from_ms)
    begin(terminal, server)
    ask(terminal, server, [asked])
    (report,) = reports(server)
    assert report.get("ticks", report.get("error")) == (
        12 if from_ms == -HOUR_MS else "the terminal has no ticks of it, and its bars cannot be read"
    )


def test_a_terminal_without_history_says_why_and_reads_on(terminal: Terminal, server: ScriptedServer) -> None:
    terminal("history", "EURUSD", FIRST_MSC - 90 * MINUTE_MS, HISTORY_NOT_FOUND)
    old, new = wanted(-2 * HOUR_MS), wanted(-HOUR_MS)
    begin(terminal, server)
    ask(terminal, server, [old, new])
    assert reports(server) == [
        new | {"ticks": 12},
        old | {"error": "the terminal has no history of it (4401)"},
    ]
    assert sum("cannot be sent: the terminal has no history" in line for line in terminal.log) == 1


@pytest.mark.full
def test_a_call_that_waits_for_the_broker_is_followed_by_a_pause(terminal: Terminal, server: ScriptedServer) -> None:
    # What is older than an hour takes 45 s to come.
    terminal("history", "EURUSD", FIRST_MSC - HOUR_MS, HISTORY_TIMEOUT, 45_000)
    begin(terminal, server)
    server.wanted = [wanted(-2 * HOUR_MS)]
    before_ms = int(terminal("clock-shows"))
    turns = 0
    while not reports(server):
        terminal.run(1, step_ms=1_000)
        turns += 1
    # Five calls, and ten times as long for what is new between them.
    assert turns > 4 * 440
    assert int(terminal("clock-shows")) - before_ms > 5 * 45_000 + 4 * 450_000
    assert "4403" in reports(server)[0]["error"]


def test_a_report_waits_for_a_server_that_has_trouble_and_ticks_do_not(
    terminal: Terminal, server: ScriptedServer
) -> None:
    begin(terminal, server)
    terminal.run(5)
    server.answers_to_fills = [Answer(503, {"error": "later", "code": "UNAVAILABLE"}) for _ in range(5)]
    asked = wanted(-HOUR_MS)
    before = terminal.sent
    ask(terminal, server, [asked], seconds=60)
    assert reports(server) == [asked | {"ticks": 12}]
    assert terminal.sent - before > 100
    assert [request.status for request in server.fills[-6:]] == [503] * 5 + [200]


def test_a_server_without_reports_gets_every_tick_and_is_hardly_asked(
    terminal: Terminal, server: ScriptedServer
) -> None:
    server.missing = {"/fills"}
    terminal("session", "EURUSD", 1, 0, 86_400)
    begin(terminal, server)
    terminal.run(300)
    assert 3 <= len(server.fills) <= 12
    assert terminal.sent > 1_400
    assert terminal.waiting == 0
    assert "no Tickpipe" not in terminal.status()


def test_ticks_that_the_server_refuses_are_no_filled_range(terminal: Terminal, server: ScriptedServer) -> None:
    begin(terminal, server)
    terminal.run(5)
    asked = wanted(-HOUR_MS)
    real = server.answer

    def refuse(path: str, items: list[Any]) -> Answer:
        is_fill = items and items[0].get("time_msc", NOW_MS) < NOW_MS - MINUTE_MS
        return Answer(207, {"ok": True, "errors": 2}) if is_fill else real(path, items)

    server.answer = refuse  # type: ignore[method-assign]
    ask(terminal, server, [asked])
    assert reports(server) == [asked | {"error": "the server refused 2 of the ticks"}]


@pytest.mark.parametrize(
    "asked",
    [
        {"symbol": "EURUSD", "from": NOW_MS - HOUR_MS + 1, "to": NOW_MS - HOUR_MS + MINUTE_MS},
        wanted(-2 * HOUR_MS, 61),
        wanted(-HOUR_MS, 0),
        pytest.param(wanted(-HOUR_MS, -1), marks=pytest.mark.full),
        pytest.param({"symbol": "EURUSD", "from": 10**30, "to": 10**30 + MINUTE_MS}, marks=pytest.mark.full),
        {"symbol": "EURUSD", "from": "soon", "to": "never"},
        {"symbol": "", "from": NOW_MS - HOUR_MS, "to": NOW_MS},
        pytest.param({"from": NOW_MS - HOUR_MS, "to": NOW_MS}, marks=pytest.mark.full),
        wanted(30 * MINUTE_MS),
    ],
)  # fmt: skip
def test_what_no_server_asks_for_is_left_alone(
    terminal: Terminal, server: ScriptedServer, asked: dict[str, Any]
) -> None:
    good = wanted(-HOUR_MS)
    server.wanted = [asked, good]
    begin(terminal, server)
    terminal.run(10)
    assert reports(server) == [good | {"ticks": 12}]
    assert terminal.sent > 40


@pytest.mark.parametrize(
    "name", ["[SP500]", 'A"B', *(pytest.param(name, marks=pytest.mark.full) for name in ("A\\B", "A}B,C", "EURUSD.£"))]
)
def test_symbols_of_any_name_are_filled(terminal: Terminal, server: ScriptedServer, name: str) -> None:
    terminal.symbol(name)
    terminal.ticks(name, [*HISTORY, tick(-12_000)])
    asked = wanted(-HOUR_MS, symbol=name)
    begin(terminal, server)
    ask(terminal, server, [asked])
    assert reports(server) == [asked | {"ticks": 12}]


@pytest.mark.full
def test_ranges_of_other_symbols_are_left_to_others_for_ten_minutes(terminal: Terminal, server: ScriptedServer) -> None:
    foreign = wanted(-HOUR_MS, symbol="XAUUSD")
    server.wanted = [foreign]
    begin(terminal, server)
    terminal.run(590)
    assert reports(server) == []
    terminal.run(30)
    assert reports(server) == [foreign | {"error": "this program does not collect the symbol"}]


@pytest.mark.parametrize(("ranges", "status"), [(8_000, "not taken"), (700, "eight of them")])
def test_an_answer_that_is_too_large_costs_no_tick(
    terminal: Terminal, server: ScriptedServer, ranges: int, status: str
) -> None:
    body = {"ok": True, "wanted": [wanted(-n * MINUTE_MS) for n in range(60, 60 + ranges)]}
    begin(terminal, server)
    server.answers = [Answer(200, body)]
    terminal.run(60)
    assert len(reports(server)) <= 8
    assert terminal.sent > 250
    assert set(held(server).values()) == {1}
    if status == "not taken":
        # It is no answer of ours: the same request comes again.
        assert server.requests[0].body == server.requests[1].body


def test_it_can_be_switched_off(terminal: Terminal, server: ScriptedServer) -> None:
    server.wanted = [wanted(-HOUR_MS)]
    terminal("session", "EURUSD", 1, 0, 86_400)
    begin(terminal, server, FillGaps=False)
    terminal.run(20)
    assert not any("X-Can-Fill" in request.headers for request in server.requests)
    assert (fills(server), server.fills) == ([], [])


def test_quote_sessions_are_sent_at_the_start_and_once_a_day(terminal: Terminal, server: ScriptedServer) -> None:
    for day, first_s, end_s in ((1, 60, 86_340), (2, 0, 86_400), (5, 0, 43_200), (5, 46_830, 0)):
        terminal("session", "EURUSD", day, first_s, end_s)
    begin(terminal, server)
    terminal.run(30)
    expected = [
        {"symbol": "EURUSD", "day": day, "from": first, "to": end}
        for day, first, end in ((1, 1, 1_439), (2, 0, 1_440), (5, 0, 720), (5, 780, 1_440))
    ]
    assert sessions(server) == expected
    assert server.fills[0].body["utc_offset_s"] == 0
    terminal.run(86_400, step_ms=60_000)
    assert sessions(server) == expected * 2


def quoted(offset_s: int, begin_ms: int, end_ms: int, bid: float) -> list[tuple[Tick, int]]:
    """A tick in 10 s between two moments after NOW_MS (UTC), by a broker's clock with that offset."""
    return [
        (Tick(NOW_MS + ms + offset_s * 1_000, bid, bid + 1, 0.0, 0.0, 6), NOW_MS + ms)
        for ms in range(begin_ms, end_ms, 10_000)
    ]  # fmt: skip


SUMMER_S, WINTER_S = 10_800, 7_200


def test_a_range_is_read_by_the_clock_of_its_time(terminal: Terminal, server: ScriptedServer) -> None:
    # The clock goes back two hours after the start: from 05:00 to 04:00 by the broker.
    summer = quoted(SUMMER_S, -4 * HOUR_MS, 2 * HOUR_MS, 1.5)
    winter = quoted(WINTER_S, 2 * HOUR_MS, 5 * HOUR_MS, 1.7)
    terminal.symbol("BTCUSD", digits=2, point=0.01)
    terminal.load("BTCUSD", sorted(summer + winter, key=lambda one: one[0].time_msc))
    terminal("offset", SUMMER_S)
    begin(terminal, server)
    terminal.run(7_200, step_ms=1_000)
    terminal("offset", WINTER_S)
    terminal.run(10_000, step_ms=1_000)
    before, after = wanted(-2 * HOUR_MS, symbol="BTCUSD"), wanted(210 * MINUTE_MS, symbol="BTCUSD")
    change, twice = wanted(119 * MINUTE_MS, 2, symbol="BTCUSD"), wanted(90 * MINUTE_MS, symbol="BTCUSD")
    ask(terminal, server, [after, change, twice, before])
    found = {item["from"]: item.get("ticks", item.get("error", "")) for item in reports(server)}
    assert (found[before["from"]], found[after["from"]]) == (6, 6)
    assert all("clock" in found[asked["from"]] for asked in (change, twice))
    sent = [(request.body["utc_offset_s"], [item["bid"] for item in request.items]) for request in fills(server)]
    assert sent == [(WINTER_S, [1.7] * 6), (SUMMER_S, [1.5] * 6)]
    for request in fills(server):
        utc = [item["time_msc"] - request.body["utc_offset_s"] * 1_000 for item in request.items]
        assert utc[0] in (before["from"], after["from"])


@pytest.mark.parametrize(("days", "is_known"), [(-80, True), (-95, False)])
def test_beyond_the_last_change_of_clocks_nothing_is_read(
    terminal: Terminal, server: ScriptedServer, days: int, is_known: bool
) -> None:
    # The start is in February 2019; America changed its clocks on 4 November, 92 days before.
    asked = wanted(days * 24 * HOUR_MS)
    begin(terminal, server)
    ask(terminal, server, [asked])
    (report,) = reports(server)
    assert report.get("ticks", report.get("error")) == (
        0 if is_known else "the broker's clock may have been another one then, or showed that time twice"
    )


@pytest.mark.parametrize("clock", [1, 2], ids=["server", "fixed"])
def test_the_offset_is_said_as_for_all_ticks(terminal: Terminal, server: ScriptedServer, clock: int) -> None:
    terminal.symbol("GBPUSD")
    terminal.load("GBPUSD", quoted(SUMMER_S, -4 * HOUR_MS, HOUR_MS, 1.5))
    terminal("offset", SUMMER_S)
    begin(terminal, server, Clock=clock, ClockMinutes=180)
    ask(terminal, server, [wanted(-2 * HOUR_MS, symbol="GBPUSD")])
    (request,) = fills(server)
    assert request.body.get("utc_offset_s") == (None if clock == 1 else SUMMER_S)
    assert [item["bid"] for item in request.items] == [1.5] * 6


def test_a_terminal_that_is_killed_fills_what_it_had_begun(
    start_terminal: StartTerminal, server: ScriptedServer
) -> None:
    asked = wanted(-150 * MINUTE_MS, 60)
    for die in (True, False):
        terminal = start_terminal()
        terminal.symbol("EURUSD")
        terminal.ticks("EURUSD", [*HISTORY, *(tick(ms) for ms in range(-12_000, 120_000, 500))])
        terminal("now", NOW_MS if die else NOW_MS + 30_000)
        server.wanted = [asked]
        begin(terminal, server, MaxTicks=100)
        if die:
            while len(fills(server)) < 3:
                terminal.run(0.25)
            terminal.kill()
        else:
            terminal.run(60)
    assert reports(server) == [asked | {"ticks": 720}]
    counted = held(server)
    assert all(counted[t] == 1 for t in within(HISTORY, asked))
    assert set(counted.values()) == {1}


def test_a_range_that_begins_where_the_last_one_ended_counts_once(terminal: Terminal, server: ScriptedServer) -> None:
    # Nothing of the symbol is sent between the two.
    quotes = [tick(-HOUR_MS + 20_000), tick(-HOUR_MS + 80_000), tick(-12_000)]
    terminal.symbol("GBPUSD")
    terminal.ticks("GBPUSD", quotes)
    begin(terminal, server)
    ask(terminal, server, [wanted(-HOUR_MS, symbol="GBPUSD")])
    ask(terminal, server, [wanted(-HOUR_MS - MINUTE_MS, 3, symbol="GBPUSD")])
    assert [report["ticks"] for report in reports(server)] == [1, 2]
    assert held(server, "GBPUSD") == Counter(quotes)


def test_pieces_of_a_range_are_whole_milliseconds(start_terminal: StartTerminal, server: ScriptedServer) -> None:
    terminal = start_terminal()
    sevens = [tick(-HOUR_MS + ms, 1.1 + n / 1e4) for ms in range(0, 3_000, 100) for n in range(7)]
    terminal.symbol("EURUSD")
    terminal.ticks("EURUSD", [tick(-2 * HOUR_MS), *sevens, tick(-12_000), *(tick(ms) for ms in range(0, 60_000, 250))])
    asked = wanted(-HOUR_MS, 2)
    begin(terminal, server, MaxTicks=10)
    ask(terminal, server, [asked])
    pieces = [[posted(item) for item in request.items] for request in fills(server)]
    assert [t for piece in pieces for t in piece] == sevens
    assert len(pieces) > 10
    assert all(a[-1].time_msc < b[0].time_msc for a, b in pairwise(pieces))
    assert {count for t, count in held(server).items() if t in set(sevens)} == {1}
    assert Counter(sevens) <= held(server)


def test_the_relay_hands_on_what_is_wanted_and_what_became_of_it(
    terminal: Terminal, server: ScriptedServer, start_relay: StartRelay
) -> None:
    relay = start_relay(server.url)
    asked = wanted(-HOUR_MS)
    server.wanted = [asked]
    terminal("allow", relay.url)
    terminal("session", "EURUSD", 1, 0, 86_400)
    terminal.inputs(RelayUrl=relay.url, SendBars=False)
    terminal.start(NOW_MS)

    def is_reported() -> bool:
        terminal.run(0.25)
        return bool(reports(server))

    wait_until(is_reported, what="a report of the range")
    assert reports(server) == [asked | {"ticks": 12}]
    assert len(sessions(server)) == 1
    (filled,) = fills(server)
    assert [posted(item) for item in filled.items] == within(HISTORY, asked)
