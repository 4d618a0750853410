"""Whatever order folds, rows and looks come in, clients end with the table, and never see less than it held."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from dashboard.hub import Hub, Key
from marketdata.candle import Candle
from marketdata.offsets import Ranges, contains, size, union
from marketdata.rule import Verdict, verdict

MINUTE = 60_000
FEED = ("S", "EURUSD")
#: The newest minute of the clock; one more minute lies far ahead of it.
NEWEST = 20
AHEAD = 1_460
MINUTES = (*range(NEWEST - 13, NEWEST + 1), AHEAD)
#: Records of each partition of the log that hold a tick of a minute.
RECORDS = 8

folds = st.tuples(
    st.sampled_from(MINUTES),
    st.integers(0, RECORDS - 1),
    st.integers(1, RECORDS),
    st.booleans(),
    st.integers(0, 1),
).map(lambda spelt: fold(spelt[0], ((spelt[4], spelt[1], min(RECORDS - 1, spelt[1] + spelt[2] - 1)),), closed=spelt[3]))
steps = st.one_of(
    folds,
    st.sampled_from(["store", "store", "refold", "ask", "ask", "away", "wait"]),
)


def fold(minute: int, offsets: Ranges, *, closed: bool = False) -> Candle:
    """The candle that these records of the minute make; each holds one tick, and its price is its offset."""
    first, last = min(first for _, first, _ in offsets), max(last for _, _, last in offsets)
    return Candle(
        source=FEED[0], symbol=FEED[1], ts=minute * MINUTE, open=first, high=last, low=first, close=last,
        volume=size(offsets), real_volume=0.0, spread=None, first_tick=minute * MINUTE,
        last_tick=minute * MINUTE + last, log="log", offsets=offsets, closed=closed, received=0, emitted=0,
    )  # fmt: skip


def joined(a: Candle, b: Candle) -> Candle:
    """The fold of the records of both."""
    return fold(a.ts // MINUTE, union(a.offsets, b.offsets), closed=a.closed or b.closed)


@dataclass
class Sink:
    """The table, and what the sink has still to do."""

    table: dict[Key, Candle] = field(default_factory=dict)
    unread: list[Candle] = field(default_factory=list)
    refolds: dict[Key, Candle] = field(default_factory=dict)

    def store(self) -> None:
        """Take the next candle of the topic."""
        if not self.unread:
            return
        candle = self.unread.pop(0)
        key = (FEED, candle.ts)
        match verdict(self.table.get(key), candle):
            case Verdict.INSERTED | Verdict.REPLACED:
                self.table[key] = joined(self.table.get(key, candle), candle)
            case Verdict.CLOSED:
                self.table[key] = joined(self.table[key], candle)
            case Verdict.REFOLD:
                self.refolds[key] = joined(self.refolds.get(key, candle), candle)

    def refold(self) -> None:
        """Fold what waits for it."""
        for key, waiting in self.refolds.items():
            self.table[key] = joined(self.table[key], waiting)
        self.refolds.clear()


class Scene:
    """A hub, a sink and a client that holds what it was sent last of each minute."""

    def __init__(self) -> None:
        self.now = NEWEST * 60.0 + 30
        self.hub = Hub(clock=lambda: self.now)
        self.sink = Sink()
        self.subscription = self.hub.subscribe()
        self.told: dict[Key, Candle] = {}
        self.unconfirmed = False

    async def take(self, step: Candle | str) -> None:
        if isinstance(step, Candle):
            self.sink.unread.append(step)
            self.hub.publish(step)
        elif step == "store":
            self.sink.store()
        elif step == "refold":
            self.sink.refold()
        elif step == "ask":
            self.ask()
        elif step == "away":
            self.hub.database_is_away(self.hub.due())
            self.unconfirmed = True
        else:
            self.now += 0.3
        await self.look()

    def ask(self) -> None:
        keys = self.hub.due()
        self.hub.settle(keys, {key: self.sink.table[key] for key in keys if key in self.sink.table})

    async def look(self) -> None:
        batch = await self.subscription.next(0)
        assert batch is not None
        assert not batch.resync
        assert not batch.stale
        for update in batch.updates:
            key = (FEED, update.candle.ts)
            row = self.sink.table.get(key)
            if update.stored:
                assert row is not None
                assert contains(row.offsets, update.candle.offsets)
            self.told[key] = update.candle

    async def end(self) -> None:
        """The sink catches up, and the hub has time to ask."""
        while self.sink.unread:
            self.sink.store()
        self.sink.refold()
        for _ in range(40):
            self.now += 1
            self.ask()
            await self.look()


@given(st.lists(steps, max_size=60))
def test_client_ends_with_what_is_stored(taken: list[Candle | str]) -> None:
    async def play() -> None:
        scene = Scene()
        for step in taken:
            await scene.take(step)
        await scene.end()
        # Every candle's minute, the one that is ahead of the clock included.
        assert {key: (c.offsets, c.volume, c.close, c.closed) for key, c in scene.told.items()} == {
            key: (c.offsets, c.volume, c.close, c.closed) for key, c in scene.sink.table.items()
        }
        scene.now += 60
        assert scene.hub.due() == []

    asyncio.run(play())


@given(st.lists(steps.filter(lambda step: step != "away"), max_size=60))
def test_client_is_never_told_less_than_the_table_held_when_it_was_asked(taken: list[Candle | str]) -> None:
    async def play() -> None:
        scene = Scene()
        seen: dict[Key, Candle] = {}
        for step in taken:
            if step == "ask":
                seen |= {key: scene.sink.table[key] for key in scene.hub.due() if key in scene.sink.table}
            before = dict(scene.told)
            await scene.take(step)
            for key, candle in scene.told.items():
                if candle is not before.get(key) and key in seen:
                    assert contains(candle.offsets, seen[key].offsets)
                # What was sent does not shrink either.
                if key in before:
                    assert candle.volume >= before[key].volume

    asyncio.run(play())


@given(st.lists(steps, max_size=60), st.integers(0, 60))
def test_resumed_stream_misses_nothing(taken: list[Candle | str], lost_at: int) -> None:
    async def play() -> None:
        scene = Scene()
        for step in taken[:lost_at]:
            await scene.take(step)
        resumed_from = scene.hub.position
        resumed = dict(scene.told)
        for step in taken[lost_at:]:
            await scene.take(step)
        batch = await scene.hub.subscribe(since=resumed_from).next(0)
        assert batch is not None
        assert not batch.resync
        resumed |= {(FEED, update.candle.ts): update.candle for update in batch.updates}
        assert resumed == scene.told

    asyncio.run(play())
