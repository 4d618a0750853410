"""Whether the rows of a file are plain forward flow is what the passes of their frames say."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.fold import split_by_period
from marketdata.resends import Passes
from marketdata.tick import ChartMode, Frame, Tick
from runtime.archive.resends import Flow
from runtime.archive.rows import TickRows
from tests.unit.marketdata.test_runs import flows

T0 = 1_549_238_400_000


def is_forward(frames: list[Frame], cut: int) -> bool:
    """By the rows of so many frames at a time."""
    flow, rest = Flow(), enumerate(frames)
    while part := list(islice(rest, cut)):
        rows = TickRows(0)
        rows.add(part)
        flow.feed(rows.in_order()[0])
    return flow.is_forward


def is_one_pass(frames: list[Frame]) -> bool:
    passes = Passes()
    for frame in frames:
        earliest, latest, _ = split_by_period(frame)
        passes.enter(frame, earliest, latest)
    return passes.number == 0


@given(flows(), st.integers(1, 30))
def test_rows_are_forward_flow_as_their_frames_are_one_pass(frames: list[Frame], cut: int) -> None:
    for symbol in "AB":
        some = [frame for frame in frames if frame.symbol == symbol]
        assert is_forward(some, cut) == is_one_pass(some)


def frame(*ticks: tuple[int, float, int], request: str = "r", mode: ChartMode = "bid", coarse: bool = False) -> Frame:
    """Of ticks by time after `T0`, bid and flags."""
    return Frame(
        v=1, source="s", symbol="A", mode=mode, point=None, request=request, received=T0, coarse=coarse,
        ticks=[Tick(T0 + after_ms, bid, 1.2, 0.0, 0.0, flags) for after_ms, bid, flags in ticks],
    )  # fmt: skip


A, B = (7, 1.1, 6), (7, 1.3, 6)


@pytest.mark.parametrize("cut", [1, 9])
@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([frame(A), frame(B, request="2")], True),
        ([frame(A), frame(A, request="2")], False),
        # Bits that only live ticks have tell no tick from another one.
        ([frame(A), frame((7, 1.1, 1030), request="2")], False),
        ([frame(A), frame(A, B, request="2")], False),
        ([frame(A), frame(B, A, request="2")], True),
        # The tail of the first frame is what the second begins with, from its first tick on.
        ([frame(A, B), frame(A, B, (8, 1.1, 6), request="2")], False),
        ([frame((6, 1.1, 6), A, B), frame(A, request="2")], False),
        ([frame((6, 1.1, 6), A, B), frame(B, request="2")], True),
        # Deals are told by the whole frame, equal ticks in whole seconds by the record.
        ([frame((6, 1.1, 6), A, mode="last"), frame(A, request="2", mode="last")], True),
        ([frame(A, coarse=True), frame(A, request="2", coarse=True)], True),
        ([frame(A, coarse=True), frame(A, coarse=True)], False),
        # Within a frame time may go back; its latest tick is where it ends.
        ([frame(B, (5, 1.1, 6)), frame((6, 1.1, 6), request="2")], False),
        ([frame((5, 1.1, 6), B, (6, 1.1, 6)), frame((7, 1.4, 6), (6, 1.1, 6), request="2")], False),
    ],
)  # fmt: skip
def test_a_frame_that_begins_where_the_one_before_ended(frames: list[Frame], expected: bool, cut: int) -> None:
    assert is_one_pass(frames) == expected
    assert is_forward(frames, cut) == expected
