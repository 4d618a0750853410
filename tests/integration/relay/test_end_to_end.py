"""EA → relay → producer → Kafka → stream app → sink: the table equals the fold of what the EA posted."""

import asyncio

import psycopg

from marketdata.tick import Frame, Tick, period_of
from runtime.settings import Settings
from tests import oracle
from tests.days import eurusd_ticks
from tests.integration.relay.conftest import StartRelay
from tests.services import running
from tests.waiting import eventually

COUNT = 5_000


async def test_ticks_through_a_relay_that_is_killed_equal_their_fold(
    settings: Settings, start_relay: StartRelay
) -> None:
    ticks = eurusd_ticks()[:COUNT]
    items = [
        {"ts_msc": t.time_msc, "symbol": "EURUSD", "bid": t.bid, "ask": t.ask, "last": 0.0, "flags": 6, "point": 1e-5}
        for t in ticks
    ]
    with running(settings, "producer", "stream_app", "sink") as (producer, _, _):
        relay = start_relay(producer.url)
        for start in range(0, COUNT, 50):
            body = {"ticks": items[start : start + 50]}
            answer = await asyncio.to_thread(relay.post, body)
            assert answer.status_code == 200
            if start == COUNT // 2:
                relay.kill()
                await asyncio.to_thread(relay.start)
        await asyncio.to_thread(relay.wait_forwarded)

        expected = expected_rows(ticks_as_one_frame(ticks))

        async def rows() -> dict[int, tuple[float, float, float, float, int]]:
            return await asyncio.to_thread(stored_rows, settings)

        async def complete() -> bool:
            return await rows() == expected

        await eventually(complete, what="the fold of the ticks")


def ticks_as_one_frame(ticks: list[Tick]) -> list[tuple[int, Frame]]:
    frame = Frame(
        v=1, source="default", symbol="EURUSD", mode="bid", point=1e-5, request="r", received=0, ticks=ticks
    )  # fmt: skip
    return [(0, frame)]


def expected_rows(log: list[tuple[int, Frame]]) -> dict[int, tuple[float, float, float, float, int]]:
    found = {}
    for minute in {period_of(tick.time_msc) for tick in log[0][1].ticks}:
        candle = oracle.fold(log, "default", "EURUSD", minute, ((0, 0, 0),))
        assert candle is not None
        found[minute] = (candle.open, candle.high, candle.low, candle.close, candle.volume)
    return found


def stored_rows(settings: Settings) -> dict[int, tuple[float, float, float, float, int]]:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        found = connection.execute(
            "SELECT (extract(epoch FROM ts) * 1000)::bigint, open, high, low, close, volume FROM market_data"
            " WHERE symbol = 'EURUSD' AND timeframe = 'M1'"
        ).fetchall()
    return {row[0]: row[1:] for row in found}
