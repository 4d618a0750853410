"""The EA against the real producer and the real relay: what is in the log equals what the broker sent."""

import asyncio
import itertools
import random
import signal
import sqlite3
from contextlib import closing
from functools import cache

import msgspec
import psycopg
import pytest

from marketdata.candle import BrokerBar
from marketdata.tick import Frame, Tick, period_of
from marketdata.wire import decode_frame
from runtime.settings import Settings
from tests import oracle
from tests.conftest import API_KEY
from tests.days import eurusd_bars, eurusd_ticks
from tests.integration.ea.conftest import StartTerminal
from tests.integration.ea.scenario import FIRST_MSC, NOW_MS
from tests.integration.ea.terminal import Terminal
from tests.integration.relay.conftest import StartRelay
from tests.kafka_log import KafkaLog
from tests.ports import free_port
from tests.services import Service, running
from tests.waiting import eventually

pytestmark = pytest.mark.long(50)

#: Broker's clock ahead of UTC, as in Athens.
OFFSET_S = 7_200

#: A share: deals by threes in a millisecond, charted by last.
DEALS = [
    Tick(FIRST_MSC + ms, 27.5, 27.52, 27.51, 100.0 * (1 + k % 2), 56) for ms in range(0, 300_000, 700) for k in range(3)
]


@cache
def ticks_of_the_day() -> list[Tick]:
    """Ten minutes of it."""
    return [t for t in eurusd_ticks() if FIRST_MSC <= t.time_msc < FIRST_MSC + 600_000]


def on_broker_clock(ticks: list[Tick]) -> list[Tick]:
    return [Tick(t.time_msc + OFFSET_S * 1000, t.bid, t.ask, t.last, t.volume, t.flags) for t in ticks]


def at_desk(terminal: Terminal, url: str, **inputs: object) -> Terminal:
    """A terminal with both symbols and its allowed URLs."""
    terminal("offset", OFFSET_S)
    terminal("allow", "http://127.0.0.1")
    terminal.symbol("EURUSD")
    terminal.ticks("EURUSD", on_broker_clock(ticks_of_the_day()))
    terminal.symbol("PETR4", digits=2, point=0.01, mode="last")
    terminal.ticks("PETR4", on_broker_clock(DEALS))
    terminal.inputs(**{"RelayUrl": url, "ApiKey": API_KEY, "SendBars": False} | inputs)
    return terminal


async def frames(kafka: KafkaLog, symbol: str) -> list[Frame]:
    """The frames of a symbol, in the order of the log."""
    found = [decode_frame(value) for _, value in await kafka.read(kafka.settings.ticks_topic)]
    return [frame for frame in found if frame.symbol == symbol]


async def logged(kafka: KafkaLog, symbol: str) -> list[Tick]:
    return [tick for frame in await frames(kafka, symbol) for tick in frame.ticks]


def candles(log: list[tuple[int, Frame]], symbol: str) -> dict[int, tuple[float, ...]]:
    """The minutes of a log by the oracle."""
    found: dict[int, tuple[float, ...]] = {}
    for minute in {period_of(t.time_msc) for _, frame in log for t in frame.ticks}:
        candle = oracle.fold(log, log[0][1].source, symbol, minute, ((0, 0, log[-1][0]),))
        assert candle is not None
        found[minute] = (candle.open, candle.high, candle.low, candle.close, candle.volume, candle.real_volume)
    return found


def of_one_frame(template: Frame, ticks: list[Tick]) -> list[tuple[int, Frame]]:
    return [(0, msgspec.structs.replace(template, ticks=ticks))]


async def assert_counts_once(kafka: KafkaLog) -> None:
    """Whatever is in the log twice, the fold makes of it the candles of the broker's ticks."""
    for symbol, ticks in (("EURUSD", ticks_of_the_day()), ("PETR4", DEALS)):
        log = list(enumerate(await frames(kafka, symbol)))
        assert {t for _, f in log for t in f.ticks} == set(ticks)
        assert candles(log, symbol) == candles(of_one_frame(log[0][1], ticks), symbol)


async def test_the_log_equals_the_brokers_ticks(kafka: KafkaLog, settings: Settings, terminal: Terminal) -> None:
    with running(settings, "producer") as (producer,):
        at_desk(terminal, producer.url, Source="auto")
        terminal.start(NOW_MS)
        terminal.run(640, step_ms=1_000)
        assert await logged(kafka, "EURUSD") == ticks_of_the_day()
        assert await logged(kafka, "PETR4") == DEALS
        assert {(f.source, f.mode, f.point) for f in await frames(kafka, "EURUSD")} == {("Broker-Demo", "bid", 1e-5)}
        assert {(f.source, f.mode, f.point) for f in await frames(kafka, "PETR4")} == {("Broker-Demo", "last", 0.01)}


async def test_bars_equal_those_of_the_day(kafka: KafkaLog, settings: Settings, terminal: Terminal) -> None:
    with running(settings, "producer") as (producer,):
        at_desk(terminal, producer.url, SendBars=True, Symbols="EURUSD", FirstHours=1)
        # Before the minute of the first tick, so that the first bar is whole.
        terminal.start(NOW_MS + 700_000)
        terminal.run(20)
    records = await kafka.read(settings.broker_candles_topic)
    bars = {bar.ts: bar for bar in (msgspec.json.decode(v, type=BrokerBar) for _, v in records if v is not None)}
    # The first and the last minute have only some of their ticks here.
    whole = range(NOW_MS + 60_000, NOW_MS + 600_000, 60_000)
    expected = eurusd_bars()
    assert {ts: (bars[ts].open, bars[ts].high, bars[ts].low, bars[ts].close) for ts in whole} == {
        ts: expected[ts] for ts in whole
    }
    assert {(bar.symbol, bar.timeframe) for bar in bars.values()} == {("EURUSD", "M1")}


async def test_through_the_relay_its_file_and_the_log_equal_the_brokers_ticks(
    kafka: KafkaLog, settings: Settings, terminal: Terminal, start_relay: StartRelay
) -> None:
    with running(settings, "producer") as (producer,):
        relay = start_relay(producer.url)
        at_desk(terminal, relay.url, ApiKey="")
        terminal.start(NOW_MS)
        terminal.run(200, step_ms=1_000)
        relay.kill()
        terminal.run(100, step_ms=1_000)
        relay.start()
        terminal.run_until_sent(len(ticks_of_the_day()) + len(DEALS), most_seconds=900)
        await asyncio.to_thread(relay.wait_forwarded)
        # The relay may have died between sending and noting that; the fold counts what it sent again once.
        await assert_counts_once(kafka)
    with closing(sqlite3.connect(relay.db)) as connection:
        rows = connection.execute(
            "SELECT ts_ms, open, high, close, volume FROM ticks WHERE symbol = 'PETR4' ORDER BY id"
        )
        assert rows.fetchall() == [(t.time_msc, t.bid, t.ask, t.last, t.volume) for t in on_broker_clock(DEALS)]


async def test_how_many_ticks_came_late_is_told_to_the_server_through_the_relay(
    settings: Settings, terminal: Terminal, start_relay: StartRelay
) -> None:
    late, live = ticks_of_the_day()[:200:10], [tick for k, tick in enumerate(ticks_of_the_day()[:200]) if k % 10]
    with running(settings, "producer") as (producer,):
        relay = start_relay(producer.url)
        at_desk(terminal, relay.url, ApiKey="")
        terminal.symbol("LATE")
        terminal.ticks("LATE", on_broker_clock(live))
        terminal.ticks("LATE", on_broker_clock(late), known_ms=FIRST_MSC + 300_000, late=True)
        terminal.start(NOW_MS)
        terminal.run(1_500, step_ms=5_000)
        await asyncio.to_thread(relay.wait_forwarded)
        assert await asyncio.to_thread(producer.metric, "tickpipe_producer_ticks_late_total") == len(late)
    assert f"{len(late)} ticks came late" in terminal.status()


@pytest.mark.full  # test_answers.py has the relay that is away
async def test_the_relay_dies_for_good_and_the_server_is_used(
    kafka: KafkaLog, settings: Settings, terminal: Terminal, start_relay: StartRelay
) -> None:
    with running(settings, "producer") as (producer,):
        relay = start_relay(producer.url)
        at_desk(terminal, relay.url, ServerUrl=producer.url)
        terminal.start(NOW_MS)
        terminal.run(200, step_ms=1_000)
        await asyncio.to_thread(relay.wait_forwarded)
        relay.kill()
        terminal.run_until_sent(len(ticks_of_the_day()) + len(DEALS), most_seconds=900)
        assert await logged(kafka, "EURUSD") == ticks_of_the_day()
        assert await logged(kafka, "PETR4") == DEALS


@pytest.mark.fault
async def test_a_request_that_relay_and_server_both_got_counts_once(
    kafka: KafkaLog, settings: Settings, terminal: Terminal, start_relay: StartRelay
) -> None:
    with running(settings, "producer") as (producer,):
        relay = start_relay(producer.url)
        at_desk(terminal, relay.url, ServerUrl=producer.url, TimeoutMs=1_000)
        terminal.start(NOW_MS)
        terminal.run(100, step_ms=1_000)
        # It takes requests into its socket and answers none; the EA gives each a second and goes to the server.
        relay.send_signal(signal.SIGSTOP)
        terminal.run(100, step_ms=1_000)
        relay.send_signal(signal.SIGCONT)
        terminal.run_until_sent(len(ticks_of_the_day()) + len(DEALS), most_seconds=900)
        await asyncio.to_thread(relay.wait_forwarded)
        await assert_counts_once(kafka)
        assert len(await logged(kafka, "EURUSD")) > len(ticks_of_the_day())


@pytest.mark.fault
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.full)])
async def test_terminal_and_producer_are_killed_in_requests_and_every_tick_counts_once(
    kafka: KafkaLog, settings: Settings, start_terminal: StartTerminal, seed: int
) -> None:
    chance = random.Random(seed)
    now_ms = NOW_MS
    with running(settings, "producer") as (producer,):
        for _ in range(6):
            terminal = at_desk(start_terminal(), producer.url, MaxTicks=200)
            terminal.start(now_ms)
            terminal.die_in_request(chance.randrange(40), seconds=1_000)
            now_ms += 60_000
            if chance.random() < 0.5:
                producer.kill()
                producer.start().wait_ready()
        terminal = at_desk(start_terminal(), producer.url)
        terminal.start(now_ms)
        terminal.run(700, step_ms=1_000)
    await assert_counts_once(kafka)
    # Some requests are in the log twice.
    assert sum(len(f.ticks) for f in await frames(kafka, "EURUSD")) > len(ticks_of_the_day())


@pytest.mark.full  # test_answers.py has every answer
async def test_a_small_body_limit_splits_requests(kafka: KafkaLog, settings: Settings, terminal: Terminal) -> None:
    small = settings.model_copy(update={"max_tick_body_bytes": 9_000})
    with running(small, "producer") as (producer,):
        at_desk(terminal, producer.url, FirstHours=1)
        terminal.start(NOW_MS + 700_000)
        terminal.run_until_sent(len(ticks_of_the_day()) + len(DEALS))
        assert await logged(kafka, "EURUSD") == ticks_of_the_day()
        assert await logged(kafka, "PETR4") == DEALS
        for frame in await frames(kafka, "PETR4"):
            assert all(len(list(same)) == 3 for _, same in itertools.groupby(t.time_msc for t in frame.ticks))
        assert producer.metric("tickpipe_producer_requests_total") > 0


@pytest.mark.full  # test_answers.py has every answer
async def test_the_rate_limit_of_a_key(kafka: KafkaLog, settings: Settings, terminal: Terminal) -> None:
    slow = settings.model_copy(update={"rate_limit_per_second": 0.5})
    with running(slow, "producer") as (producer,):
        at_desk(terminal, producer.url, FirstHours=1, MaxTicks=300)
        terminal.start(NOW_MS + 700_000)
        terminal.run(0.25)
        while terminal.sent < len(ticks_of_the_day()) + len(DEALS):
            # The producer's clock is the real one.
            terminal.run(0.25)
            await asyncio.sleep(0.05)
        assert await logged(kafka, "EURUSD") == ticks_of_the_day()
        assert await logged(kafka, "PETR4") == DEALS
        assert any("answers 429 too many requests" in line for line in terminal.log)


@pytest.mark.full  # producer/test_outage.py has what the EA is answered
async def test_kafka_is_away_and_comes_back(kafka: KafkaLog, settings: Settings, terminal: Terminal) -> None:
    lonely = settings.model_copy(update={"kafka_bootstrap": f"127.0.0.1:{free_port()}"})
    producer = Service("producer", lonely).start()
    try:
        at_desk(terminal, producer.url)
        terminal.start(NOW_MS)
        while not any("503" in line for line in terminal.log):
            terminal.run(10)
            await asyncio.sleep(0.1)
        assert terminal.sent == 0
        assert terminal.waiting > 0
    finally:
        producer.kill()
    with running(settings, "producer"):
        terminal.run_until_sent(len(ticks_of_the_day()) + len(DEALS), most_seconds=900)
        assert await logged(kafka, "EURUSD") == ticks_of_the_day()
        assert await logged(kafka, "PETR4") == DEALS


@pytest.mark.full  # test_answers.py has every answer
async def test_a_wrong_key_is_said_and_the_right_one_loses_nothing(
    kafka: KafkaLog, settings: Settings, terminal: Terminal
) -> None:
    with running(settings, "producer") as (producer,):
        at_desk(terminal, producer.url, ApiKey="not-the-key")
        terminal.start(NOW_MS)
        terminal.run(100)
        assert "the key is refused (401: send a valid key" in terminal.status()
        assert terminal.sent == 0
        terminal("deinit")
        terminal.inputs(ApiKey=API_KEY)
        assert terminal("init") == "0"
        terminal.run_until_sent(len(ticks_of_the_day()) + len(DEALS), most_seconds=900)
        assert await logged(kafka, "EURUSD") == ticks_of_the_day()
        assert await logged(kafka, "PETR4") == DEALS


async def test_every_folded_candle_equals_the_terminals_own_bar(
    settings: Settings, start_terminal: StartTerminal, start_relay: StartRelay
) -> None:
    with running(settings, "producer", "stream_app", "sink") as (producer, _, _):
        relay = start_relay(producer.url)
        first = at_desk(start_terminal(), relay.url, SendBars=True, Symbols="EURUSD")
        first.start(NOW_MS)
        first.die_in_request(30, seconds=600)
        relay.kill()
        relay.start()
        second = at_desk(start_terminal(), relay.url, SendBars=True, Symbols="EURUSD")
        second.start(NOW_MS + 700_000)
        second.run(20)

        async def rows() -> list[tuple[object, ...]]:
            return await asyncio.to_thread(fidelity, settings)

        async def complete() -> bool:
            return len(await rows()) == 10

        # Ten minutes from 00:00:10 on; the eleventh is not closed for the terminal.
        await eventually(complete, what="ten minutes with a bar and a candle")

        async def equal() -> bool:
            return all(row[1] for row in await rows())

        await eventually(equal, what="candles that equal the broker's bars")


def fidelity(settings: Settings) -> list[tuple[object, ...]]:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        return connection.execute("SELECT ts, equal FROM bar_fidelity ORDER BY ts").fetchall()
