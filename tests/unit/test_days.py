"""The generated day is the same everywhere, has the shape of a real one, and holds what brokers send besides."""

import hashlib
from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from marketdata.fold import CandleFold, split_by_period
from marketdata.resends import Passes
from marketdata.tick import Frame
from tests import generated_day
from tests.days import DAYS, EURUSD_COUNT, GENERATED, Day
from tests.unit.tickpipe.sending.test_history import as_tick
from tickpipe.sending.history import TickFile

#: The real day shows no more kinds of ticks than the generated one.
each_day = pytest.mark.parametrize(
    "day", [DAYS[0], *(pytest.param(day, marks=pytest.mark.full) for day in DAYS[1:])], ids=str
)

HOUR_MS = 3_600_000


def test_the_seed_makes_the_same_day_on_every_machine() -> None:
    digest = hashlib.sha256(repr([*generated_day.quotes(), *generated_day.sparse_quotes()]).encode()).hexdigest()
    assert digest == "65697e228602b524988f62a79d0e5968bdcc929cc5fa3430a416b30f4c966879"
    assert len(GENERATED.ticks) == EURUSD_COUNT


def test_the_generated_day_has_the_shape_of_a_real_one() -> None:
    ticks = GENERATED.ticks
    times = [tick.time_msc for tick in ticks]
    hours = Counter((time - generated_day.START_MS) // HOUR_MS for time in times)
    spreads = [round((tick.ask - tick.bid) * 100_000) for tick in ticks]

    # The real day: 136,741 quotes, 11,063 in its busiest hour and 2,114 in its quietest.
    assert 130_000 < len(ticks) < 145_000
    assert hours.most_common(1)[0][0] == 15
    assert set(hours) == set(range(24))
    assert max(hours.values()) > 4 * min(hours.values())
    # Half of its gaps are shorter than 541 ms, and its spread is 3 points most of the time, and 1 to 51.
    assert 100 < median(after - before for before, after in pairwise(times)) < 700
    assert (min(spreads), median(spreads), max(spreads) > 40) == (1, 3, True)
    assert all(tick.bid == round(tick.bid, 5) and tick.ask == round(tick.ask, 5) for tick in ticks)


def test_the_generated_day_holds_what_the_real_one_lacks() -> None:
    ticks = GENERATED.ticks
    per_minute = Counter(tick.time_msc // 60_000 for tick in ticks)
    within = Counter(tick.time_msc % 60_000 for tick in ticks)

    assert all(before.time_msc <= after.time_msc for before, after in pairwise(ticks))
    assert sum(before.time_msc == after.time_msc for before, after in pairwise(ticks)) > 1_000
    assert sum(before.bid == after.bid and before.ask == after.ask for before, after in pairwise(ticks)) > 1_000
    # Whoever cuts the day anywhere, even after every tick, sends nothing that looks like a resend.
    assert len(set(ticks)) == len(ticks)
    assert len(GENERATED.bars) == len(per_minute) == 1440 - 7
    assert list(per_minute.values()).count(1) >= 6
    assert within[0] > 20
    assert within[59_999] > 20
    assert len(GENERATED.sparse_minutes) == 40


@each_day
def test_the_fold_of_a_day_is_its_bars(day: Day) -> None:
    folds: dict[int, CandleFold] = {}
    for offset, start in enumerate(range(0, len(day.ticks), 70)):
        frame = Frame(
            v=1, source="S", symbol="EURUSD", mode="bid", point=0.00001, request=str(offset), received=0,
            ticks=day.ticks[start : start + 70],
        )  # fmt: skip
        for ts, ticks in split_by_period(frame)[2]:
            folds.setdefault(ts, CandleFold("S", "EURUSD", ts)).add(offset, 0, Passes(), frame, ticks)

    candles = [fold.candle(log="l", offsets=((0, 0, 0),), closed=True, emitted=0) for fold in folds.values()]
    assert {c.ts: (c.open, c.high, c.low, c.close) for c in candles if c is not None} == day.bars
    assert sum(c.volume for c in candles if c is not None) == len(day.ticks)


@each_day
def test_the_files_of_a_day_are_read_as_its_ticks(day: Day, tmp_path: Path) -> None:
    with TickFile(day.write_ticks(tmp_path / "ticks.csv.gz")) as ticks:
        assert [as_tick(tick) for tick in ticks] == day.ticks
    with TickFile(day.write_sparse(tmp_path / "sparse.csv")) as ticks:
        assert [as_tick(tick) for tick in ticks] == day.sparse
