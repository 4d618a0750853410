"""What the EA does with each answer of a server, and without one."""

import hashlib

import pytest

from tests.integration.ea.scenario import FIRST_MSC, NOW_MS, begin, posted, sent, taken, tick
from tests.integration.ea.terminal import Terminal
from tests.lying import LIES, PORTAL, lying_server
from tests.ports import free_port
from tests.scripted import Answer, ScriptedServer, scripted_server

TICKS = [tick(ms) for ms in range(0, 20_000, 50)]


@pytest.fixture
def terminal(terminal: Terminal) -> Terminal:
    terminal.symbol("EURUSD")
    terminal.ticks("EURUSD", TICKS)
    return terminal


def statuses(server: ScriptedServer) -> list[int]:
    return [request.status for request in server.requests]


def test_the_account_is_named_without_its_number(terminal: Terminal, server: ScriptedServer) -> None:
    begin(terminal, server)
    terminal.run(20)
    headers = server.requests[0].headers
    account = hashlib.sha256(b"Broker-Demo 12345").hexdigest()[:12]
    assert f"; Account:{account};" in headers["User-Agent"]
    assert headers["X-Trace-Id"].startswith(f"ea-{account}-")
    assert "12345" not in str(headers)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured_and_the_same_request_sent_again(
    terminal: Terminal, server: ScriptedServer, status: int
) -> None:
    server.answers = [Answer(status, {"error": "later"}, {"Retry-After": "7"})]
    begin(terminal, server)
    terminal.run(11)
    assert statuses(server) == [status]
    terminal.run(5)
    assert statuses(server) == [status]
    terminal.run(2)
    assert statuses(server)[:2] == [status, 200]
    assert server.requests[1].body == server.requests[0].body
    terminal.run_until_sent(len(TICKS))
    assert sent(server) == TICKS


@pytest.mark.parametrize(
    "status", [500, 429, *(pytest.param(status, marks=pytest.mark.full) for status in (502, 503, 408))]
)
def test_without_retry_after_the_waits_grow(terminal: Terminal, server: ScriptedServer, status: int) -> None:
    server.answers = [Answer(status) for _ in range(100)]
    begin(terminal, server)
    terminal.run(310)
    # Ten seconds without ticks, then 1, 2, 4 … 30 s with up to half of each left to chance: at least 300 / 30 tries, at
    # most 300 / 15 and the first four.
    assert 10 <= len(server.requests) <= 25
    assert all(request.body == server.requests[0].body for request in server.requests)
    server.answers.clear()
    terminal.run_until_sent(len(TICKS))
    assert sent(server) == TICKS


@pytest.mark.parametrize("most_items", [1, 7, 100])
def test_a_request_that_is_too_large_is_split_between_milliseconds(
    terminal: Terminal, server: ScriptedServer, most_items: int
) -> None:
    terminal.symbol("GBPUSD")
    threes = [tick(ms, 1.3) for ms in range(0, 3_000, 100) for _ in range(3)]
    terminal.ticks("GBPUSD", threes)
    server.most_items = most_items
    begin(terminal, server)
    terminal.run_until_sent(len(TICKS) + len(threes))
    assert sent(server) == TICKS
    # Split into single ticks, three requests are alike.
    assert taken(server, "GBPUSD") == threes
    if most_items >= 3:
        times = [
            {item["time_msc"] for item in request.items if item["symbol"] == "GBPUSD"}
            for request in server.requests
            if request.status == 200
        ]
        assert sum(map(len, times)) == 30
    # It has learnt: later requests are small enough from the start, but for a try now and then.
    assert statuses(server).count(413) < len(server.requests) / 10 + 5


def test_one_item_that_is_too_large_does_not_stop_the_others(terminal: Terminal, server: ScriptedServer) -> None:
    server.most_items = 0
    begin(terminal, server, MaxTicks=4)
    terminal.run(12)
    assert terminal.sent == 0
    server.most_items = 1_000
    terminal.run(30)
    assert "items refused" in terminal.status()
    assert 0 < terminal.sent < len(TICKS)
    assert sent(server) == TICKS[-terminal.sent :]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_said_with_a_cure_and_loses_nothing(
    terminal: Terminal, server: ScriptedServer, status: int
) -> None:
    server.answers = [Answer(status, {"error": "send a valid key", "code": "UNAUTHORIZED"}) for _ in range(100)]
    begin(terminal, server, ApiKey="wrong")
    terminal.run(120)
    assert 3 <= len(server.requests) <= 15
    assert "ApiKey" in terminal.status()
    assert sum("send a valid key" in line for line in terminal.log) == 2  # the log and the alert
    # Set right on the server: nobody touches the EA.
    server.answers.clear()
    terminal.run_until_sent(len(TICKS))
    assert sent(server) == TICKS
    assert "ApiKey" not in terminal.status()


def test_a_key_that_is_refused_once_raises_no_alert(terminal: Terminal, server: ScriptedServer) -> None:
    server.answers = [Answer(401, {"error": "send a valid key", "code": "UNAUTHORIZED"})]
    begin(terminal, server)
    terminal.run_until_sent(len(TICKS))
    assert sent(server) == TICKS
    assert sum("valid key" in line for line in terminal.log) == 1


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_a_lie_confirms_no_tick(terminal: Terminal, lie: str) -> None:
    with lying_server() as lying:
        lying.lies = [LIES[lie]] * 2
        begin(terminal, lying, TimeoutMs=1_000)
        terminal.run_until_sent(len(TICKS))
        assert [posted(item) for item in lying.taken] == TICKS
        assert lying.lies == []


def test_a_login_page_shows_on_the_chart(terminal: Terminal) -> None:
    with lying_server() as lying:
        lying.lies = [PORTAL] * 1_000
        begin(terminal, lying)
        terminal.run(60)
        assert "login page" in terminal.status()
        assert terminal.sent == 0
        assert lying.requests > 3


def test_what_can_never_be_used_does_not_stop_the_rest(terminal: Terminal, server: ScriptedServer) -> None:
    server.answers = [
        Answer(400, {"error": "no item can be used", "code": "VALIDATION_ERROR", "details": []}),
        Answer(207, {"ok": True, "errors": 2, "details": [{"index": 0, "field": "symbol", "message": "odd"}]}),
    ]
    begin(terminal, server)
    terminal.run(60)
    first, second = len(server.requests[0].items), len(server.requests[1].items)
    assert f"{first + 2} items refused" in terminal.status()
    assert terminal.sent == len(TICKS) - first
    assert sent(server) == TICKS[first:]
    assert second > 2
    assert any("symbol: odd" in line for line in terminal.log)


def test_a_bad_request_of_something_that_is_no_tickpipe_is_not_final(
    terminal: Terminal, server: ScriptedServer
) -> None:
    server.answers = [Answer(400, {"message": "a proxy's own"})]
    begin(terminal, server)
    terminal.run_until_sent(len(TICKS))
    assert sent(server) == TICKS


def test_a_wrong_path_is_said_and_tried_now_and_then(terminal: Terminal, server: ScriptedServer) -> None:
    server.missing = {"/ingest/tick"}
    begin(terminal, server)
    terminal.run(70)
    assert 5 <= len(server.requests) <= 7
    assert "no Tickpipe" in terminal.status()
    server.missing.clear()
    terminal.run_until_sent(len(TICKS))
    assert sent(server) == TICKS


def test_a_url_with_a_path_is_understood(terminal: Terminal, server: ScriptedServer) -> None:
    begin(terminal, server, RelayUrl=f" {server.url}/ingest/tick ")
    terminal.run_until_sent(len(TICKS))
    assert {request.path for request in server.requests} == {"/ingest/tick"}


def test_a_url_that_metatrader_does_not_allow_gets_a_hint(terminal: Terminal, server: ScriptedServer) -> None:
    begin(terminal, server)
    terminal("disallow")
    terminal.run(60)
    assert "Allow WebRequest for listed URL" in terminal.status()
    assert sum("4014" in line for line in terminal.log) == 1
    terminal("allow", server.url)
    terminal.run_until_sent(len(TICKS))
    assert sent(server) == TICKS
    assert "4014" not in terminal.status()


def test_the_server_is_used_while_the_relay_is_away(terminal: Terminal) -> None:
    port = free_port()
    with scripted_server() as server:
        terminal("allow", "http://127.0.0.1")
        begin(terminal, server, RelayUrl=f"http://127.0.0.1:{port}", ServerUrl=server.url)
        terminal.run_until_sent(len(TICKS))
        assert sent(server) == TICKS
        # Nobody listens there, and the EA says so.
        assert f"no answer from http://127.0.0.1:{port}" in terminal.status()


def test_the_relay_is_preferred(terminal: Terminal) -> None:
    with scripted_server() as relay, scripted_server() as server:
        terminal("allow", "http://127.0.0.1")
        begin(terminal, relay, ServerUrl=server.url)
        terminal.run_until_sent(len(TICKS))
        assert sent(relay) == TICKS
        assert server.requests == []


def test_a_silent_server_costs_no_more_than_the_time_out(terminal: Terminal, server: ScriptedServer) -> None:
    server.held.set()
    begin(terminal, server, TimeoutMs=1_000)
    terminal("now", FIRST_MSC)
    longest_ms = terminal.run(10)
    # poll() may wake a moment late.
    assert 900 <= longest_ms < 1_500
    server.held.clear()
    server.released.set()
    terminal.run_until_sent(len(TICKS))
    # The requests that got no answer were taken all the same; each is the same as the one that was answered.
    bodies = [request.body for request in server.requests]
    assert len(bodies) > len({str(body) for body in bodies})
    once = list(dict.fromkeys(str(body) for body in bodies))
    assert [str(body) for body in bodies] == sorted((str(body) for body in bodies), key=once.index)
    assert list(dict.fromkeys(sent(server))) == TICKS


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ({"RelayUrl": "", "ServerUrl": ""}, "Nowhere to send to"),
        ({"TimeoutMs": 10}, "TimeoutMs must be from 500 to 2500"),
        ({"RingMegabytes": 0}, "RingMegabytes must be"),
        ({"FirstHours": 169}, "FirstHours must be from 0 to 168"),
    ],
)
def test_inputs_that_cannot_be_used_are_named(terminal: Terminal, inputs: dict[str, object], word: str) -> None:
    terminal.inputs(**inputs)
    terminal("now", NOW_MS)
    assert terminal("init") == "32767"
    assert word in "".join(terminal.log)
