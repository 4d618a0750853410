"""The window: when minutes close and are forgotten, what holds the commit, and that no crash can lose a tick."""

import itertools
import tracemalloc
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from marketdata.candle import Candle
from marketdata.fold import CandleFold
from marketdata.offsets import Range, Ranges, contains, union
from marketdata.tick import Frame, Tick
from marketdata.wire import MIN_TICKS
from stream_app.window import FORGET_IDLE_SECONDS, FORGET_UNTOUCHED_SECONDS, Window
from tests import oracle

T0 = 1_549_238_400_000  # 2019-02-04T00:00:00Z
MINUTE = 60_000
GRACE_MS = 5_000
REQUESTS = map(str, itertools.count())

Log = list[tuple[int, Frame]]


def frame(*times_ms: int, symbol: str = "EURUSD", bid: float = 1.1) -> Frame:
    ticks = [Tick(T0 + ms, bid, 0.0, 0.0, 0.0, 6) for ms in times_ms]
    return Frame(
        v=1, source="s", symbol=symbol, mode="bid", point=None, request=next(REQUESTS), received=T0, ticks=ticks
    )


class Drive:
    """A window with a clock that the test moves."""

    def __init__(self, wall_ms: int = T0) -> None:
        self.window = Window(log="l", partition=0, grace_ms=GRACE_MS)
        self.wall_ms = wall_ms
        self.now = 0.0
        self.offset = 0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.wall_ms += int(seconds * 1000)

    def feed(self, *frames: Frame) -> None:
        log = list(enumerate(frames, self.offset))
        self.offset += len(frames)
        self.window.feed(log[0][0], log[-1][0], [log], now=self.now)

    def publish(self) -> list[Candle]:
        emissions = self.window.emissions(wall_ms=self.wall_ms, now=self.now)
        for emission in emissions:
            self.window.settle(emission)
        self.window.forget(wall_ms=self.wall_ms, now=self.now)
        return [emission.candle for emission in emissions if emission.candle is not None]


def closed_minutes(candles: list[Candle]) -> list[int]:
    return sorted((candle.ts - T0) // MINUTE for candle in candles if candle.closed)


def test_a_minute_closes_when_a_tick_is_past_its_end_and_the_grace() -> None:
    drive = Drive(wall_ms=T0 + MINUTE * 100)
    drive.feed(frame(1), frame(MINUTE + GRACE_MS - 1))
    assert closed_minutes(drive.publish()) == []

    drive.feed(frame(MINUTE + GRACE_MS))

    assert closed_minutes(drive.publish()) == [0]


def test_a_minute_of_an_idle_symbol_closes_by_the_clock() -> None:
    drive = Drive(wall_ms=T0 + 59_000)
    drive.feed(frame(58_000))
    drive.sleep(5.9)
    assert closed_minutes(drive.publish()) == []

    drive.sleep(0.2)

    assert closed_minutes(drive.publish()) == [0]


def test_a_live_symbol_does_not_close_the_backlog_of_another() -> None:
    drive = Drive(wall_ms=T0 + MINUTE * 100)
    drive.feed(frame(1, symbol="OLD"), frame(MINUTE * 99, symbol="LIVE"))

    assert closed_minutes(drive.publish()) == []


def test_a_tick_stamped_tomorrow_does_not_close_today() -> None:
    drive = Drive(wall_ms=T0 + 30_000)
    drive.feed(frame(29_000), frame(86_400_000))

    assert closed_minutes(drive.publish()) == []


def test_a_tick_stamped_tomorrow_holds_the_commit_for_two_minutes_only() -> None:
    drive = Drive(wall_ms=T0)
    drive.feed(frame(86_400_000))
    drive.publish()
    assert drive.window.safe_offset == 0

    for _ in range(13):
        drive.sleep(FORGET_UNTOUCHED_SECONDS / 12)
        drive.feed(frame(int(drive.wall_ms - T0)))
        drive.publish()

    assert drive.window.safe_offset > 0


def test_the_commit_never_passes_the_first_tick_of_an_open_minute() -> None:
    drive = Drive(wall_ms=T0 + MINUTE * 100)
    drive.feed(frame(1), frame(2), frame(MINUTE + 1), frame(MINUTE + 2))
    drive.publish()
    assert drive.window.safe_offset == 0

    drive.feed(frame(MINUTE + GRACE_MS))
    assert drive.window.safe_offset == 0, "closed, but the broker does not know yet"
    drive.publish()

    assert drive.window.safe_offset == 2


def test_an_unconfirmed_candle_holds_the_commit_and_is_published_again() -> None:
    drive = Drive(wall_ms=T0 + MINUTE * 100)
    drive.feed(frame(1), frame(MINUTE + GRACE_MS))
    emissions = drive.window.emissions(wall_ms=drive.wall_ms, now=drive.now)

    for emission in emissions:
        drive.window.give_back(emission)

    assert drive.window.safe_offset == 0
    assert closed_minutes(drive.publish()) == [0]


def test_open_candles_may_wait_and_hold_the_commit_meanwhile() -> None:
    drive = Drive(wall_ms=T0 + MINUTE * 100)
    drive.feed(frame(1), frame(MINUTE + GRACE_MS))

    (closed,) = drive.window.emissions(wall_ms=drive.wall_ms, now=drive.now, closed_only=True)
    drive.window.settle(closed)

    assert closed.candle is not None
    assert closed_minutes([closed.candle]) == [0]
    assert drive.window.safe_offset == 1
    assert [candle.ts for candle in drive.publish()] == [T0 + MINUTE]


def test_a_quiet_round_publishes_nothing() -> None:
    drive = Drive()
    drive.feed(frame(1))
    assert len(drive.publish()) == 1

    assert drive.publish() == []


def test_a_closed_minute_is_forgotten_when_idle_and_its_symbol_with_it() -> None:
    drive = Drive(wall_ms=T0 + MINUTE * 100)
    drive.feed(frame(1))
    drive.sleep(GRACE_MS / 1000)
    drive.publish()
    drive.sleep(FORGET_IDLE_SECONDS)
    drive.publish()

    assert len(drive.window) == 0
    assert drive.window.safe_offset == 1


def test_a_fast_replay_keeps_a_quarter_of_an_hour_in_memory() -> None:
    drive = Drive(wall_ms=T0 + MINUTE * 1000)
    for minute in range(60):
        drive.feed(frame(minute * MINUTE))
        drive.publish()

    assert 15 <= len(drive.window) <= 18


def test_records_read_again_change_nothing() -> None:
    drive = Drive(wall_ms=T0 + MINUTE * 100)
    log = [(offset, frame(offset)) for offset in range(6)]
    drive.window.feed(0, 5, [log], now=0)
    first = drive.publish()

    drive.window.feed(2, 5, [log[2:]], now=0)

    assert drive.publish() == []
    assert [candle.volume for candle in first] == [6]


def test_a_read_from_further_back_starts_afresh() -> None:
    drive = Drive(wall_ms=T0 + MINUTE * 100)
    log = [(offset, frame(offset)) for offset in range(6)]
    drive.window.feed(4, 5, [log[4:]], now=0)
    drive.publish()

    drive.window.feed(0, 5, [log], now=0)

    (candle,) = drive.publish()
    assert (candle.volume, candle.offsets) == (6, ((0, 0, 5),))


def test_a_hole_in_what_was_read_is_not_claimed() -> None:
    drive = Drive(wall_ms=T0 + MINUTE * 100)
    drive.window.feed(0, 0, [[(0, frame(1))]], now=0)
    drive.window.feed(5, 5, [[(5, frame(2))]], now=0)

    (candle,) = drive.publish()

    assert candle.offsets == ((0, 0, 0), (0, 5, 5))


# Any night: frames at any times, polls of any size, clocks that jump, crashes at any moment.

TIMES = st.sampled_from([0, 1, 1000, 59_999, 60_000, 61_000, 119_000, 125_000, 300_000, 1_500_000])
FRAMES = st.builds(
    Frame,
    v=st.just(1),
    source=st.just("s"),
    symbol=st.sampled_from(["A", "B"]),
    mode=st.just("bid"),
    point=st.just(None),
    request=st.sampled_from(["x", "y"]),
    received=st.just(T0),
    ticks=st.lists(
        st.builds(
            Tick,
            time_msc=TIMES.map(lambda ms: T0 + ms),
            bid=st.sampled_from([0.0, 1.1, 1.2]),
            ask=st.just(0.0),
            last=st.just(0.0),
            volume=st.just(0.0),
            flags=st.just(6),
        ),
        min_size=1,
        max_size=3,
    ),
    coarse=st.booleans(),
)
ONE_STEP = st.one_of(
    st.tuples(st.just("poll"), st.integers(1, 5)),
    st.tuples(st.just("publish"), st.just(0)),
    st.tuples(st.just("lose"), st.just(0)),
    st.tuples(st.just("sleep"), st.sampled_from([1, 6, 130])),
)
STEPS = st.lists(st.one_of(ONE_STEP, st.tuples(st.just("crash"), st.just(0))), max_size=40)


@given(st.lists(FRAMES, min_size=1, max_size=25), STEPS)
def test_no_crash_loses_a_tick_and_every_candle_is_the_fold_of_its_offsets(
    frames: list[Frame], steps: list[tuple[str, Any]]
) -> None:
    log: Log = list(enumerate(frames))
    table: dict[tuple[str, int], Ranges] = {}
    drive, committed, position = Drive(wall_ms=T0 + 150_000), 0, 0

    def publish() -> None:
        nonlocal committed
        for candle in drive.publish():
            expected = oracle.fold(log, "s", candle.symbol, candle.ts, candle.offsets)
            assert expected is not None
            assert {f: getattr(candle, f) for f in expected.__dataclass_fields__} == expected.__dict__
            key = (candle.symbol, candle.ts)
            table[key] = union(table.get(key, ()), candle.offsets)
        committed = max(committed, drive.window.safe_offset)

    for step, argument in [*steps, ("poll", 99), ("publish", 0)]:
        if step == "poll" and (batch := log[position : position + argument]):
            drive.window.feed(batch[0][0], batch[-1][0], [batch], now=drive.now)
            position = batch[-1][0] + 1
        elif step == "publish":
            publish()
        elif step == "lose":
            for emission in drive.window.emissions(wall_ms=drive.wall_ms, now=drive.now):
                drive.window.give_back(emission)
        elif step == "sleep":
            drive.sleep(argument)
        elif step == "crash":
            drive.window = Window(log="l", partition=0, grace_ms=GRACE_MS)
            position = committed

    for (source, symbol, ts), whole in oracle.minutes_in(log).items():
        if oracle.fold(log, source, symbol, ts, whole) is None:
            continue  # no tick of the minute has a price
        touching = [
            (0, o, o)
            for o, f in log
            if f.symbol == symbol and any(t.time_msc // MINUTE * MINUTE == ts for t in f.ticks)
        ]
        assert contains(table[symbol, ts], tuple(touching)) or priced_alone(
            log, symbol, ts, table[symbol, ts], touching
        )


def priced_alone(log: Log, symbol: str, ts: int, ranges: Ranges, touching: list[Range]) -> bool:
    """Whether the offsets that no candle holds carry no price: such minutes were forgotten without a candle."""
    missing = [first for _, first, _ in touching if not contains(ranges, ((0, first, first),))]
    prices = [
        t.bid
        for o, f in log
        if o in missing and f.symbol == symbol
        for t in f.ticks
        if t.time_msc // MINUTE * MINUTE == ts
    ]
    return all(price <= 0 for price in prices)


def test_a_symbol_costs_a_few_kilobytes_while_it_ticks_and_no_period_later() -> None:
    symbols = 500
    drive = Drive()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for minute in range(4):
            drive.feed(*(frame(minute * MINUTE + n, symbol=f"S{n}") for n in range(symbols)))
            drive.sleep(60)
            drive.publish()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (held - before) / symbols < 5_000
    drive.sleep(FORGET_IDLE_SECONDS + FORGET_UNTOUCHED_SECONDS)
    drive.publish()
    assert len(drive.window) == 0


def test_a_chunk_touches_only_its_own_periods() -> None:
    """Those of the chunks before are noted already; to go over them again takes a poll as long as their square."""
    window = Window(log="l", partition=0, grace_ms=GRACE_MS)
    touched = []

    def chunks() -> Iterator[Log]:
        for offset in range(3):
            yield [(offset, frame(offset, symbol=f"S{offset}"))]
            touched.append([period.fold.symbol for period in window.touched()])

    window.feed(0, 2, chunks(), now=0.0)

    assert touched == [["S0"], ["S1"], ["S2"]]


def test_a_period_of_the_past_is_kept_while_its_poll_is_folded() -> None:
    drive = Drive(T0 + 3_600_000)
    drive.feed(frame(0))
    drive.publish()
    drive.feed(frame(1), frame(3_000_000))

    drive.publish()
    assert len(drive.window) == 2, "the newest poll touched it"
    drive.feed(frame(3_000_001))
    drive.publish()
    assert len(drive.window) == 1


def test_many_symbols_fold_as_each_does_alone() -> None:
    """A chunk with few frames of each is not sorted by symbol; frames of some ticks and of one take turns."""
    names = [f"S{number}" for number in range(20)]
    polls = [
        [
            frame(*range(step * 9_000, step * 9_000 + size), symbol=name, bid=1.1 + step / 100)
            for size in (1, 12)
            for name in names
        ]
        for step in range(12)
    ]

    together = Drive()
    for poll in polls:
        together.feed(*poll)
    found = {(candle.symbol, candle.ts): candle for candle in together.publish()}

    for name in names:
        alone = Drive()
        alone.feed(*(each for poll in polls for each in poll if each.symbol == name))
        wanted = {(candle.symbol, candle.ts): candle for candle in alone.publish()}
        assert len(wanted) == 2
        for key, candle in wanted.items():
            assert replace(found[key], offsets=()) == replace(candle, offsets=())


@given(
    st.lists(FRAMES, min_size=5, max_size=25),
    # Over records that were not read, and back to some that were, or to before all that memory holds.
    st.lists(st.one_of(ONE_STEP, st.tuples(st.just("seek"), st.sampled_from([-25, -3, 1]))), max_size=40),
    st.sampled_from([1, MIN_TICKS]),
)
def test_what_is_held_is_counted_as_by_a_walk_through_memory(
    frames: list[Frame], steps: list[tuple[str, Any]], least_of_a_run: int
) -> None:
    """Whatever is resent, read again after a gap, unconfirmed, closed or forgotten."""
    log: Log = list(enumerate(frames))
    drive, position = Drive(wall_ms=T0 + 150_000), 0

    with patch("marketdata.runs.MIN_TICKS", least_of_a_run):
        for step, argument in [*steps, ("poll", 99), ("publish", 0)]:
            window = drive.window
            if step == "poll" and (batch := log[position : position + argument]):
                window.feed(batch[0][0], batch[-1][0], [batch], now=drive.now)
                position = batch[-1][0] + 1
            elif step == "publish":
                drive.publish()
            elif step == "lose":
                for emission in window.emissions(wall_ms=drive.wall_ms, now=drive.now, closed_only=True):
                    window.give_back(emission)
            elif step == "sleep":
                drive.sleep(argument)
            elif step == "seek":
                position = min(max(0, position + argument), len(log))
            folds = [period.fold for symbol in window._symbols.values() for period in symbol.periods.values()]
            assert (len(window), window.ticks_held) == (len(folds), sum(fold.ticks_held for fold in folds))


def test_the_count_of_what_is_held_looks_at_nothing_whose_candle_is_published() -> None:
    """A walk through the minutes of ten thousand symbols would stall the worker at each look at `/metrics`."""
    drive = Drive()
    drive.feed(*(frame(1, 2, symbol=f"S{number}") for number in range(50)))
    drive.publish()

    with patch.object(CandleFold, "ticks_held", property(lambda _: pytest.fail("a fold was looked at"))):
        assert (len(drive.window), drive.window.ticks_held) == (50, 100)
