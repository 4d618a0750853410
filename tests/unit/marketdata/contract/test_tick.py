"""What is written is what is read, and where a request of ticks may be cut."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.contract.bar import PostedBar, read_bar
from marketdata.contract.tick import POINTS, middle_change, posted_tick, read_tick
from marketdata.contract.times import Clock, Instant, offset_zone
from marketdata.errors import InvalidItem
from marketdata.tick import Tick

PRICES = st.floats(-1e6, 1e6, allow_nan=False)
SECOND = 1_760_926_800_000

TICKS = st.builds(
    Tick,
    time_msc=st.integers(SECOND, SECOND + 5_000),
    bid=PRICES,
    ask=PRICES,
    last=PRICES,
    volume=st.floats(0, 1e9, allow_nan=False),
    flags=st.integers(0, 2**63 - 1),
)


@given(tick=TICKS, digits=st.none() | st.integers(0, 8), coarse=st.booleans(), is_instant=st.booleans())
def test_a_posted_tick_is_read_as_it_was(tick: Tick, digits: int | None, *, coarse: bool, is_instant: bool) -> None:
    posted = posted_tick(tick, "EURUSD", digits=digits, coarse=coarse, is_instant=is_instant)

    read = read_tick(msgspec.json.decode(msgspec.json.encode(posted)))

    # Only what the sender's clock showed is shifted by its zone.
    moment = Clock(offset_zone(7_200), None).utc_ms(read.time)
    assert read.at(moment if is_instant else moment + 7_200_000) == tick
    assert isinstance(read.time, Instant) is is_instant
    assert (read.symbol, read.mode) == ("EURUSD", None)
    assert read.point == (None if digits is None else POINTS[digits])
    # Milliseconds are claimed only where there are some.
    assert read.time.coarse is (coarse and tick.time_msc % 1000 == 0)


def test_a_posted_bar_is_read_as_it_was() -> None:
    posted = PostedBar("EURUSD", "H1", "2025-10-20T02:00:00Z", 1.2, 1.3, -1.1, 1.25, tick_volume=42, spread=6)

    read = read_bar(msgspec.json.decode(msgspec.json.encode(posted)))

    assert (read.symbol, read.timeframe, read.time.ms) == ("EURUSD", "H1", SECOND - 1_200_000)
    assert (read.open, read.high, read.low, read.close) == (1.2, 1.3, -1.1, 1.25)
    assert (read.volume, read.real_volume, read.spread) == (42, None, 6)


@pytest.mark.parametrize(
    ("times", "cut"),
    [([1, 2, 3, 4], 2), ([1, 1, 1, 2], 3), ([1, 2, 2, 2], 1), ([1, 1, 2, 2, 2, 2], 2), ([1, 1, 1, 1], 2), ([1, 2], 1)],
)
def test_a_request_is_cut_between_two_times(times: list[int], cut: int) -> None:
    assert middle_change(times) == cut


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (
            {"source": "S", "data": [{"symbol": "EURUSD"}]},
            "missing; items are looked for in `ticks` or `items`, not in 'data'",
        ),
        ({"data": []}, "missing"),
        ({"data": [1.1, 1.2]}, "missing"),
    ],
)
def test_items_under_another_name_are_told_theirs(item: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidItem) as refused:
        read_tick(item)
    assert (refused.value.field, refused.value.message) == ("symbol", said)
