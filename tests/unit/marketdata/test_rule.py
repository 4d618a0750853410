from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.candle import Candle
from marketdata.offsets import Ranges, contains, normalized, union
from marketdata.rule import Reduced, Verdict, outweighs, reduce_batch, reduce_candles, verdict
from tests.unit.sink.candles import MINUTE, OWN_LOG, candle, folded, frame

STORED = ((10, 19),)


@pytest.mark.parametrize(
    ("incoming", "expected"),
    [
        pytest.param(candle(((10, 25),)), Verdict.REPLACED, id="contains the stored"),
        pytest.param(candle(((5, 19), (30, 31))), Verdict.REPLACED, id="contains it in one of two ranges"),
        pytest.param(candle(((12, 15),)), Verdict.IGNORED, id="is contained"),
        pytest.param(candle(((12, 15),), closed=True), Verdict.CLOSED, id="is contained and knows the minute is over"),
        pytest.param(candle(((12, 25),)), Verdict.REFOLD, id="overlaps"),
        pytest.param(candle(((30, 31),)), Verdict.REFOLD, id="lies elsewhere"),
        pytest.param(candle(STORED), Verdict.IGNORED, id="equal"),
        pytest.param(candle(STORED, emitted=MINUTE + 1, closed=False), Verdict.IGNORED, id="equal, sent later"),
        pytest.param(candle(STORED, closed=True), Verdict.CLOSED, id="equal but closed"),
        pytest.param(candle(STORED, high=1.31), Verdict.REPLACED, id="equal set, other price: a repair"),
        pytest.param(candle(STORED, received=MINUTE), Verdict.REPLACED, id="equal set, other receipt: a repair"),
        pytest.param(candle(STORED, log="other/ticks"), Verdict.CROSS_LOG, id="another log"),
        pytest.param(candle(((1, 10, 19),)), Verdict.REFOLD, id="the same offsets of another partition"),
        pytest.param(candle(((0, 10, 19), (1, 0, 3))), Verdict.REPLACED, id="contains it beside another partition's"),
        pytest.param(candle(((0, 12, 15), (1, 0, 3))), Verdict.REFOLD, id="contains half of it beside another's"),
    ],
)
def test_offsets_decide(incoming: Candle, expected: Verdict) -> None:
    assert verdict(candle(STORED), incoming) is expected


def test_nothing_stored_means_insert() -> None:
    assert verdict(None, candle()) is Verdict.INSERTED


@pytest.mark.parametrize(
    ("incoming", "stored", "wins"),
    [
        (candle(log="b", volume=11), candle(log="a", volume=10), True),
        (candle(log="b", volume=9), candle(log="a", volume=10), False),
        (candle(log="b"), candle(log="a"), False),  # a tie of two foreign logs
        (candle(log=OWN_LOG), candle(log="a"), True),  # a tie: this one can still be proven
        (candle(log="a"), candle(log=OWN_LOG), False),
    ],
)
def test_between_logs_more_ticks_win(incoming: Candle, stored: Candle, wins: bool) -> None:
    assert outweighs(incoming, stored, OWN_LOG) is wins


def test_reduce_keeps_the_widest_and_that_the_minute_is_over() -> None:
    narrow, wide = candle(((0, 4),), volume=5, closed=True), candle(((0, 9),), volume=10)
    assert reduce_candles([wide, narrow], OWN_LOG) == Reduced(candle(((0, 9),), volume=10, closed=True), ((0, 0, 9),))


def test_reduce_keeps_the_widest_even_with_fewer_ticks() -> None:
    """It knows all that the other one knew; that it has fewer ticks makes it no less of a proof."""
    narrow, wide = candle(((0, 4),), volume=11), candle(((0, 9),), volume=10)
    assert reduce_candles([narrow, wide], OWN_LOG) == Reduced(wide, wide.offsets)


def test_reduce_asks_for_the_union_of_incomparable_candles() -> None:
    early, late = candle(((0, 9),), volume=10), candle(((20, 29),), volume=3)
    assert reduce_candles([late, early], OWN_LOG) == Reduced(early, ((0, 0, 9), (0, 20, 29)))


def test_reduce_asks_for_the_union_over_partitions() -> None:
    one, other = candle(((0, 9),), volume=10), candle(((1, 0, 4),), volume=5)
    assert reduce_candles([other, one], OWN_LOG) == Reduced(one, ((0, 0, 9), (1, 0, 4)))


def test_reduce_of_two_logs_counts_the_loser() -> None:
    ours, theirs = candle(volume=10), candle(log="other/ticks", volume=12)
    assert reduce_candles([theirs, ours], OWN_LOG) == Reduced(theirs, theirs.offsets, cross_log=1)


@pytest.mark.parametrize("other", ["a/ticks", "z/ticks"])
def test_reduce_of_two_logs_at_a_tie_keeps_the_one_that_can_be_read(other: str) -> None:
    ours, theirs = candle(), candle(log=other)
    assert reduce_candles([theirs, ours], OWN_LOG) == Reduced(ours, ours.offsets, cross_log=1)


def test_a_batch_is_reduced_key_by_key() -> None:
    first, wider = candle(((0, 4),), volume=5), candle(((0, 9),), volume=10)
    others = [candle(ts=MINUTE + 60_000), candle(symbol="USDJPY"), candle(source="T")]
    whole = [Reduced(one, one.offsets) for one in (wider, *others)]
    assert reduce_batch([wider, *others], OWN_LOG) == whole
    assert reduce_batch([first, *others, wider], OWN_LOG) == whole
    assert reduce_batch([], OWN_LOG) == []


@st.composite
def ranges(draw: st.DrawFn) -> Ranges:
    bounds = sorted(draw(st.sets(st.integers(0, 14), min_size=1, max_size=6)))
    cut = [(bounds[0], bounds[0]), *pairwise(bounds)][:: draw(st.integers(1, 2))]
    return normalized((draw(st.integers(0, 2)), a, b) for a, b in cut)


#: A minute of fifteen records in which the second half repeats the first, as a resent batch does.
LOG = [frame(MINUTE + 1_000 * (i % 8), 1.1 + i % 8 / 100) for i in range(15)]

true_candles = st.lists(st.builds(folded, st.just(LOG), ranges(), closed=st.booleans()), min_size=1, max_size=6)
plain_candles = st.lists(
    st.builds(
        candle,
        ranges(),
        volume=st.integers(1, 3),
        closed=st.booleans(),
        emitted=st.integers(MINUTE, MINUTE + 2),
        log=st.sampled_from([OWN_LOG, "other/ticks"]),
        spread=st.none() | st.integers(0, 1),
    ),
    min_size=1,
    max_size=6,
)


@given(plain_candles, st.randoms(use_true_random=False))
def test_reduce_does_not_depend_on_order(candles: list[Candle], random: object) -> None:
    shuffled = list(candles)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert reduce_candles(shuffled, OWN_LOG) == reduce_candles(candles, OWN_LOG)


@given(true_candles, st.randoms(use_true_random=False), st.integers(1, 6))
def test_any_order_and_any_batches_end_in_one_candle(candles: list[Candle], random: object, batch: int) -> None:
    # Arrange
    shuffled = list(candles) + candles[:2]  # some of them twice
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    table = _Table()

    # Act
    for start in range(0, len(shuffled), batch):
        table.apply(reduce_candles(shuffled[start : start + batch], OWN_LOG))
    table.refold()

    # Assert: the fold of everything that any of them had read
    everything = normalized(r for one in candles for r in one.offsets)
    stored = table.stored
    assert stored is not None
    assert stored == folded(LOG, everything, closed=any(one.closed for one in candles))


class _Table:
    """The row of one key and its pending refold, as the SQL keeps them."""

    def __init__(self) -> None:
        self.stored: Candle | None = None
        self.pending: Ranges = ()
        self.closed = False

    def apply(self, reduced: Reduced) -> None:
        incoming, stored = reduced.candle, self.stored
        self.closed = self.closed or incoming.closed
        if stored is None or verdict(stored, incoming) is Verdict.REPLACED:
            self.stored = incoming
        assert self.stored is not None
        if not contains(self.stored.offsets, reduced.wanted):
            self.pending = union(union(self.pending, self.stored.offsets), reduced.wanted)
        self.stored = msgspec.structs.replace(self.stored, closed=self.closed)

    def refold(self) -> None:
        assert self.stored is not None
        self.stored = folded(LOG, union(self.pending, self.stored.offsets), closed=self.closed)
