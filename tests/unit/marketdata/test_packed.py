"""Ticks that are kept for resends come back as they were."""

from hypothesis import given
from hypothesis import strategies as st

from marketdata.packed import PACK_TICKS, PackedTicks
from marketdata.tick import MAX_TIME_MSC, Tick

PRICES = st.floats(allow_nan=False)
TICKS = st.builds(
    Tick,
    time_msc=st.integers(0, MAX_TIME_MSC),
    bid=PRICES,
    ask=PRICES,
    last=PRICES,
    volume=PRICES,
    flags=st.one_of(st.just(6), st.integers()),  # JSON sets no limit to a whole number
)


@given(st.lists(st.lists(TICKS, max_size=5).map(lambda ticks: ticks * 20), max_size=8))
def test_ticks_come_back_in_their_order(batches: list[list[Tick]]) -> None:
    kept = PackedTicks()
    for batch in batches:
        kept.add(batch)

    together = [tick for batch in batches for tick in batch]
    assert list(kept) == together
    assert len(kept) == len(together)


def test_what_is_kept_is_packed() -> None:
    kept = PackedTicks()
    ticks = [Tick(1_549_238_400_000 + i, 1.1, 1.2, 0.0, 0.0, 6) for i in range(PACK_TICKS)]

    kept.add(ticks)

    (block,) = kept._packed
    assert isinstance(block, bytes)
    assert len(block) < 60 * PACK_TICKS
