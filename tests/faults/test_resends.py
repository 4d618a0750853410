"""Ticks that are sent again: overlapping batches, a day twice, trades that equal each other to the last bit."""

import asyncio

import pytest

from marketdata.tick import Tick
from runtime.settings import Settings
from tests.days import EURUSD_COUNT, eurusd_bars, eurusd_ticks
from tests.faults import truth
from tests.faults.sender import START_MS, price
from tests.faults.stage import Stage
from tests.servers import EmbeddedServers

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.timeout(1200)]


async def test_overlapping_resends_count_once(settings: Settings, servers: EmbeddedServers, seed: int) -> None:
    """The answer was lost, so the old batch comes again with newer ticks behind it, over and over."""
    ticks = [Tick(START_MS + i * 150, price(i), price(i) + 0.0001, 0.0, 0.0, 6) for i in range(20_000)]
    async with Stage(settings, servers, case="overlapping resends", seed=seed) as stage:
        delivered = oldest = 0
        while oldest < len(ticks):
            delivered = min(len(ticks), delivered + stage.rng.randint(1, 60))
            await stage.post("EURUSD", ticks[oldest:delivered], size=10_000)
            if delivered == len(ticks) or stage.rng.random() < 0.6:
                oldest = delivered
            else:
                stage.rounds += 1
        await stage.settle_and_compare()
        assert await volume(settings, "EURUSD") == len(ticks)
    assert stage.rounds > 50


async def test_the_day_sent_twice_under_kills(
    settings: Settings, servers: EmbeddedServers, seed: int, rounds: int
) -> None:
    async with Stage(settings, servers, case="a day sent twice, workers killed", seed=seed) as stage:
        for _ in range(2):
            posting = asyncio.create_task(stage.post("EURUSD", eurusd_ticks(), size=200))
            for _ in range(rounds):
                await asyncio.sleep(stage.rng.uniform(0.5, 3))
                await stage.kill(stage.rng.choice(["stream_app", "sink"]))
            await posting
        await stage.settle_and_compare(within_seconds=300)
        assert await volume(settings, "EURUSD") == EURUSD_COUNT
        rows = await truth.table(settings)
        assert {ts: (c.open, c.high, c.low, c.close) for (_, _, ts), c in rows.items()} == eurusd_bars()


async def test_equal_trades_of_one_millisecond_are_as_many_as_they_were(
    settings: Settings, servers: EmbeddedServers, seed: int
) -> None:
    """An exchange fills one order against 13 equal ones: 13 trades, and 13 when they are sent again."""
    equal = [Tick(START_MS + 500, 38.50, 38.52, 38.51, 100.0, 312)] * 13
    before = Tick(START_MS + 400, 38.50, 38.52, 38.50, 200.0, 312)
    after = Tick(START_MS + 900, 38.51, 38.53, 38.52, 300.0, 312)
    batches = {
        "WHOLE": [[before, *equal, after]],
        # The EA's buffer was full in the middle of the millisecond.
        "SPLIT": [[before, *equal[:7]], [*equal[7:], after]],
        "ALONE": [equal],
    }
    exchange = settings.model_copy(update={"last_mode_symbols": list(batches)})
    async with Stage(exchange, servers, case="13 equal trades", seed=seed) as stage:
        for again in range(3):
            for symbol, parts in batches.items():
                for part in parts:
                    await stage.post(symbol, part)
            stage.rounds += 1
            if again == 1:
                await asyncio.sleep(12)  # the minute is over and forgotten: now the sink folds it again
        await stage.settle_and_compare()
        volumes = {symbol: await volume(settings, symbol) for symbol in batches}
    assert volumes == {"WHOLE": 15, "SPLIT": 15, "ALONE": 13}


async def volume(settings: Settings, symbol: str) -> int:
    """Ticks of a symbol that the table counts."""
    return sum(candle.volume for (_, s, _), candle in (await truth.table(settings)).items() if s == symbol)
