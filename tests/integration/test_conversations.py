"""What EAs send, end to end: posted straight to the producer and through a relay that dies, the table is its fold."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from marketdata.tick import Frame, Tick, period_of
from runtime.settings import Settings
from tests import oracle
from tests.conftest import API_KEY
from tests.conversations import Candles, Conversation, conversations
from tests.days import eurusd_ticks
from tests.faults.truth import read_log
from tests.integration.relay.process import RelayProcess
from tests.services import running
from tests.waiting import PATIENCE_SECONDS, eventually

ROUTES = ("straight", "relayed")

#: The source of the first ticks of a day.
MORNING_SOURCE = "Morning"


def morning() -> list[Tick]:
    return eurusd_ticks()[:5_000]


@pytest.fixture
async def producer_url(settings: Settings) -> AsyncIterator[str]:
    """The producer of a whole pipeline."""
    with running(settings, "producer", "stream_app", "sink") as (producer, _, _):
        yield producer.url


@pytest.fixture
def relay(tmp_path: Path, producer_url: str) -> Iterator[RelayProcess]:
    relay = RelayProcess(tmp_path / "ea.db", producer_url, key=API_KEY)
    relay.start()
    yield relay
    relay.close()


async def test_the_table_is_the_fold_of_what_was_sent_straight_and_through_the_relay(
    settings: Settings, producer_url: str, relay: RelayProcess
) -> None:
    for route, url in zip(ROUTES, (producer_url, relay.url), strict=True):
        for conversation in conversations():
            await speak(conversation, url, f"{conversation.name}-{route}")
    await send_a_morning_through(relay)
    await asyncio.to_thread(relay.wait_forwarded)

    expected = {
        (f"{conversation.name}-{route}", symbol, ts): candle
        for route in ROUTES
        for conversation in conversations()
        for (symbol, ts), candle in conversation.candles.items()
    }
    assert len(expected) > 60
    expected |= candles_of_the_morning()

    async def stored() -> bool:
        return await asyncio.to_thread(table, settings) == expected

    try:
        await eventually(stored, what="the candles of the conversations")
    except AssertionError:
        assert table(settings) == expected
    await assert_the_oracle_agrees(settings, expected)


async def send_a_morning_through(relay: RelayProcess) -> None:
    """An EA's ticks; in the middle the relay is killed with what it has not forwarded yet."""
    items = [
        {"ts_msc": t.time_msc, "symbol": "EURUSD", "bid": t.bid, "ask": t.ask, "last": 0.0, "flags": 6, "point": 1e-5}
        for t in morning()
    ]
    for start in range(0, len(items), 50):
        body = {"ticks": items[start : start + 50]}
        answer = await asyncio.to_thread(relay.post, body, X_Source=MORNING_SOURCE)
        assert answer.status_code == 200
        if start == len(items) // 2:
            await asyncio.to_thread(relay.kill)
            await asyncio.to_thread(relay.start)


def candles_of_the_morning() -> dict[tuple[str, str, int], tuple[float, float, float, float, int]]:
    """The fold of its ticks, by the oracle."""
    frame = Frame(
        v=1, source=MORNING_SOURCE, symbol="EURUSD", mode="bid", point=1e-5, request="r", received=0, ticks=morning()
    )  # fmt: skip
    found = {}
    for minute in {period_of(tick.time_msc) for tick in frame.ticks}:
        candle = oracle.fold([(0, frame)], MORNING_SOURCE, "EURUSD", minute, ((0, 0, 0),))
        assert candle is not None
        prices = (candle.open, candle.high, candle.low, candle.close)
        found[MORNING_SOURCE, "EURUSD", minute] = (*prices, candle.volume)
    return found


async def speak(conversation: Conversation, url: str, source: str) -> None:
    """Post the conversation for a source of its own; the first answer of a resend is as good as lost."""
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS) as client:
        for exchange in conversation.exchanges:
            headers = {**exchange.headers, "X-API-Key": API_KEY, "X-Source": source}
            answer = await client.post(exchange.path, content=exchange.body, headers=headers)
            assert answer.status_code == exchange.status, exchange.why


def table(settings: Settings) -> dict[tuple[str, str, int], tuple[float, float, float, float, int]]:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        found = connection.execute(
            "SELECT source, symbol, (extract(epoch FROM ts) * 1000)::bigint, open, high, low, close, volume"
            " FROM market_data WHERE timeframe = 'M1'"
        ).fetchall()
    return {(source, symbol, ts): tuple(values) for source, symbol, ts, *values in found}


async def assert_the_oracle_agrees(
    settings: Settings, expected: dict[tuple[str, str, int], tuple[float, float, float, float, int]]
) -> None:
    """The declared candles of ticks are the naive fold of the log; the others are bars that a broker computed."""
    folds: Candles = {}
    for frames in (await read_log(settings)).frames.values():
        for (source, symbol, ts), ranges in oracle.minutes_in(frames).items():
            fold = oracle.fold(frames, source, symbol, ts, ranges)
            assert fold is not None
            folded = (fold.open, fold.high, fold.low, fold.close, fold.volume)
            assert expected[source, symbol, ts] == folded
            folds[f"{source}/{symbol}", ts] = folded
    bars = [key for key in expected if (f"{key[0]}/{key[1]}", key[2]) not in folds]
    assert {(source, symbol) for source, symbol, _ in bars} == {(f"exporter-{route}", "US500") for route in ROUTES}
