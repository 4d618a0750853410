"""Ticks that come late, in disorder or with wrong clocks: no minute is closed for them."""

import asyncio

import pytest

from marketdata.tick import Tick
from runtime import clock
from runtime.settings import Settings
from tests.days import eurusd_ticks
from tests.faults import truth
from tests.faults.sender import START_MS, price
from tests.faults.stage import Stage
from tests.kafka_log import KafkaLog, frames_of
from tests.servers import EmbeddedServers

pytestmark = [pytest.mark.fault, pytest.mark.full, pytest.mark.long(150), pytest.mark.timeout(900)]

HOUR_MS = 3_600_000

#: Longer than a closed minute stays in memory: what comes now finds it forgotten (seconds).
FORGOTTEN_SECONDS = 12.0


def hour(first_ms: int, every_ms: int = 500) -> list[Tick]:
    """An hour of quotes, all different."""
    return [Tick(first_ms + i * every_ms, price(i), price(i) + 0.0001, 0.0, 0.0, 6) for i in range(HOUR_MS // every_ms)]


async def test_an_hours_backlog_among_live_ticks_of_others(
    settings: Settings, servers: EmbeddedServers, seed: int
) -> None:
    """One partition, so that only the symbol tells what is late."""
    lone = settings.model_copy(update={"kafka_partitions": 1})
    async with Stage(lone, servers, case="an hour of backlog", seed=seed) as stage:
        stage.trade("GBPUSD", "USDJPY", start_ms=START_MS + 24 * HOUR_MS)
        await stage.recovered()
        ticks = hour(START_MS)
        for first in range(0, len(ticks), 600):
            await stage.post("EURUSD", ticks[first : first + 600], size=60)
            await asyncio.sleep(0.5)
        stage.rounds = 1
        await stage.recovered()
        await stage.settle_and_compare()
        table = await truth.table(settings)
        assert sum(c.volume for (_, symbol, _), c in table.items() if symbol == "EURUSD") == len(ticks)


async def test_frames_shuffled_beyond_the_grace(
    settings: Settings, servers: EmbeddedServers, kafka: KafkaLog, seed: int
) -> None:
    modules = ("stream_app", "sink")
    async with Stage(settings, servers, case="frames shuffled", seed=seed, modules=modules) as stage:
        frames = [frame for symbol in ("EURUSD", "GBPUSD") for frame in frames_of(hour(START_MS), 12, symbol)]
        stage.rng.shuffle(frames)
        quarter = len(frames) // 4
        for first in range(0, len(frames), quarter):
            await kafka.send(*frames[first : first + quarter])
            stage.rounds += 1
            await asyncio.sleep(FORGOTTEN_SECONDS)
        await stage.settle_and_compare()
        table = await truth.table(settings)
        assert sum(candle.volume for candle in table.values()) == 2 * len(hour(START_MS))


async def test_late_minutes_are_refolded_in_one_pass(
    settings: Settings, servers: EmbeddedServers, kafka: KafkaLog, seed: int
) -> None:
    """Every second frame of an hour comes when its minutes are forgotten: 60 refolds, one reading of the log."""
    frames = frames_of(hour(START_MS), 10)
    modules = ("stream_app", "sink")
    async with Stage(settings, servers, case="late minutes", seed=seed, modules=modules) as stage:
        await kafka.send(*frames[::2])
        await asyncio.sleep(FORGOTTEN_SECONDS)
        late = frames[1::2]
        for first in range(0, len(late), 30):  # a candle of each touched minute is published meanwhile
            await kafka.send(*late[first : first + 30])
            await asyncio.sleep(0.3)
        stage.rounds = 60
        log = await stage.settle_and_compare()
        read = stage["sink"].metric("tickpipe_sink_refold_records_total")
        refolded = stage["sink"].metric("tickpipe_sink_rows_total", action="refolded")
    print(f"{read:.0f} records read for {refolded:.0f} refolds of a log of {log.records}")
    assert refolded >= 60
    assert log.records <= read <= 3 * log.records


async def test_clocks_ahead_and_behind(settings: Settings, servers: EmbeddedServers, seed: int) -> None:
    """Broker time sent as UTC: three hours ahead or behind; what is ahead stays open until the clock gets there."""
    now_ms = clock.now_ms()
    async with Stage(settings, servers, case="clocks ahead and behind", seed=seed) as stage:
        stage.trade("AHEAD", start_ms=now_ms + HOUR_MS)
        stage.trade("BEHIND", start_ms=now_ms - 3 * HOUR_MS)
        stage.trade("EURUSD", start_ms=now_ms - HOUR_MS)
        await asyncio.sleep(10)
        # A tick of tomorrow among those of today.
        await stage.post("GBPUSD", [Tick(now_ms + 20 * HOUR_MS, 1.0, 1.1, 0.0, 0.0, 6)])
        await stage.post("GBPUSD", eurusd_ticks()[:100])
        await asyncio.sleep(5)
        stage.rounds = 3
        await stage.recovered()
        # Lag goes to 0 although the minutes ahead are open: what nobody touches for two minutes is let go.
        await stage.settle_and_compare(within_seconds=240)
    assert stage.ended == []
