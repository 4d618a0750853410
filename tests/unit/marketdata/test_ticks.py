"""The ticks that a fold gives back: folded naively they are the candle again, whatever was sent twice or late."""

import math
import random
from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from marketdata.fold import CandleFold
from marketdata.offsets import normalized, place
from marketdata.refold import CountedTicks, NewFold, Proof, RecordFold, Refold, TickFold, TickRow, TooManyTicks
from marketdata.tick import Columns, Frame, Tick, is_deal
from marketdata.wire import decode_frame, encode
from runtime.archive.columns import ArrowTicks
from tests import oracle
from tests.unit.marketdata.test_fold_properties import LOGS, T0
from tests.unit.marketdata.test_refold_partitions import Log, spread

MODES = st.sampled_from(["bid", "last"])


def naive_candle(rows: list[TickRow], mode: str) -> tuple[Any, ...] | None:
    """Open, high, low, close, ticks and real volume, as somebody computes them who knows nothing of resends."""
    ticks = [Tick(*row) for row in rows]
    prices = [tick.bid if mode == "bid" else tick.last for tick in ticks if mode == "bid" or is_deal(tick.flags)]
    prices = [price for price in prices if price]
    if not prices:
        return None
    deals = [tick for tick in ticks if is_deal(tick.flags)]
    real_volume = math.fsum(tick.volume for tick in deals)
    return prices[0], max(prices), min(prices), prices[-1], len(ticks if mode == "bid" else deals), real_volume


def folds_of(log: Log, new_fold: NewFold) -> dict[Proof, Any]:
    proofs = [Proof(*key, normalized(ranges)) for key, ranges in oracle.minutes_in(log).items()]
    refold = Refold(proofs, new_fold)
    refold.feed(log)
    return refold.results()


@given(LOGS, MODES, st.integers(1, 3), st.randoms(use_true_random=False))
def test_counted_ticks_fold_naively_to_the_candle(
    frames: list[Frame], mode: Any, partitions: int, rng: random.Random
) -> None:
    for frame in frames:
        frame.mode = mode
    # Two producers write the frames; some of them come once more, at once or behind all others.
    repeated = [*frames, *rng.sample(frames, rng.randint(0, len(frames)))]
    log = spread(repeated, rng, partitions)

    counted = folds_of(log, TickFold)

    for proof, fold in folds_of(log, CandleFold).items():
        candle = fold.candle(log="l", offsets=proof.ranges, closed=True, emitted=0)
        expected = candle and (
            candle.open, candle.high, candle.low, candle.close, candle.volume, candle.real_volume,
        )  # fmt: skip
        assert naive_candle(list(counted[proof].rows()), mode) == expected


@given(LOGS, st.integers(1, 3), st.randoms(use_true_random=False))
def test_raw_ticks_are_those_of_every_record(frames: list[Frame], partitions: int, rng: random.Random) -> None:
    log = spread(frames, rng, partitions)
    expected = Counter(
        (frame.source, frame.symbol, tick.time_msc, *place(position), index, frame.request)
        for position, frame in log
        for index, tick in enumerate(frame.ticks)
    )

    found = [
        (proof.source, proof.symbol, row[0], *row[6:9], row[10])
        for proof, fold in folds_of(log, RecordFold).items()
        for row in fold.rows()
    ]

    assert Counter(found) == expected


@pytest.mark.parametrize(
    ("new_fold", "times_sent", "is_too_many"),
    [
        # A minute is released once the next one has begun, unless its ticks are to be returned.
        (CandleFold, 1, False),
        (TickFold, 1, True),
        (RecordFold, 1, True),
        # Until it was sent again as well.
        (CandleFold, 2, True),
    ],
)
def test_ticks_that_folds_hold_are_bounded_whatever_counts(
    new_fold: NewFold, times_sent: int, is_too_many: bool
) -> None:
    """Ten minutes of six quotes of a symbol charted by last: not one of them is a deal, and each is held."""
    sent = [
        Frame(
            v=1, source="s", symbol="A", mode="last", point=None, request=str(n), received=T0,
            ticks=[Tick(T0 + n * 60_000 + i, 1.1, 1.2, 1.15, 3.0, 6) for i in range(6)],
        )
        for n in range(10)
    ]  # fmt: skip
    log = list(enumerate(sent * times_sent))
    proofs = [
        Proof("s", "A", T0 + n * 60_000, tuple((0, n + 10 * again, n + 10 * again) for again in range(times_sent)))
        for n in range(10)
    ]
    refold = Refold(proofs, new_fold, max_ticks=24)
    with pytest.raises(TooManyTicks) if is_too_many else nullcontext():
        for record in log:
            refold.feed([record])


def test_an_honest_repeat_of_a_coarse_tick_stands_beside_the_first() -> None:
    """It counts and draws nothing; behind the newer tick of its second it would close the naive candle."""

    def frame(number: int, time_msc: int, bid: float) -> Frame:
        tick = Tick(time_msc, bid, bid + 0.1, 0.0, 0.0, 6)
        return Frame(
            v=1, source="s", symbol="A", mode="bid", point=None, request=str(number), received=T0 + number,
            ticks=[tick], coarse=True,
        )  # fmt: skip

    # A queue is replayed beside live ticks: the last frame goes back and repeats a lone tick, which may be honest.
    frames = [frame(0, T0 + 1000, 1.1), frame(1, T0 + 1000, 1.2), frame(2, T0 + 2000, 1.3), frame(3, T0 + 1000, 1.1)]
    (fold,) = folds_of(list(enumerate(frames)), TickFold).values()

    assert [row[1] for row in fold.rows()] == [1.1, 1.1, 1.2, 1.3]


def test_ticks_of_columns_stay_columns() -> None:
    # Arrange
    parts = [[Tick(T0 + 100 * n + i, 1.1 + i / 1e5, 1.2, 0.0, 0.0, 6) for i in range(10)] for n in range(3)]
    frames = [
        decode_frame(encode(Frame(
            v=1, source="s", symbol="A", mode="bid", point=0.01, request=str(n), received=T0, ticks=part
        )))
        for n, part in enumerate(parts)
    ]  # fmt: skip
    wanted = [tick for part in parts for tick in part]

    # Act
    [fold] = folds_of(list(enumerate(frames)), CountedTicks).values()
    ticks = fold.ticks()

    # Assert
    assert isinstance(ticks, Columns)
    assert ticks == wanted
    assert list(fold.rows()) == list(map(astuple, wanted))
    arrow = ArrowTicks(raw=False)
    assert arrow.of(ticks) == arrow.of(wanted)
