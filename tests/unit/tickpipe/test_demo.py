"""The simulated EA: a plausible market, and ticks that survive a producer that is away."""

from itertools import pairwise

import msgspec

from marketdata.contract.tick import PostedTick
from runtime.exchange import Connection
from tests.scripted import Answer, ScriptedServer
from tickpipe.demo import INSTRUMENTS, ExpertAdvisor, RandomWalk, send_history, user_agent

START = 1_760_926_800_000
HOUR_MS = 3_600_000


def walks(seed: int = 1) -> list[RandomWalk]:
    return [RandomWalk(instrument, seed, START) for instrument in INSTRUMENTS]


def test_same_seed_gives_the_same_walk() -> None:
    once, again, other = (list(walks(seed)[0].until(START + HOUR_MS)) for seed in (7, 7, 8))

    assert once == again
    assert once != other


def test_walk_looks_like_a_market() -> None:
    for walk in walks():
        ticks = list(walk.until(START + HOUR_MS))

        assert 3_600 < len(ticks) < 5 * 3_600
        assert all(tick.bid < tick.ask for tick in ticks)
        assert all(later.time_msc > earlier.time_msc for earlier, later in pairwise(ticks))
        assert max(tick.bid for tick in ticks) / min(tick.bid for tick in ticks) < 1.02
        assert len({round(tick.ask - tick.bid, 5) for tick in ticks}) > 3
        assert all(tick.flags in (2, 4, 6) for tick in ticks)


def test_unanswered_ticks_are_sent_again_with_newer_ones_appended(producer: ScriptedServer) -> None:
    producer.answers = [Answer(503, {"error": "no Kafka"}, {"Retry-After": "1"})]
    with Connection(producer.url, {"User-Agent": user_agent(), "X-API-Key": "k"}) as client:
        ea = ExpertAdvisor(client, producer.url, walks())
        ea.collect(START + 1_000)
        assert not ea.flush()
        ea.collect(START + 5_000)
        assert ea.flush()

    lost, taken = producer.requests
    assert taken.items[: len(lost.items)] == lost.items
    assert len(taken.items) > len(lost.items)
    assert not ea.unsent
    assert taken.headers["User-Agent"].startswith("DataCollectorPRO/PDC/1.65 (Account:12345; Server:Simulated; ")


def test_history_of_both_symbols_comes_in_order_and_the_present_joins_it(producer: ScriptedServer) -> None:
    with Connection(producer.url, {}) as client:
        ea = ExpertAdvisor(client, producer.url, walks())
        send_history(ea, START, START + 2 * HOUR_MS + 500)
        sent = len(producer.requests)
        ea.collect(START + 2 * HOUR_MS + 60_000)
        ea.flush()

    ticks = [item for request in producer.requests for item in request.items]
    for symbol in ("EURUSD", "GBPUSD"):
        times = [tick["ts_msc"] for tick in ticks if tick["symbol"] == symbol]
        assert times == sorted(times)
        assert {time // 60_000 for time in times} == set(range(START // 60_000, (START + 2 * HOUR_MS) // 60_000 + 1))
    assert sent > 1


def test_body_is_that_of_data_collector_pro(producer: ScriptedServer) -> None:
    with Connection(producer.url, {}) as client:
        ea = ExpertAdvisor(client, producer.url, walks())
        ea.collect(START)
        ea.flush()

    tick = producer.taken[0]
    assert set(tick) == {
        "ts", "symbol", "bid", "ask", "last", "volume", "flags", "ts_msc", "digits", "point", "spread", "meta",
    }  # fmt: skip
    assert tick["point"] == 0.00001
    assert tick["spread"] == round(tick["ask"] - tick["bid"], 5)
    assert set(tick["meta"]) == {"ea", "ver", "src", "acct", "srv", "build"}


def test_ring_keeps_the_newest_ticks() -> None:
    with Connection("http://127.0.0.1:1", {}) as client:
        ea = ExpertAdvisor(client, "http://127.0.0.1:1", walks())
        ea.collect(START + 6 * HOUR_MS)
        assert not ea.flush()

    assert len(ea.unsent) == ea.unsent.maxlen
    assert isinstance(msgspec.json.encode(list(ea.unsent)), bytes)
    assert isinstance(ea.unsent[-1], PostedTick)
    assert ea.unsent[-1].ts_msc
    assert ea.unsent[-1].ts_msc > START + 6 * HOUR_MS - 60_000
