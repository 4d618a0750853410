"""What the hub hands to streams: by offsets, never by arrival, and never without a bound."""

import asyncio

import pytest

from dashboard.hub import MAX_PENDING, Hub, Subscription
from marketdata.candle import Candle
from marketdata.offsets import Ranges

MINUTE = 60_000


def candle(
    ts: int = 0, volume: int = 1, offsets: Ranges = ((0, 0, 0),), *, symbol: str = "EURUSD", log: str = "log/ticks",
    closed: bool = False,
) -> Candle:  # fmt: skip
    return Candle(
        source="S", symbol=symbol, ts=ts, open=1.0, high=1.0, low=1.0, close=1.0, volume=volume, real_volume=0.0,
        spread=None, first_tick=ts, last_tick=ts, log=log, offsets=offsets, closed=closed, received=ts,
        emitted=ts,
    )  # fmt: skip


async def held(subscription: Subscription) -> list[Candle]:
    batch = await subscription.next(0.01)
    assert batch is not None
    return batch.candles


async def test_only_the_newest_state_of_a_minute_waits() -> None:
    hub = Hub()
    subscription = hub.subscribe()
    added = [hub.publish(candle(volume=n, offsets=((0, 0, n),))) for n in (1, 3, 7)]
    assert added == [1, 2, 4]
    assert [c.volume for c in await held(subscription)] == [7]
    assert await held(subscription) == []


async def test_fold_of_fewer_offsets_is_not_handed_out() -> None:
    hub = Hub()
    hub.publish(candle(volume=5, offsets=((0, 0, 9),)))
    subscription = hub.subscribe()
    assert hub.publish(candle(volume=4, offsets=((0, 0, 8),))) == 0
    assert [c.volume for c in await held(subscription)] == [5]


async def test_fold_of_fewer_offsets_still_tells_that_the_minute_is_over() -> None:
    hub = Hub()
    hub.publish(candle(volume=5, offsets=((0, 0, 9),)))
    subscription = hub.subscribe()
    hub.publish(candle(volume=4, offsets=((0, 0, 8),), closed=True))
    assert [(c.volume, c.closed) for c in await held(subscription)] == [(5, True)]


async def test_folds_of_which_neither_holds_the_other_have_to_be_read_again() -> None:
    hub = Hub()
    hub.publish(candle(ts=MINUTE, volume=5, offsets=((0, 0, 9),)))
    subscription = hub.subscribe()
    await held(subscription)
    hub.publish(candle(ts=MINUTE, volume=9, offsets=((0, 5, 30),)))
    batch = await subscription.next(0.01)
    assert batch is not None
    assert (batch.candles, batch.stale) == ([], {("S", "EURUSD"): MINUTE})


async def test_of_two_logs_more_ticks_win() -> None:
    hub = Hub()
    hub.publish(candle(volume=5, offsets=((0, 0, 9),)))
    subscription = hub.subscribe()
    hub.publish(candle(volume=4, offsets=((0, 0, 1),), log="other/ticks"))
    hub.publish(candle(volume=6, offsets=((0, 0, 1),), log="other/ticks"))
    hub.publish(candle(volume=5, offsets=((0, 0, 2),)))
    assert [c.volume for c in await held(subscription)] == [6]


async def test_stream_sees_what_it_asked_for() -> None:
    hub = Hub()
    chosen, other_source, everything = (
        hub.subscribe(frozenset({"GBPUSD"})), hub.subscribe(None, "T"), hub.subscribe(),
    )  # fmt: skip
    for symbol in ("EURUSD", "GBPUSD"):
        hub.publish(candle(symbol=symbol))
    assert [c.symbol for c in await held(chosen)] == ["GBPUSD"]
    assert await held(other_source) == []
    assert [c.symbol for c in await held(everything)] == ["EURUSD", "GBPUSD"]


async def test_stream_that_falls_far_behind_is_told_to_read_again() -> None:
    resyncs = []
    hub = Hub(lambda: resyncs.append(1))
    slow, quick = hub.subscribe(), hub.subscribe()
    for minute in range(MAX_PENDING + 50):
        hub.publish(candle(ts=minute * MINUTE))
        await quick.next(0)
    batch = await slow.next(0)
    assert batch is not None
    assert (batch.resync, batch.candles) == (True, [])
    assert resyncs == [1]
    hub.publish(candle(ts=10**9 * MINUTE))
    assert len(await held(slow)) == 1


async def test_new_stream_begins_with_the_newest_minutes_in_order() -> None:
    hub = Hub()
    for minute in (30, 5, 31, 29):
        hub.publish(candle(ts=minute * MINUTE))
    assert [c.ts // MINUTE for c in await held(hub.subscribe())] == [5, 29, 30, 31]
    for minute in range(100, 200):
        hub.publish(candle(ts=minute * MINUTE))
    assert [c.ts // MINUTE for c in await held(hub.subscribe())] == list(range(190, 200))


async def test_minute_long_past_is_handed_out_but_counts_no_ticks() -> None:
    hub = Hub()
    for minute in range(100, 200):
        hub.publish(candle(ts=minute * MINUTE))
    subscription = hub.subscribe()
    await held(subscription)
    assert hub.publish(candle(ts=MINUTE, volume=50)) == 0
    assert [c.volume for c in await held(subscription)] == [50]


async def test_waiting_stream_ends_when_the_hub_closes() -> None:
    hub = Hub()
    waiting = asyncio.create_task(hub.subscribe().next(60))
    await asyncio.sleep(0)
    hub.close()
    assert await asyncio.wait_for(waiting, 5) is None


@pytest.mark.parametrize("status", [b"{}"])
async def test_newest_status_survives_a_resync(status: bytes) -> None:
    hub = Hub()
    slow = hub.subscribe()
    hub.broadcast(status)
    for minute in range(MAX_PENDING + 1):
        hub.publish(candle(ts=minute * MINUTE))
    batch = await slow.next(0)
    assert batch is not None
    assert (batch.resync, batch.status) == (True, status)
