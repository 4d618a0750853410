"""Ticks of one symbol that are too many for one record; which symbols are charted by last price."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from marketdata.resends import Passes
from marketdata.tick import Frame, Tick
from marketdata.wire import encode
from producer.records import MAX_RECORD_TICKS, ChartModes, record_parts
from runtime.kafka import MAX_RECORD_BYTES


def ticks_at(times: Sequence[int]) -> list[Tick]:
    return [Tick(time, 1.1, 1.2, 0.0, 0.0, 6) for time in times]


def frame_of(ticks: list[Tick], symbol: str = "EURUSD") -> Frame:
    return Frame(v=1, source="A", symbol=symbol, mode="bid", point=None, request="t", received=0, ticks=ticks)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.booleans())
def test_parts_hold_every_tick_in_order_and_end_between_times(steps: list[int], shuffled: bool) -> None:
    times = steps if shuffled else [sum(steps[: n + 1]) // 4 for n in range(len(steps))]
    ticks = ticks_at(times)

    parts = [ticks[part] for part in record_parts(times, usual=5, most=12)]

    assert [tick for part in parts for tick in part] == ticks
    assert all(0 < len(part) <= 12 for part in parts) or len(ticks) <= 5
    for before, after in pairwise(parts):
        # Only a part that may not grow any more ends anywhere else.
        assert len(before) == 12 or max(t.time_msc for t in before) < min(t.time_msc for t in after)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=60))
def test_equal_ticks_cut_into_records_stay_one_pass_and_are_no_resend(repeated: list[int]) -> None:
    times = [ms for ms, ticks in enumerate(repeated) for _ in range(ticks)]
    passes = Passes()

    for part in record_parts(times, usual=5, most=12):
        passes.enter(frame_of(ticks_at(times[part])), times[part][0], times[part][-1])

    assert passes.number == 0


def test_the_longest_part_of_the_longest_ticks_fits_into_a_record() -> None:
    price = -1.2345678901234567e-300
    longest = Tick(253402300799999, price, price, price, price, 2**63 - 1)
    frame = frame_of([longest] * MAX_RECORD_TICKS, "Г" * 32)

    assert len(encode(frame)) < MAX_RECORD_BYTES - 4096


def test_chart_modes_follow_the_patterns() -> None:
    modes = ChartModes(["PETR4", "WIN*", "[SP500]"])

    assert [modes[symbol] for symbol in ("PETR4", "WINZ25", "[SP500]", "petr4", "EURUSD", "EURUSD")] == [
        "last", "last", "last", "bid", "bid", "bid",
    ]  # fmt: skip
