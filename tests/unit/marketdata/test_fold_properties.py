"""What must hold for every log: the fold agrees with the oracle however the log is split, repeated or ordered."""

import itertools
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from marketdata.offsets import Ranges, normalized
from marketdata.refold import Proof, Refold
from marketdata.tick import Frame, Tick
from tests import oracle

REQUESTS = map(str, itertools.count())
T0 = 1_549_238_400_000

PRICES = st.sampled_from([0.0, 0.4, 1.1, 1.3, -37.63])
TICKS = st.builds(
    Tick,
    time_msc=st.sampled_from([T0 + ms for ms in (0, 1, 2, 1000, 59_999, 60_000, 60_001, 61_000, 180_000)]),
    bid=PRICES,
    ask=st.sampled_from([0.0, 0.45, 1.25, -37.4]),
    last=PRICES,
    volume=st.sampled_from([0.0, 0.1, 0.2, 3.0]),
    flags=st.sampled_from([0, 2, 6, 1030, 56, 1080]),
)
FRAMES = st.builds(
    Frame,
    v=st.just(1),
    source=st.just("s"),
    symbol=st.sampled_from(["A", "B"]),
    mode=st.sampled_from(["bid", "last"]),
    point=st.sampled_from([None, 0.01, 0.1]),
    request=st.sampled_from(["x", "y"]),
    received=st.integers(T0, T0 + 1),
    ticks=st.lists(TICKS, min_size=1, max_size=4),
    coarse=st.booleans(),
)
LOGS = st.lists(FRAMES, min_size=1, max_size=12)


def refolded(log: list[tuple[int, Frame]], proofs: list[Proof]) -> dict[Proof, Any]:
    refold = Refold(proofs)
    for record in log:
        refold.feed([record])
    return refold.results()


def assert_equals_oracle(log: list[tuple[int, Frame]], proof: Proof, fold: Any) -> None:
    expected = oracle.fold(log, proof.source, proof.symbol, proof.ts, proof.ranges)
    candle = fold.candle(log="l", offsets=proof.ranges, closed=True, emitted=0)
    if expected is None:
        assert candle is None
        return
    assert {f: getattr(candle, f) for f in expected.__dataclass_fields__} == expected.__dict__


@given(LOGS)
def test_every_minute_of_any_log_equals_the_oracle(frames: list[Frame]) -> None:
    log = list(enumerate(frames))
    proofs = [Proof(*key, ranges) for key, ranges in oracle.minutes_in(log).items()]

    for proof, fold in refolded(log, proofs).items():
        assert_equals_oracle(log, proof, fold)


@given(LOGS, st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), min_size=1, max_size=3))
def test_any_set_of_offsets_equals_the_oracle(frames: list[Frame], pairs: list[tuple[int, int]]) -> None:
    log = list(enumerate(frames))
    ranges: Ranges = normalized((0, min(p), max(p)) for p in pairs)
    proofs = [Proof("s", symbol, T0, ranges) for symbol in "AB"]

    for proof, fold in refolded(log, proofs).items():
        assert_equals_oracle(log, proof, fold)


@given(st.integers(0, 2**32), st.integers(1, 7))
def test_any_split_into_frames_gives_the_same_candles(seed: int, frame_size: int) -> None:
    """Distinct ticks in order of time, cut into frames at will, sent once or with overlapping resends."""
    rng = random.Random(seed)
    ticks = [Tick(T0 + i * 2_500, rng.choice([1.1, 1.2, 1.3]), 1.4, 0.0, 0.1, 6) for i in range(60)]

    def frame(part: list[Tick]) -> Frame:
        return Frame(
            v=1, source="s", symbol="A", mode="bid", point=0.1, request=next(REQUESTS), received=T0, ticks=part
        )

    whole = [frame(ticks)]
    cut = [frame(ticks[i : i + frame_size]) for i in range(0, len(ticks), frame_size)]
    resent = [frame(ticks[max(0, i - rng.randrange(5)) : i + frame_size]) for i in range(0, len(ticks), frame_size)]
    shuffled = rng.sample(cut, len(cut))

    expected = candles(whole)
    assert len(expected) == 3  # 60 ticks × 2.5 s
    assert candles(cut) == candles(resent) == candles(shuffled) == candles(cut + cut) == expected


@given(st.integers(0, 2**32), st.integers(1, 5))
def test_forward_flow_with_whole_second_times_loses_no_tick(seed: int, frame_size: int) -> None:
    rng = random.Random(seed)
    seconds = sorted(rng.randrange(120) for _ in range(80))
    ticks = [Tick(T0 + s * 1000, rng.choice([1.1, 1.2]), 1.4, 0.0, 0.0, 6) for s in seconds]
    log = [
        Frame(
            v=1,
            source="s",
            symbol="A",
            mode="bid",
            point=None,
            request=next(REQUESTS),
            received=T0,
            ticks=part,
            coarse=True,
        )
        for part in (ticks[i : i + frame_size] for i in range(0, len(ticks), frame_size))
    ]

    assert sum(volume for *_, volume in candles(log)) == 80


def candles(frames: list[Frame]) -> list[tuple[int, float, float, float, float, float, int]]:
    """Minute, OHLC, real volume and volume of every minute, folded from the whole log."""
    log = list(enumerate(frames))
    proofs = [Proof(*key, ranges) for key, ranges in oracle.minutes_in(log).items()]
    return sorted(
        (p.ts, f.open, f.high, f.low, f.close, f.real_volume, f.volume) for p, f in refolded(log, proofs).items()
    )
