"""Every tick once and in order, whatever CopyTicks does."""

from collections import Counter

import pytest

from marketdata.tick import Tick
from tests.days import eurusd_ticks
from tests.integration.ea.conftest import StartTerminal
from tests.integration.ea.scenario import FIRST_MSC, NOW_MS, begin, held, sent, tick
from tests.integration.ea.terminal import Terminal
from tests.scripted import ScriptedServer


def test_an_hour_of_ticks_arrives_exactly(terminal: Terminal, server: ScriptedServer) -> None:
    ticks = [t for t in eurusd_ticks() if FIRST_MSC <= t.time_msc < FIRST_MSC + 3_600_000]
    terminal.symbol("EURUSD")
    terminal.ticks("EURUSD", ticks)
    begin(terminal, server)
    terminal.run(3_620, step_ms=5_000)
    assert sent(server) == ticks
    assert terminal.sent == len(ticks)


def test_a_body_is_plain_utf8_json_with_what_the_server_needs(terminal: Terminal, server: ScriptedServer) -> None:
    terminal.symbol("PETR4", digits=2, point=0.01, mode="last")
    terminal.ticks("PETR4", [tick(0, 27.5, last=27.51, volume=300.0)])
    terminal("offset", -10_800)
    terminal("now", NOW_MS)
    begin(terminal, server, ApiKey="the key", Source="auto")
    # 7:00:10 on the broker's clock is 10:00:10 UTC.
    terminal("now", FIRST_MSC + 10_800_000)
    terminal.run(3)
    (request,) = server.requests
    assert request.body == {
        "utc_offset_s": -10_800,
        "ticks": [
            {
                "time_msc": FIRST_MSC, "symbol": "PETR4", "bid": 27.5, "ask": 27.5001, "last": 27.51,
                "volume_real": 300, "flags": 6, "digits": 2, "point": 0.01, "mode": "last",
            }
        ],
    }  # fmt: skip
    assert request.headers["X-API-Key"] == "the key"
    assert request.headers["X-Source"] == "Broker-Demo"
    assert request.headers["User-Agent"].startswith("DataCollectorPRO/")


def test_the_newest_millisecond_waits_for_its_brothers(terminal: Terminal, server: ScriptedServer) -> None:
    terminal.symbol("EURUSD")
    ticks = [tick(0), tick(0, 1.2), tick(0, 1.3)]
    terminal.ticks("EURUSD", ticks[:1])
    terminal.ticks("EURUSD", ticks[1:], known_ms=FIRST_MSC + 500)
    begin(terminal, server)
    terminal.run(30)
    # One request: the first was not sent alone although the EA saw it alone.
    assert [len(request.items) for request in server.requests] == [3]
    assert sent(server) == ticks


def test_a_tick_that_joins_a_millisecond_that_was_sent_is_not_lost(terminal: Terminal, server: ScriptedServer) -> None:
    terminal.symbol("EURUSD")
    # The second equals the first in every field, and so does the third, which comes later still.
    terminal.ticks("EURUSD", [tick(-20), tick(0)])
    terminal.ticks("EURUSD", [tick(0)], known_ms=FIRST_MSC + 5_000)
    terminal.ticks("EURUSD", [tick(0)], known_ms=FIRST_MSC + 300_000)
    begin(terminal, server)
    terminal.run(200)
    assert held(server) == Counter([tick(-20), tick(0), tick(0)])
    terminal.run(900)
    assert held(server) == Counter([tick(-20), tick(0), tick(0), tick(0)])


def test_equal_ticks_of_one_millisecond_stay_together_over_request_borders(
    terminal: Terminal, server: ScriptedServer
) -> None:
    terminal.symbol("EURUSD")
    # 40 milliseconds of 1 to 13 equal ticks each; a reading takes 5.
    ticks = [tick(ms) for ms in range(40) for _ in range(1 + ms % 13)]
    terminal.ticks("EURUSD", ticks)
    begin(terminal, server, MaxTicks=5)
    terminal.run(60)
    assert sent(server) == ticks
    times = [{item["time_msc"] for item in request.items} for request in server.requests]
    assert sum(map(len, times)) == len(set().union(*times)) == 40


def test_symbols_share_requests_and_none_starves(terminal: Terminal, server: ScriptedServer) -> None:
    busy = [tick(ms) for ms in range(0, 20_000, 2)]
    quiet = [tick(ms, 0.7) for ms in range(0, 20_000, 1_000)]
    for name, ticks in (("BUSY", busy), ("QUIET", quiet)):
        terminal.symbol(name)
        terminal.ticks(name, ticks)
    begin(terminal, server, MaxTicks=100)
    terminal.run(60)
    assert sent(server, "BUSY") == busy
    assert sent(server, "QUIET") == quiet
    assert any(len({item["symbol"] for item in request.items}) == 2 for request in server.requests)


@pytest.mark.parametrize(
    "from_msc",
    [
        None,  # CopyTicks answers -1
        FIRST_MSC + 60_000,  # CopyTicks gives the newest ticks and says that it timed out: there is a hole
    ],
)
def test_nothing_is_lost_while_the_terminal_fetches_history(
    terminal: Terminal, server: ScriptedServer, from_msc: int | None
) -> None:
    terminal.symbol("EURUSD")
    ticks = [tick(ms) for ms in range(0, 120_000, 100)]
    terminal.ticks("EURUSD", ticks)
    begin(terminal, server)
    terminal.waits_for_history("EURUSD", calls=3, from_msc=from_msc)
    terminal.run(10)
    assert "EURUSD: its history is on its way (4403)" in terminal.status()
    terminal.run_until_sent(len(ticks))
    assert sent(server) == ticks
    assert "on its way" not in terminal.status()


def test_prices_keep_every_bit(terminal: Terminal, server: ScriptedServer) -> None:
    terminal.symbol("EURUSD")
    # Not what five digits can say.
    ticks = [tick(0, 1.1 + 2**-40), tick(1, 0.1 + 0.2), tick(2, 1.14455)]
    terminal.ticks("EURUSD", ticks)
    begin(terminal, server)
    terminal.run(15)
    assert sent(server) == ticks


def test_ticks_before_the_first_start_are_not_sent_unless_asked(terminal: Terminal, server: ScriptedServer) -> None:
    terminal.symbol("EURUSD")
    before = [tick(-20_000 - hour * 3_600_000) for hour in range(3)][::-1]
    ticks = [tick(0), tick(1)]
    terminal.ticks("EURUSD", before + ticks)
    begin(terminal, server, FirstHours=2)
    terminal.run(20)
    assert sent(server) == before[1:] + ticks


def test_named_symbols_only(terminal: Terminal, server: ScriptedServer) -> None:
    for name in ("EURUSD", "GBPUSD", "USDJPY"):
        terminal.symbol(name)
        terminal.ticks(name, [tick(0)])
    begin(terminal, server, Symbols="EURUSD, USDJPY,NOSUCH")
    terminal.run(60)
    assert {item["symbol"] for item in server.taken} == {"EURUSD", "USDJPY"}
    assert sum("NOSUCH" in line for line in terminal.log) == 1


def test_a_terminal_that_does_not_know_its_broker_yet_waits(terminal: Terminal, server: ScriptedServer) -> None:
    terminal.symbol("EURUSD")
    terminal.ticks("EURUSD", [tick(0), tick(1)])
    terminal("forget-server")
    begin(terminal, server, Source="auto")
    terminal.run(5)
    assert not (terminal.common / "DataCollectorPRO").exists()
    terminal("server", "Broker-Demo")
    terminal.run(15)
    assert {request.headers["X-Source"] for request in server.requests} == {"Broker-Demo"}
    assert sent(server) == [tick(0), tick(1)]


def test_nothing_is_read_while_the_terminal_is_offline(terminal: Terminal, server: ScriptedServer) -> None:
    terminal.symbol("EURUSD")
    ticks = [tick(ms) for ms in range(0, 60_000, 500)]
    terminal.ticks("EURUSD", ticks)
    begin(terminal, server)
    terminal.run(30)
    terminal("connected", 0)
    had = len(sent(server))
    terminal.run(30)
    assert len(sent(server)) == had
    terminal("connected", 1)
    terminal.run(30)
    assert sent(server) == ticks


@pytest.mark.parametrize(
    ("inputs", "offset_s"),
    [
        ({}, 10_800),  # the terminal's clock
        ({"Clock": 1}, None),  # the server knows
        ({"Clock": 2, "ClockMinutes": -150}, -9_000),
    ],
)
def test_the_offset_comes_from_where_the_user_says(
    terminal: Terminal, server: ScriptedServer, inputs: dict[str, object], offset_s: int | None
) -> None:
    terminal.symbol("EURUSD")
    # Three hours ahead by a PC whose clock is four minutes slow.
    terminal("offset", 10_800 + 240)
    terminal.ticks("EURUSD", [Tick(FIRST_MSC + 11_040_000, 1.1, 1.2, 0.0, 0.0, 6)])
    begin(terminal, server, **inputs)
    terminal.run(15)
    assert [request.body.get("utc_offset_s") for request in server.requests] == [offset_s]


def test_a_day_of_bars_of_many_symbols_goes_in_requests_of_a_size(terminal: Terminal, server: ScriptedServer) -> None:
    minutes = [tick(minute * 60_000) for minute in range(600)]
    names = [f"S{n}" for n in range(20)]
    for name in names:
        terminal.symbol(name)
        terminal.ticks(name, minutes)
    terminal("now", NOW_MS + 36_100_000)
    begin(terminal, server, SendBars=True, FirstHours=11)
    terminal.run(20)
    bars = [request.items for request in server.requests if request.path == "/ingest"]
    assert max(map(len, bars)) <= 6_500
    found = [(bar["symbol"], bar["time_msc"]) for items in bars for bar in items]
    # All but the newest of each, which is not closed.
    assert sorted(found) == sorted((name, NOW_MS + minute * 60_000) for name in names for minute in range(599))


def test_closed_bars_are_sent_once(terminal: Terminal, server: ScriptedServer) -> None:
    terminal.symbol("EURUSD")
    ticks = [t for t in eurusd_ticks() if NOW_MS <= t.time_msc < NOW_MS + 300_000]
    terminal.ticks("EURUSD", ticks)
    begin(terminal, server, SendBars=True)
    terminal.run(330)
    bars = [item for request in server.requests if request.path == "/ingest" for item in request.items]
    # The fifth minute is not closed for the terminal: no tick came after it.
    assert [bar["time_msc"] for bar in bars] == [NOW_MS + minute * 60_000 for minute in range(4)]
    for bar in bars:
        of_minute = [t.bid for t in ticks if bar["time_msc"] <= t.time_msc < bar["time_msc"] + 60_000]
        assert (bar["open"], bar["high"], bar["low"], bar["close"], bar["tick_volume"]) == (
            of_minute[0], max(of_minute), min(of_minute), of_minute[-1], len(of_minute),
        )  # fmt: skip
        assert bar["timeframe"] == "M1"


def test_bars_go_on_after_a_weekend(terminal: Terminal, server: ScriptedServer) -> None:
    monday_ms = 49 * 3_600_000
    ticks = [tick(begin_ms + minute * 60_000) for begin_ms in (0, monday_ms) for minute in range(4)]
    terminal.symbol("EURUSD")
    terminal.ticks("EURUSD", ticks)
    begin(terminal, server, SendBars=True)
    terminal.run(240, step_ms=1_000)
    terminal("now", NOW_MS + monday_ms)
    terminal.run(300, step_ms=1_000)
    bars = [item["time_msc"] for request in server.requests if request.path == "/ingest" for item in request.items]
    assert bars == [t.time_msc // 60_000 * 60_000 for t in ticks][:-1]


#: When a broker's clock is put back from 04:00 to 03:00, or on from 03:00 to 04:00 (UTC epoch milliseconds).
CHANGE_MS = 1_761_440_400_000
SUMMER_S, WINTER_S = 10_800, 7_200
BEFORE = [*range(-590, 0, 10), -0.3, -0.1, -0.1]
AFTER = [0.2, 0.2, *range(5, 3_590, 10), 3_599.9, 3_600.5, 3_700]


def at_the_change(terminal: Terminal, url: str, former_s: int, latter_s: int) -> None:
    """A terminal that gets ticks so many seconds before and after the change, each at its moment."""
    terminal.symbol("BTCUSD")
    for seconds, offset_s in ((BEFORE, former_s), (AFTER, latter_s)):
        for second in seconds:
            at_ms = CHANGE_MS + round(second * 1000)
            one = Tick(at_ms + offset_s * 1000, 1.1 + second / 1e6, 1.2, 0.0, 0.0, 6)
            terminal.ticks("BTCUSD", [one], known_ms=at_ms)
    terminal("allow", url)
    # On a busy machine too the program looks four times in the second of the change.
    terminal("answer-takes", 5)
    terminal.inputs(RelayUrl=url)


def in_utc(server: ScriptedServer, path: str) -> list[float]:
    """When the ticks or bars that the server has were, in seconds from the change."""
    return [
        (item["time_msc"] - request.body["utc_offset_s"] * 1000 - CHANGE_MS) / 1000
        for request in server.requests
        if request.path == path and request.status < 300
        for item in request.items
    ]


@pytest.mark.parametrize("restart_after", [None, 1, 1_200])
@pytest.mark.parametrize(("former_s", "latter_s"), [(SUMMER_S, WINTER_S), (WINTER_S, SUMMER_S)])
def test_when_the_brokers_clock_changes_each_tick_is_sent_once_at_its_moment(
    start_terminal: StartTerminal, server: ScriptedServer, former_s: int, latter_s: int, restart_after: int | None
) -> None:
    terminal = start_terminal()
    at_the_change(terminal, server.url, former_s, latter_s)
    terminal("offset", former_s)
    terminal.start(CHANGE_MS - 600_000)

    terminal.run(600, step_ms=500)
    terminal("offset", latter_s)
    terminal.run(restart_after or 60, step_ms=500)
    if restart_after is not None:
        terminal("deinit")
        terminal = start_terminal()
        at_the_change(terminal, server.url, former_s, latter_s)
        terminal("offset", latter_s)
        terminal.start(CHANGE_MS + restart_after * 1_000)
    terminal.run(3_800, step_ms=5_000)

    assert in_utc(server, "/ingest/tick") == [*BEFORE, *AFTER]
    bars = in_utc(server, "/ingest")
    assert bars == sorted(set(bars))
    # In the second pass the terminal has no bar of its own for minutes that it had a bar of in the first.
    own = {-600 + 60 * n for n in range(10)} | {60 * n for n in range(61)}
    assert set(bars) <= own if former_s == SUMMER_S else set(bars) == own
