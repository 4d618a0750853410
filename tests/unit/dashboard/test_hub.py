"""What the hub hands to streams: by offsets, never by arrival, never less than the table holds; all with a bound."""

import asyncio

import pytest
from msgspec.structs import replace

from dashboard import hub as hub_module
from dashboard.hub import Hub, Key
from dashboard.stream import MAX_PENDING, Batch, Subscription, Update
from marketdata.candle import Candle
from marketdata.offsets import Ranges
from tests.waiting import PATIENCE_SECONDS

MINUTE = 60_000
FEED = ("S", "EURUSD")

#: Minutes are counted from 0; the clock stands behind all that are not meant to be ahead of it (seconds).
NOW = 10**6 * 60.0


def candle(
    ts: int = 0, volume: int = 1, offsets: Ranges = ((0, 0, 0),), *, symbol: str = "EURUSD", log: str = "log/ticks",
    closed: bool = False,
) -> Candle:  # fmt: skip
    return Candle(
        source="S", symbol=symbol, ts=ts, open=1.0, high=1.0, low=1.0, close=1.0, volume=volume, real_volume=0.0,
        spread=None, first_tick=ts, last_tick=ts, log=log, offsets=offsets, closed=closed, received=ts,
        emitted=ts,
    )  # fmt: skip


def key(candle: Candle) -> Key:
    return ((candle.source, candle.symbol), candle.ts)


class Desk:
    """A hub, its clock, and the table that it asks."""

    def __init__(self) -> None:
        self.now = NOW
        self.table: dict[Key, Candle] = {}
        self.resyncs: list[int] = []
        self.hub = Hub(lambda: self.resyncs.append(1), clock=lambda: self.now)

    def publish(self, *candles: Candle) -> list[int]:
        """Each of them, and the answer of the table at once."""
        added = []
        for each in candles:
            added.append(self.hub.publish(each))
            self.ask()
        self.ask(0.2)
        return added

    def ask(self, after_seconds: float = 0.0) -> None:
        self.now += after_seconds
        while keys := self.hub.due():
            self.hub.settle(keys, {key: self.table[key] for key in keys if key in self.table})

    def waits(self) -> bool:
        """Whether the table is going to be asked about anything."""
        self.now += 60.0
        return bool(self.hub.due())

    def store(self, *candles: Candle) -> None:
        for each in candles:
            self.table[key(each)] = each


async def batch(subscription: Subscription) -> Batch:
    found = await subscription.next(0.01)
    assert found is not None
    return found


async def held(subscription: Subscription) -> list[Candle]:
    return [update.candle for update in (await batch(subscription)).updates]


async def told(subscription: Subscription) -> list[tuple[int, bool]]:
    """Ticks of each candle, and whether it was the table's row."""
    return [(update.candle.volume, update.stored) for update in (await batch(subscription)).updates]


async def test_only_the_newest_state_of_a_minute_waits() -> None:
    desk = Desk()
    subscription = desk.hub.subscribe()
    assert desk.publish(*(candle(volume=n, offsets=((0, 0, n),)) for n in (1, 3, 7))) == [1, 2, 4]
    assert [c.volume for c in await held(subscription)] == [7]
    assert await held(subscription) == []


async def test_row_of_the_same_records_neither_takes_the_quote_away_nor_is_news() -> None:
    desk = Desk()
    subscription = desk.hub.subscribe()
    desk.hub.publish(replace(candle(), bid=1.1, ask=1.2))
    desk.hub.database_is_away(desk.hub.due())
    assert [(c.bid, c.ask) for c in await held(subscription)] == [(1.1, 1.2)]
    desk.store(candle())
    desk.ask(1.0)
    assert await held(subscription) == []
    assert [(c.bid, c.ask) for c in await held(desk.hub.subscribe())] == [(1.1, 1.2)]


async def test_fold_of_fewer_offsets_is_not_handed_out() -> None:
    desk = Desk()
    desk.publish(candle(volume=5, offsets=((0, 0, 9),)))
    subscription = desk.hub.subscribe()
    assert desk.publish(candle(volume=4, offsets=((0, 0, 8),))) == [0]
    assert [c.volume for c in await held(subscription)] == [5]


async def test_fold_of_fewer_offsets_still_tells_that_the_minute_is_over() -> None:
    desk = Desk()
    desk.publish(candle(volume=5, offsets=((0, 0, 9),)))
    subscription = desk.hub.subscribe()
    desk.publish(candle(volume=4, offsets=((0, 0, 8),), closed=True))
    assert [(c.volume, c.closed) for c in await held(subscription)] == [(5, True)]


async def test_first_candle_of_a_minute_waits_for_what_the_table_says() -> None:
    desk = Desk()
    subscription = desk.hub.subscribe()
    desk.store(candle(volume=60, offsets=((0, 0, 59),)))
    desk.hub.publish(candle(volume=100, offsets=((0, 60, 159),)))
    assert await held(subscription) == []
    desk.ask()
    # The ticks that came late are not the minute, however many; its row is, until both are folded together.
    assert await told(subscription) == [(60, True)]
    desk.store(candle(volume=160, offsets=((0, 0, 159),)))
    desk.ask(1.0)
    assert await told(subscription) == [(160, True)]


async def test_late_ticks_of_a_minute_long_over_are_told_when_the_table_holds_them() -> None:
    desk = Desk()
    desk.publish(*(candle(ts=minute * MINUTE) for minute in range(100, 200)))
    subscription = desk.hub.subscribe()
    await held(subscription)
    old = 3 * MINUTE
    desk.store(candle(ts=old, volume=20, offsets=((0, 0, 19),)))
    assert desk.publish(candle(ts=old, volume=40, offsets=((0, 500, 539),))) == [0]
    desk.ask(1.0)
    assert await held(subscription) == []
    desk.store(candle(ts=old, volume=60, offsets=((0, 0, 19), (0, 500, 539))))
    desk.ask(1.0)
    assert await told(subscription) == [(60, True)]


async def test_tick_from_the_future_pushes_no_minute_out() -> None:
    desk = Desk()
    desk.now = 205 * 60.0
    minutes = [candle(ts=minute * MINUTE, volume=9, offsets=((0, 0, minute),)) for minute in range(195, 205)]
    desk.publish(*minutes)
    tomorrow = candle(ts=(205 + 1440) * MINUTE, volume=1, offsets=((0, 900, 900),))
    desk.publish(tomorrow)
    assert desk.hub.newest() == {FEED: minutes[-1]}
    subscription = desk.hub.subscribe()
    assert await held(subscription) == minutes
    # A narrower fold of the newest minute is still known for what it is.
    desk.publish(candle(ts=204 * MINUTE, volume=2, offsets=((0, 0, 2),)))
    assert await held(subscription) == []
    # It is told as well, when it is stored.
    desk.store(tomorrow)
    desk.ask(1.0)
    assert await told(subscription) == [(1, True)]


async def test_folds_of_which_neither_holds_the_other_wait_for_the_fold_of_both() -> None:
    desk = Desk()
    first = candle(ts=MINUTE, volume=5, offsets=((0, 0, 9),))
    desk.publish(first)
    desk.store(first)
    subscription = desk.hub.subscribe()
    await held(subscription)
    desk.publish(candle(ts=MINUTE, volume=9, offsets=((0, 5, 30),)))
    assert await held(subscription) == []
    desk.store(candle(ts=MINUTE, volume=12, offsets=((0, 0, 30),)))
    desk.ask(1.0)
    assert await told(subscription) == [(12, True)]


async def test_row_of_fewer_ticks_than_were_sent_is_not_sent() -> None:
    desk = Desk()
    first = candle(volume=10, offsets=((0, 0, 9),))
    desk.store(first)
    desk.publish(first)
    subscription = desk.hub.subscribe()
    await held(subscription)
    desk.publish(candle(volume=2, offsets=((0, 20, 21),)), candle(volume=18, offsets=((0, 0, 17),)))
    assert await told(subscription) == [(18, False)]
    # The sink has folded the late ticks with the row, and has not come to records 10 to 17.
    desk.store(candle(volume=12, offsets=((0, 0, 9), (0, 20, 21))))
    desk.ask(1.0)
    assert await told(subscription) == []
    desk.store(candle(volume=20, offsets=((0, 0, 17), (0, 20, 21))))
    desk.ask(1.0)
    assert await told(subscription) == [(20, True)]


async def test_row_that_the_sink_made_of_what_the_log_still_held_is_sent() -> None:
    desk = Desk()
    desk.publish(*(candle(ts=minute * MINUTE) for minute in (1, 8, 9)))
    subscription = desk.hub.subscribe()
    await held(subscription)
    desk.store(candle(ts=MINUTE))
    desk.publish(candle(ts=MINUTE, volume=9, offsets=((0, 50, 58),)))
    # The log begins at 55, so neither candle can be proven, and the row of more ticks holds neither.
    desk.store(candle(ts=MINUTE, volume=10, offsets=((0, 55, 64),)))
    desk.ask(1.0)
    assert await told(subscription) == [(10, True)]


async def test_late_ticks_alone_do_not_replace_what_was_sent_before_anything_is_stored() -> None:
    desk = Desk()
    desk.publish(candle(volume=10, offsets=((0, 0, 9),)))
    subscription = desk.hub.subscribe()
    await held(subscription)
    desk.publish(candle(volume=2, offsets=((0, 20, 21),)))
    assert await told(subscription) == []
    desk.store(candle(volume=12, offsets=((0, 0, 9), (0, 20, 21))))
    desk.ask(1.0)
    assert await told(subscription) == [(12, True)]


async def test_minute_that_went_on_unconfirmed_waits_until_all_of_it_is_stored() -> None:
    desk = Desk()
    subscription = desk.hub.subscribe()
    desk.hub.publish(candle(volume=3, offsets=((0, 10, 12),)))
    desk.hub.database_is_away(desk.hub.due())
    desk.hub.publish(candle(volume=10, offsets=((0, 10, 19),)))
    assert await told(subscription) == [(10, False)]
    # The sink comes to the first of the two candles, then to the second.
    for row in (candle(volume=13, offsets=((0, 0, 12),)), candle(volume=20, offsets=((0, 0, 19),))):
        desk.store(row)
        desk.ask(60.0)
    assert await told(subscription) == [(20, True)]


async def test_past_minute_is_not_sent_with_fewer_ticks_than_before() -> None:
    desk = Desk()
    subscription = desk.hub.subscribe()
    desk.hub.publish(candle(volume=3, offsets=((0, 10, 12),)))
    desk.hub.database_is_away(desk.hub.due())
    desk.hub.publish(candle(volume=10, offsets=((0, 10, 19),)))
    desk.publish(candle(ts=MINUTE), candle(ts=2 * MINUTE))
    await held(subscription)
    desk.store(candle(volume=6, offsets=((0, 0, 2), (0, 10, 12))))
    desk.ask(60.0)
    assert await told(subscription) == []
    desk.store(candle(volume=13, offsets=((0, 0, 2), (0, 10, 19))))
    desk.ask(60.0)
    assert await told(subscription) == [(13, True)]
    # A new stream begins with it.
    assert (await held(desk.hub.subscribe()))[0].volume == 13


async def test_row_is_sent_as_soon_as_it_contains_one_of_the_late_folds() -> None:
    desk = Desk()
    desk.store(candle(ts=8 * MINUTE), candle(ts=9 * MINUTE))
    desk.publish(candle(ts=8 * MINUTE), candle(ts=9 * MINUTE))
    subscription = desk.hub.subscribe()
    await held(subscription)
    desk.publish(candle(ts=MINUTE, volume=5, offsets=((0, 50, 54),)))
    desk.publish(candle(ts=MINUTE, volume=2, offsets=((0, 70, 71),)))
    desk.store(candle(ts=MINUTE, volume=5, offsets=((0, 50, 54),)))
    desk.ask(1.0)
    assert await told(subscription) == [(5, True)]
    desk.store(candle(ts=MINUTE, volume=7, offsets=((0, 50, 54), (0, 70, 71))))
    desk.ask(1.0)
    assert await told(subscription) == [(7, True)]
    assert not desk.waits()


async def test_first_minute_of_a_feed_that_is_ahead_of_the_clock_is_not_its_newest() -> None:
    desk = Desk()
    tomorrow = candle(ts=10**6 * MINUTE + 1440 * MINUTE)
    subscription = desk.hub.subscribe()
    assert desk.hub.publish(tomorrow) == 0
    desk.hub.database_is_away(desk.hub.due())
    assert await held(subscription) == []
    desk.store(tomorrow)
    desk.ask(60.0)
    assert await told(subscription) == [(1, True)]
    assert desk.hub.newest() == {}


async def test_minute_that_moves_again_is_asked_about_soon() -> None:
    desk = Desk()
    desk.publish(candle(ts=8 * MINUTE), candle(ts=9 * MINUTE), candle(ts=MINUTE))
    desk.store(candle(ts=8 * MINUTE), candle(ts=9 * MINUTE))
    for _ in range(20):
        desk.ask(5.0)
    desk.now += 4.9
    assert desk.hub.due() == []
    desk.now -= 4.8
    desk.hub.publish(candle(ts=MINUTE, volume=2, offsets=((0, 0, 1),)))
    desk.now += 0.11
    assert desk.hub.due() == [(FEED, MINUTE)]


async def test_moving_minute_is_not_asked_about_any_more_when_its_first_candle_is_stored() -> None:
    desk = Desk()
    first = candle(volume=10, offsets=((0, 0, 9),))
    desk.publish(first, candle(volume=13, offsets=((0, 0, 12),)))
    desk.store(first)
    desk.ask(1.0)
    assert not desk.waits()


async def test_wider_fold_of_a_past_minute_is_sent_as_its_row() -> None:
    desk = Desk()
    minutes = [candle(ts=minute * MINUTE) for minute in range(3)]
    desk.store(*minutes)
    desk.publish(*minutes)
    subscription = desk.hub.subscribe()
    await held(subscription)
    wider = candle(volume=2, offsets=((0, 0, 1),))
    desk.publish(wider)
    assert await told(subscription) == []
    desk.store(wider)
    desk.ask(1.0)
    assert await told(subscription) == [(2, True)]


async def test_newest_minutes_are_asked_about_first() -> None:
    desk = Desk()
    for minute in (1, 3, 2):
        desk.hub.publish(candle(ts=minute * MINUTE))
    assert [ts // MINUTE for _, ts in desk.hub.due()] == [3, 2, 1]


async def test_minute_that_waits_counts_its_ticks_once() -> None:
    desk = Desk()
    assert [desk.hub.publish(candle(volume=n, offsets=((0, 0, n - 1),))) for n in (3, 5)] == [3, 0]


async def test_folds_that_wait_for_one_minute_are_bounded() -> None:
    desk = Desk()
    parts = [candle(offsets=((0, 2 * n, 2 * n),)) for n in range(100)]
    for part in parts:
        desk.hub.publish(part)
    # The row holds the last 32 of them, and not the others, which are not asked about any more.
    desk.store(candle(volume=32, offsets=tuple(part.offsets[0] for part in parts[-32:])))
    desk.ask()
    assert not desk.waits()


async def test_of_two_logs_more_ticks_win() -> None:
    desk = Desk()
    desk.publish(candle(volume=5, offsets=((0, 0, 9),)))
    subscription = desk.hub.subscribe()
    desk.publish(candle(volume=4, offsets=((0, 0, 1),), log="other/ticks"))
    assert [c.volume for c in await held(subscription)] == [5]
    desk.publish(candle(volume=6, offsets=((0, 0, 1),), log="other/ticks"))
    assert [c.volume for c in await held(subscription)] == [6]
    desk.publish(candle(volume=5, offsets=((0, 0, 2),)))
    assert await held(subscription) == []
    # The row of more ticks ends the wait for all of them.
    desk.store(candle(volume=6, offsets=((0, 0, 1),), log="other/ticks"))
    desk.ask(60.0)
    assert not desk.waits()


async def test_without_a_database_the_newest_minute_goes_on_and_is_put_right_afterwards() -> None:
    desk = Desk()
    subscription = desk.hub.subscribe()
    desk.hub.publish(candle(ts=MINUTE, volume=5, offsets=((0, 10, 19),)))
    desk.hub.database_is_away(desk.hub.due())
    assert await told(subscription) == [(5, False)]
    # Known to be away: nothing waits for it.
    desk.hub.publish(candle(ts=2 * MINUTE, volume=1, offsets=((0, 20, 20),)))
    desk.hub.publish(candle(ts=2 * MINUTE, volume=2, offsets=((0, 20, 21),)))
    assert await told(subscription) == [(2, False)]
    # A minute that is long over is not guessed at.
    desk.hub.publish(candle(ts=0, volume=1, offsets=((0, 22, 22),)))
    desk.hub.database_is_away(desk.hub.due())
    assert await held(subscription) == []

    desk.store(
        candle(ts=MINUTE, volume=9, offsets=((0, 0, 19),)), candle(ts=0, volume=3, offsets=((0, 0, 2), (0, 22, 22)))
    )
    desk.ask(60.0)
    assert sorted(await told(subscription)) == [(3, True), (9, True)]
    # It answers again: a first candle waits for it.
    desk.hub.publish(candle(ts=3 * MINUTE, offsets=((0, 30, 30),)))
    assert await held(subscription) == []


async def test_row_that_the_sink_made_without_the_whole_log_is_told() -> None:
    desk = Desk()
    desk.publish(candle(ts=8 * MINUTE), candle(ts=9 * MINUTE))
    subscription = desk.hub.subscribe()
    await held(subscription)
    desk.store(candle(ts=MINUTE, volume=3, offsets=((0, 0, 2),)))
    desk.publish(candle(ts=MINUTE, volume=9, offsets=((0, 50, 60),)))
    assert await held(subscription) == []
    # The log does not reach back to 0: more ticks won.
    desk.store(candle(ts=MINUTE, volume=9, offsets=((0, 50, 60),)))
    desk.ask(1.0)
    assert await told(subscription) == [(9, True)]


async def test_what_is_closed_stays_closed() -> None:
    desk = Desk()
    subscription = desk.hub.subscribe()
    closed = candle(volume=5, offsets=((0, 0, 9),), closed=True)
    desk.store(closed)
    desk.publish(closed)
    desk.hub.publish(candle(volume=6, offsets=((0, 0, 10),)))
    assert [(c.volume, c.closed) for c in await held(subscription)] == [(6, True)]
    desk.publish(candle(volume=7, log="other/ticks"))
    assert [(c.volume, c.closed) for c in await held(subscription)] == [(7, True)]


async def test_minute_that_is_never_stored_is_to_be_read_again_in_the_end() -> None:
    desk = Desk()
    desk.publish(candle(ts=8 * MINUTE), candle(ts=9 * MINUTE))
    subscription = desk.hub.subscribe()
    await held(subscription)
    position = desk.hub.position
    desk.publish(candle(ts=MINUTE))
    for _ in range(200):
        desk.ask(5.0)
    found = await batch(subscription)
    assert (found.updates, found.stale) == ([], {FEED: MINUTE})
    assert (await batch(desk.hub.subscribe(since=position))).resync
    assert not desk.waits()


async def test_replay_that_overtakes_the_sink_is_bounded_and_told_when_it_is_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_module, "MAX_WAITING", 5)
    desk = Desk()
    desk.publish(*(candle(ts=minute * MINUTE) for minute in (998, 999)))
    desk.store(*(candle(ts=minute * MINUTE) for minute in (998, 999)))
    desk.ask(1.0)
    subscription = desk.hub.subscribe()
    await held(subscription)
    desk.publish(*(candle(ts=minute * MINUTE) for minute in range(1, 21)))
    assert (await batch(subscription)).stale == {}
    desk.store(*(candle(ts=minute * MINUTE) for minute in range(1, 21)))
    desk.ask(1.0)
    found = await batch(subscription)
    assert [update.candle.ts // MINUTE for update in found.updates] == [16, 17, 18, 19, 20]
    assert found.stale == {FEED: MINUTE}


async def test_stream_sees_what_it_asked_for() -> None:
    desk = Desk()
    chosen, other_source, everything = (
        desk.hub.subscribe(frozenset({"GBPUSD"})), desk.hub.subscribe(None, "T"), desk.hub.subscribe(),
    )  # fmt: skip
    desk.publish(candle(symbol="EURUSD"), candle(symbol="GBPUSD"))
    assert [c.symbol for c in await held(chosen)] == ["GBPUSD"]
    assert await held(other_source) == []
    assert [c.symbol for c in await held(everything)] == ["EURUSD", "GBPUSD"]


async def test_stream_that_falls_far_behind_is_told_to_read_again() -> None:
    desk = Desk()
    slow, quick = desk.hub.subscribe(), desk.hub.subscribe()
    for minute in range(MAX_PENDING + 50):
        desk.publish(candle(ts=minute * MINUTE))
        await quick.next(0)
    found = await batch(slow)
    assert (found.resync, found.updates) == (True, [])
    assert desk.resyncs == [1]
    desk.publish(candle(ts=10**5 * MINUTE))
    assert len(await held(slow)) == 1


async def test_new_stream_begins_with_the_newest_minutes_in_order() -> None:
    desk = Desk()
    desk.publish(*(candle(ts=minute * MINUTE) for minute in range(100, 200)))
    assert [c.ts // MINUTE for c in await held(desk.hub.subscribe())] == list(range(190, 200))


async def test_stream_is_resumed_where_it_was_lost() -> None:
    desk = Desk()
    lost = desk.hub.subscribe()
    desk.publish(candle(ts=MINUTE), candle(ts=2 * MINUTE))
    position = (await batch(lost)).position
    desk.hub.unsubscribe(lost)
    desk.publish(candle(ts=2 * MINUTE, volume=2, offsets=((0, 0, 1),)), candle(ts=3 * MINUTE))

    resumed = await batch(desk.hub.subscribe(since=position))
    assert [(u.candle.ts // MINUTE, u.candle.volume) for u in resumed.updates] == [(2, 2), (3, 1)]
    assert not resumed.resync
    nothing = await batch(desk.hub.subscribe(since=resumed.position))
    assert (nothing.updates, nothing.resync) == ([], False)


@pytest.mark.parametrize("position", ["", "0", "x-1", "-", "{epoch}-", "{epoch}-9", "{epoch}-²", "{epoch}--1"])
async def test_stream_that_cannot_be_resumed_reads_everything_again(position: str) -> None:
    desk = Desk()
    desk.publish(candle(ts=MINUTE))
    epoch = desk.hub.position.partition("-")[0]
    found = await batch(desk.hub.subscribe(since=position.format(epoch=epoch)))
    assert (found.resync, len(found.updates)) == (True, 0)


async def test_stream_is_not_resumed_over_what_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_JOURNAL_MINUTES", 3)
    desk = Desk()
    positions = []
    for minute in range(6):
        positions.append(desk.hub.position)
        desk.publish(candle(ts=minute * MINUTE))
    assert (await batch(desk.hub.subscribe(since=positions[2]))).resync
    assert [c.ts // MINUTE for c in await held(desk.hub.subscribe(since=positions[3]))] == [3, 4, 5]


async def test_gap_in_the_topic_makes_every_stream_read_again() -> None:
    desk = Desk()
    subscription = desk.hub.subscribe()
    desk.publish(candle(ts=MINUTE))
    position = (await batch(subscription)).position
    desk.hub.restart()
    assert (await batch(subscription)).resync
    assert (await batch(desk.hub.subscribe(since=position))).resync


async def test_waiting_stream_ends_when_the_hub_closes() -> None:
    hub = Hub()
    waiting = asyncio.create_task(hub.subscribe().next(60))
    await asyncio.sleep(0)
    hub.close()
    assert await asyncio.wait_for(waiting, PATIENCE_SECONDS) is None


async def test_newest_status_survives_a_resync() -> None:
    desk = Desk()
    slow = desk.hub.subscribe()
    desk.hub.broadcast(b"{}")
    desk.publish(*(candle(ts=minute * MINUTE) for minute in range(MAX_PENDING + 1)))
    found = await batch(slow)
    assert (found.resync, found.status) == (True, b"{}")


async def test_many_feeds_remember_fewer_minutes_each_but_the_moving_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "MAX_REMEMBERED", 12)
    for symbols, minutes in ((3, 4), (20, 2)):
        desk = Desk()
        for ts in range(0, 10 * MINUTE, MINUTE):
            desk.publish(*(candle(ts, symbol=f"S{n}") for n in range(symbols)))
        begins_with = (await batch(desk.hub.subscribe(frozenset({"S0"})))).updates
        assert [update.candle.ts // MINUTE for update in begins_with] == [*range(10)][-minutes:]


def test_a_lone_stream_sends_soon_and_many_send_less_often() -> None:
    hub = Hub()
    alone = hub.subscribe()
    moved = Batch("1-1", [Update(candle(), stored=False)] * 8)
    # 8 events of 1 stream; the whole pause is for 200 events of all streams together.
    assert alone.pause_seconds(moved) == pytest.approx(0.05 * 8 / 200)
    for _ in range(49):
        hub.subscribe()
    assert alone.pause_seconds(moved) == 0.05
