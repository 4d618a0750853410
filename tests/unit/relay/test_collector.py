"""Collecting through the MetaTrader5 package: what the terminal's history holds is what the server holds."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from marketdata.errors import SettingsError
from marketdata.tick import Tick
from relay.collector import BrokerClock, Collector
from relay.database import StoreUnavailable
from relay.forwarder import BATCH, Forwarder
from relay.pending import Pending
from relay.server import Server
from relay.store import Store
from relay.terminal import Terminal, TerminalAway, official_package
from tests.conftest import FULL
from tests.integration.ea.scenario import held
from tests.scripted import Answer, ScriptedServer, scripted_server
from tests.unit.relay.scripted_metatrader import FAIL, NO_IPC, OK, TIMED_OUT, Fault, Quoted, ScriptedPackage
from tests.waiting import PATIENCE_SECONDS

#: A Monday morning (UTC, ms), and how far the broker's clock is ahead.
NOW_MS = 1_549_238_400_000
AHEAD_MS = 7_200_000

OPEN_MS, LATEST_MS = 600_000, 1_200_000


def quote(after_ms: int, bid: float = 1.1, known_after_ms: int | None = None) -> Quoted:
    """A tick by the broker's clock, known to the terminal at once or later."""
    known_ms = NOW_MS + (after_ms if known_after_ms is None else known_after_ms)
    return Tick(NOW_MS + AHEAD_MS + after_ms, bid, bid + 0.1, 0.0, 0.0, 6), known_ms


class Desk:
    """A PC with a terminal, the relay's file and a collector."""

    def __init__(self, folder: Path, server: ScriptedServer, **options: object) -> None:
        self.package = ScriptedPackage(NOW_MS)
        self.store = Store(folder / "ea.db")
        self._server, self._options = server, {"offset": 7_200} | options
        self.start()

    def start(self) -> None:
        """Start a collector; one before is as if it was killed."""
        self.collector = Collector(
            self.store, Terminal(self.package), monotonic=lambda: self.package.now_ms / 1000,
            utc=lambda: self.package.now_ms / 1000, **self._options,  # type: ignore[arg-type]
        )  # fmt: skip

    def run(self, seconds: float, step_ms: int = 1_000) -> None:
        end_ms = self.package.now_ms + round(seconds * 1000)
        while self.package.now_ms < end_ms:
            self.package.now_ms += step_ms
            try:
                self.collector.turn()
            except (TerminalAway, StoreUnavailable) as exc:
                self.collector._say_trouble(str(exc))

    def forward(self) -> None:
        with Server(self._server.url, "key") as receiver:
            forwarder = Forwarder(self.store, receiver, Pending(self.store, limit=BATCH))
            while forwarder.step():
                pass

    def held(self, symbol: str = "EURUSD") -> Counter[Tick]:
        self.forward()
        return held(self._server, symbol)


@contextmanager
def desk_in(folder: Path, server: ScriptedServer, **options: object) -> Iterator[Desk]:
    desk = Desk(folder, server, **options)
    try:
        yield desk
    finally:
        desk.store.close()


@pytest.fixture
def desk(tmp_path: Path, server: ScriptedServer) -> Iterator[Desk]:
    with desk_in(tmp_path, server) as opened:
        opened.package.history["EURUSD"] = [quote(-60_000)]
        # It begins there.
        opened.run(0.1, 100)
        yield opened


def truth(desk: Desk, symbol: str = "EURUSD") -> Counter[Tick]:
    return Counter(tick for tick, _ in desk.package.history[symbol])


def test_a_tick_has_source_offset_and_facts_of_the_terminal(desk: Desk, server: ScriptedServer) -> None:
    desk.package.history["EURUSD"].append(quote(3_000))
    desk.run(8)
    desk.forward()
    body = server.requests[-1].body
    assert body["utc_offset_s"] == 7_200
    assert body["ticks"][-1] == {
        "time_msc": NOW_MS + AHEAD_MS + 3_000, "symbol": "EURUSD", "bid": 1.1, "ask": 1.2000000000000002, "last": 0.0,
        "volume_real": 0.0, "flags": 6, "digits": 5, "point": 1e-05, "mode": "bid",
    }  # fmt: skip
    agent = server.requests[-1].headers["User-Agent"]
    assert "Server:Broker-Demo; Account:" in agent
    assert "1234567" not in agent


def test_equal_milliseconds_are_never_parted(desk: Desk, server: ScriptedServer) -> None:
    # More in one second than one reading takes.
    desk.package.history["EURUSD"] += [quote(5_000 + n // 800) for n in range(8_000)]
    desk.run(30)
    assert desk.held() == truth(desk)
    of_requests = [ms for request in server.requests for ms in {item["time_msc"] for item in request.items}]
    assert len(of_requests) == len(set(of_requests))


def test_a_tick_that_comes_late_is_sent_and_counted(desk: Desk, server: ScriptedServer) -> None:
    live = [quote(n * 1_000) for n in range(1, 120)]
    late = [quote(n * 1_000 + 300, 1.3, known_after_ms=400_000) for n in range(10, 15)]
    desk.package.history["EURUSD"] += live + late
    desk.run(5_000, step_ms=5_000)
    assert desk.held() == truth(desk)
    assert desk.collector.collected.late == 5
    assert sum(item.get("late", False) for item in server.taken) == 5


@pytest.mark.parametrize("minute", [0, 60_000])
def test_ticks_that_join_a_minute_of_one_millisecond_count_once(desk: Desk, minute: int) -> None:
    ms = minute + 5_000
    late = [quote(ms, 1.3, known_after_ms=ms + 130_000), quote(ms, 1.4, known_after_ms=ms + 900_000)]
    # The terminal lists them in front of the one that was sent.
    desk.package.history["EURUSD"] += [quote(2_000), *late, quote(ms), quote(ms)]
    desk.run(9_000, step_ms=5_000)
    assert desk.held() == truth(desk)


def test_a_first_start_reaches_back_as_far_as_asked(tmp_path: Path, server: ScriptedServer) -> None:
    with desk_in(tmp_path, server, since_seconds=3_600.0) as desk:
        desk.package.history["EURUSD"] = [quote(-ms) for ms in (9_000_000, 3_000_000, 2_000, 0)]
        desk.run(10)
        assert desk.held() == Counter(tick for tick, _ in desk.package.history["EURUSD"][1:])


def test_symbols_are_chosen_by_wildcards_or_as_the_market_watch_shows_them(
    tmp_path: Path, server: ScriptedServer
) -> None:
    for wanted, expected in ((("EUR*", "XAU?"), 2), ((), 3), (("*",), 4), (("NONE",), 0)):
        folder = tmp_path / str(expected)
        with capture_logs() as logs, desk_in(folder, server, wanted=wanted) as desk:
            desk.package.history = {name: [quote(0)] for name in ("EURUSD", "EURJPY", "USDJPY", "BTCUSD")}
            desk.package.hidden = {"BTCUSD"}
            desk.run(60)
            assert desk.collector.collected.symbols == expected
        unknown = [line["symbol"] for line in logs if line["action"] == "collect_unknown"]
        assert unknown == [pattern for pattern in wanted if pattern in ("XAU?", "NONE")]


@pytest.mark.parametrize("trouble", ["runs", "is_connected"])
def test_a_terminal_that_is_away_is_said_once_and_loses_nothing(desk: Desk, trouble: str) -> None:
    desk.package.history["EURUSD"] += [quote(n * 700) for n in range(1, 200)]
    desk.run(30)
    with capture_logs() as logs:
        setattr(desk.package, trouble, False)
        desk.run(60)
        assert desk.collector.collected.trouble
        setattr(desk.package, trouble, True)
        desk.run(60)
    assert [line["action"] for line in logs] == ["collect_away", "collect_recovered"]
    assert desk.held() == truth(desk)


def test_a_symbol_without_ticks_is_named_and_its_neighbour_goes_on(desk: Desk) -> None:
    desk.package.history["GBPUSD"] = [quote(-60_000)]
    desk.run(31)
    desk.package.history["EURUSD"] += [quote(n * 500) for n in range(100, 280)]
    desk.package.gone = {"GBPUSD"}
    with capture_logs() as logs:
        desk.run(120)
    assert [line["action"] for line in logs] == ["collect_no_ticks"]
    assert "GBPUSD" in desk.collector.collected.waiting
    assert desk.held() == truth(desk)


def test_the_brokers_clock_is_learnt_from_quotes_that_move() -> None:
    clock = BrokerClock()
    # Quotes of an hour ago that come after a reconnection are no clock.
    for n in range(40):
        old = 3_600_000 if n % 3 else 0
        clock.note(NOW_MS + n * 500 + AHEAD_MS - old - 80, NOW_MS + n * 500, n / 2)
    assert clock.offset_seconds == 7_200
    # In autumn it goes back by an hour.
    for n in range(40, 160):
        clock.note(NOW_MS + n * 500 + AHEAD_MS - 3_600_000, NOW_MS + n * 500, n / 2)
    assert clock.offset_seconds == 3_600


def test_without_quotes_that_move_nothing_is_taken_yet(tmp_path: Path, server: ScriptedServer) -> None:
    with desk_in(tmp_path, server, offset=None) as desk:
        desk.package.history["EURUSD"] = [quote(-60_000)]
        desk.run(20)
        assert desk.collector.collected.ticks == 0
        desk.package.history["EURUSD"] += [quote(20_500 + n * 1_000) for n in range(30)]
        desk.run(60)
        assert desk.held() == truth(desk)
        assert {request.body["utc_offset_s"] for request in server.requests} == {7_200}


@pytest.mark.parametrize("step_ms", [3_600_000, -3_600_000])
def test_when_the_brokers_clock_changes_each_tick_is_sent_at_its_moment(
    tmp_path: Path, server: ScriptedServer, step_ms: int
) -> None:
    with desk_in(tmp_path, server, offset=None) as desk:
        before = [quote(n * 500) for n in range(240)]
        # Clocks change while the market is closed; late ticks of before cannot be told from others then.
        after = [
            (replace(tick, time_msc=tick.time_msc + step_ms), known_ms)
            for tick, known_ms in (quote(n * 500) for n in range(14_400, 14_700))
        ]
        desk.package.history["EURUSD"] = [quote(-60_000), *before, *after]
        desk.run(130, step_ms=500)
        desk.start()
        desk.run(7_300 - 130, step_ms=5_000)
        desk.run(200, step_ms=500)
        desk.forward()
    moments = {
        item["time_msc"] - request.body["utc_offset_s"] * 1_000
        for request in server.requests for item in request.items
    }  # fmt: skip
    assert moments - {NOW_MS - 60_000} >= {NOW_MS + n * 500 for n in (*range(20, 240), *range(14_400, 14_700))}
    assert all(moment < NOW_MS + 120_000 or moment >= NOW_MS + 7_200_000 for moment in moments)


def test_it_ends_while_it_waits_for_the_terminal(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends it within three seconds, however long the pause is in which it comes."""
    monkeypatch.setattr("relay.collector._AWAY_SECONDS", (3_600.0, 3_600.0))
    stop = threading.Event()
    desk.package.runs = False
    thread = threading.Thread(target=desk.collector.run, args=(stop,), daemon=True)
    thread.start()
    time.sleep(0.2)
    stop.set()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def test_a_missing_package_is_said_with_a_cure() -> None:
    with pytest.raises(SettingsError, match="for 64-bit Windows alone, where the kit"):
        official_package()


def market(chance: random.Random, offline: list[tuple[int, int]]) -> list[Quoted]:
    """The history of a symbol: bursts and pauses, equal ticks in one millisecond, and some that come late."""
    quoted = [quote(-3_600_000)]
    late = chance.choice([0.0, 0.02, 0.3])
    ms = 3_000
    while ms < OPEN_MS:
        ms += chance.choice([0, 1, 3, 250, 1_500, 9_000, 9_000, 40_000])
        for _ in range(chance.choice([1, 1, 2, 5])):
            known = ms + (chance.randrange(LATEST_MS) if chance.random() < late else 0)
            for begin, end in offline:
                if begin <= ms < end:
                    known = max(known, end + chance.choice([0, 0, 700, 5_000, 60_000]))
            quoted.append(quote(ms, chance.choice([1.1, 1.2]), known))
    return quoted


def misfortune(chance: random.Random, desk: Desk, server: ScriptedServer) -> None:
    package = desk.package
    happens = chance.randrange(7)
    if happens == 0:
        package.faults.extend(
            Fault(chance.choice([FAIL, TIMED_OUT, NO_IPC]), chance.choice([None, None, 0, 3, 10_000]))
            for _ in range(chance.randrange(1, 9))
        )
    elif happens == 1:
        package.faults.extend(Fault(OK, chance.choice([0, 1, 3])) for _ in range(chance.randrange(1, 9)))
    elif happens == 2:
        package.gone = set(chance.sample(sorted(package.history), 1)) if chance.random() < 0.5 else set()
    elif happens == 3:
        package.runs = not package.runs
    elif happens == 4:
        desk.start()
    elif happens == 5:
        server.most_items = chance.choice([60, 1_000_000])
    else:
        server.answers += [Answer(504) for _ in range(chance.randrange(2))]
        desk.forward()


def play(seed: int) -> None:
    chance = random.Random(seed)
    with TemporaryDirectory() as folder, scripted_server() as server, desk_in(Path(folder), server) as desk:
        begin = chance.randrange(OPEN_MS)
        offline = [(begin, begin + chance.randrange(1_000, 200_000))] if chance.random() < 0.5 else []
        desk.package.history = {f"S{n}": market(chance, offline) for n in range(chance.choice([1, 2, 3]))}
        desk.run(2)
        while desk.package.now_ms < NOW_MS + OPEN_MS:
            desk.run(chance.randrange(1, 40), chance.choice([250, 500, 1_000]))
            desk.package.is_connected = not any(a <= desk.package.now_ms - NOW_MS < b for a, b in offline)
            misfortune(chance, desk, server)
        # All is well again, until every minute was read again for the last time.
        desk.package.faults.clear()
        desk.package.gone, desk.package.runs = set(), True
        server.answers.clear()
        server.most_items = 1_000_000
        for _, end in offline:
            desk.run(max(0, NOW_MS + end - desk.package.now_ms) / 1000 + 1)
        desk.package.is_connected = True
        desk.run((LATEST_MS + 5_400_000) / 1000, step_ms=10_000)
        for symbol in desk.package.history:
            has, counts = truth(desk, symbol), desk.held(symbol)
            assert has == counts, (
                f"seed {seed}, {symbol}: lost {sorted((has - counts).elements(), key=lambda t: t.time_msc)}, "
                f"doubled {sorted((counts - has).elements(), key=lambda t: t.time_msc)}"
            )


# A smaller seed is no smaller script.
@settings(max_examples=1_000 if FULL else 3, phases=[Phase.explicit, Phase.reuse, Phase.generate], deadline=None)
@pytest.mark.timeout(3_000 if FULL else 180)
@given(seed=st.integers(0, 2**32 - 1))
# A minute of one millisecond, sent again right behind the one before it.
@example(seed=3063697468)
def test_the_server_ends_with_what_the_history_holds(seed: int) -> None:
    play(seed)
