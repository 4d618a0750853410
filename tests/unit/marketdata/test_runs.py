"""Folding whole runs gives the very bytes that folding frame by frame gives, whatever the log holds."""

import random
from collections.abc import Iterator
from itertools import chain, pairwise
from math import inf, isinf
from typing import Any, NamedTuple, cast
from unittest.mock import patch

import msgspec
import pytest
from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from marketdata.offsets import Ranges, from_spans, normalized
from marketdata.pieces import in_pieces
from marketdata.refold import CountedTicks, Proof, Refold, TooManyTicks
from marketdata.resends import FullMinutes
from marketdata.runs import Run
from marketdata.tick import ChartMode, Columns, Frame, Tick
from marketdata.wire import MIN_TICKS, decode_frames, encode
from stream_app.window import Window
from tests import oracle
from tests.unit.marketdata.test_fold_properties import LOGS, T0

Log = list[tuple[int, Frame]]

#: Nothing is forgotten, and the clock has no part in what is folded.
WALL_MS = T0 + 1_000_000


@pytest.fixture(autouse=True)
def _short_runs() -> Iterator[None]:
    with patch("marketdata.runs.MIN_TICKS", 1):
        yield


@st.composite
def flows(draw: st.DrawFn) -> list[Frame]:
    """Forward flow of two symbols over some minutes, with resends, repeated records and wrong ticks here and there."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    faults = draw(st.sampled_from([0.0, 0.02, 0.2]))
    step_ms = draw(st.sampled_from([0, 1, 1_000, 9_000]))
    size = draw(st.integers(1, 5))
    coarse = draw(st.booleans())
    modes: list[ChartMode] = ["bid", "last"]
    mode = draw(st.sampled_from(modes))
    frames: list[Frame] = []
    now = T0
    for number in range(draw(st.integers(1, 60))):
        ticks = []
        for _ in range(rng.randint(1, size)):
            now += rng.randint(0, step_ms)
            # No NaN, which equals nothing, not even its own resend: JSON has none.
            bid, last = (
                rng.choice([0.0, inf, -1.0, 1e300]) if rng.random() < faults else rng.choice([0.4, 1.1, 1.3])
                for _ in range(2)
            )
            ask = rng.choice([0.0, inf]) if rng.random() < faults else rng.choice([0.45, 1.15, 1.4])
            ticks.append(Tick(now, bid, ask, last, rng.choice([0.0, 0.1, 2.0]), rng.choice([6, 6, 30, 1030])))
        frames.append(
            Frame(
                v=1, source="s", symbol=rng.choice("AB"), mode="last" if rng.random() < faults else mode,
                point=0.1 if rng.random() < faults else 0.01, request=str(number), received=T0 + number, ticks=ticks,
                coarse=coarse,
            )
        )  # fmt: skip
        if rng.random() < faults:
            frames += frames[-rng.randint(1, 4) :]  # the same records again
        if rng.random() < faults:
            now = max(T0, now - 61_000)  # late ticks
    return frames


def polls(log: Log, cuts: list[int]) -> list[Log]:
    """The log as polls; a poll begins at each cut, which may be where it began before: read again after a seek."""
    bounds = sorted({0, len(log), *(cut % (len(log) + 1) for cut in cuts)})
    return [log[begin:end] for begin, end in pairwise(bounds)]


def candles(log_polls: list[Log], *, emit_each: bool = False) -> dict[tuple[str, int], bytes]:
    """Key and bytes of the newest candle of every minute, and proof that the hold of the commit is the same."""
    window = Window(log="l", partition=0, grace_ms=5_000)
    newest: dict[tuple[str, int], bytes] = {}
    for poll in log_polls:
        window.feed(poll[0][0], poll[-1][0], [poll], now=0.0)
        if emit_each:
            newest |= emitted(window)
    newest |= emitted(window)
    newest["hold", 0] = str((window.safe_offset, window.position, window.ticks_held)).encode()
    return newest


def emitted(window: Window) -> dict[tuple[str, int], bytes]:
    found = {}
    for emission in window.emissions(wall_ms=WALL_MS, now=0.0):
        window.settle(emission)
        if emission.candle is not None:
            found[emission.candle.symbol, emission.candle.ts] = encode(emission.candle)
    return found


def frame_by_frame(log_polls: list[Log], *, emit_each: bool = False) -> dict[tuple[str, int], bytes]:
    with patch.object(Run, "of", return_value=None):
        return candles(log_polls, emit_each=emit_each)


def in_order_of_the_log(log_polls: list[Log], *, emit_each: bool = False) -> dict[tuple[str, int], bytes]:
    """As with many symbols, whose frames are not sorted by symbol; a frame of some ticks is a run by itself."""
    with patch("stream_app.window.too_few", return_value=True):
        return candles(log_polls, emit_each=emit_each)


def by_columns(log_polls: list[Log], seed: int) -> list[Log]:
    """The same log with the ticks of some frames as columns, of all where `seed` is 0; some come from a record."""
    rng = random.Random(seed)

    def changed(frame: Frame) -> Frame:
        if seed and rng.random() < 0.5:
            return frame
        changed = msgspec.structs.replace(frame, v=2, ticks=Columns.of(list(frame.ticks)))
        # Infinity is in no record.
        if rng.random() < 0.2 or any(isinf(price) for tick in frame.ticks for price in (tick.bid, tick.ask, tick.last)):
            return changed
        [decoded] = decode_frames([encode(changed)]) or []
        return decoded

    return [[(offset, changed(frame)) for offset, frame in poll] for poll in log_polls]


CUTS = st.lists(st.integers(0, 100), max_size=5)

#: Offsets behind every generated log.
AFTER = ((0, 1_000, 1_001),)


@given(st.one_of(LOGS, flows()), CUTS, st.booleans())
def test_runs_give_the_bytes_of_frame_by_frame(frames: list[Frame], cuts: list[int], emit_each: bool) -> None:
    log_polls = polls(list(enumerate(frames, start=5)), cuts)

    plain = frame_by_frame(log_polls, emit_each=emit_each)
    assert candles(log_polls, emit_each=emit_each) == plain
    assert in_order_of_the_log(log_polls, emit_each=emit_each) == plain


@given(st.one_of(LOGS, flows()), CUTS, st.booleans(), st.integers(0, 3))
def test_columns_give_the_bytes_of_ticks(frames: list[Frame], cuts: list[int], emit_each: bool, seed: int) -> None:
    """As runs and frame by frame, alone and beside frames of the first version."""
    log_polls = polls(list(enumerate(frames, start=5)), cuts)
    columns = by_columns(log_polls, seed)
    expected = frame_by_frame(log_polls, emit_each=emit_each)

    assert candles(columns, emit_each=emit_each) == expected
    assert frame_by_frame(columns, emit_each=emit_each) == expected


@given(flows(), st.integers(0, 100), st.integers(0, 100))
def test_a_crash_or_a_hole_changes_nothing_about_that(frames: list[Frame], crash: int, back: int) -> None:
    """The same log from `back` on after a crash, and once more without the records in between."""
    log = list(enumerate(frames))
    crash, back = crash % len(log), back % len(log)
    again = [poll for poll in (log[: crash + 1], log[min(back, crash) :]) if poll]
    hole = [poll for poll in (log[: crash + 1], log[crash + 2 :]) if poll]

    assert candles(again) == frame_by_frame(again)
    assert candles(hole) == frame_by_frame(hole)


def refolded(log_polls: list[Log], proofs: list[Proof]) -> dict[Proof, tuple[bytes, int]]:
    """Bytes of every proof's candle, and what its fold counted although it makes no candle."""
    refold = Refold(proofs)
    for poll in log_polls:
        refold.feed(poll)
    return {
        proof: (
            msgspec.json.encode(fold.candle(log="l", offsets=from_spans(fold.spans), closed=True, emitted=0)),
            fold.volume,
        )
        for proof, fold in refold.results().items()
    }


def refolded_frame_by_frame(log_polls: list[Log], proofs: list[Proof]) -> dict[Proof, tuple[bytes, int]]:
    with patch.object(Run, "of", return_value=None):
        return refolded(log_polls, proofs)


PAIRS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=4)


@given(st.one_of(LOGS, flows()), CUTS, PAIRS)
def test_runs_refold_as_frame_by_frame(frames: list[Frame], cuts: list[int], pairs: list[tuple[int, int]]) -> None:
    """Every minute from the range that holds it, and from ranges that begin, end and have holes anywhere."""
    log = list(enumerate(frames, start=5))
    some = normalized((0, 5 + min(pair), 5 + max(pair)) for pair in pairs)
    proofs = [
        Proof(*key, ranges) for key, whole in oracle.minutes_in(log).items() for ranges in {whole, some, whole + AFTER}
    ]

    expected = refolded_frame_by_frame(polls(log, cuts), proofs)
    assert refolded(polls(log, cuts), proofs) == expected
    assert refolded(by_columns(polls(log, cuts), seed=1), proofs) == expected


def test_a_run_refolds_between_holes() -> None:
    log = list(enumerate(forward(1, 2, 3, 4, 59_999, 60_000, 60_001)))
    proof = Proof("s", "A", T0, ((0, 1, 2), (0, 4, 5)))

    fold = refolded([log], [proof])[proof]

    assert fold == refolded_frame_by_frame([log], [proof])[proof]
    assert b'"volume":3' in fold[0]
    assert b'"offsets":[[0,1,2],[0,4,4]]' in fold[0]


def test_a_minute_whose_proof_ends_with_a_run_holds_no_ticks() -> None:
    log = list(enumerate(forward(1, 2, 59_999, 60_000, 60_001)))
    ends, goes_on = Proof("s", "A", T0, ((0, 0, 2),)), Proof("s", "A", T0 + 60_000, ((0, 3, 5),))

    Refold([ends], max_ticks=0).feed(log[:3])
    with pytest.raises(TooManyTicks):
        Refold([goes_on], max_ticks=1).feed(log)


def test_a_resend_of_the_end_of_a_run_in_the_next_poll_counts_once() -> None:
    log = list(enumerate([*forward(1, 2, 3), forward(1, 2, 3)[-1], *forward(4, 5)]))
    log_polls = [log[:3], log[3:]]

    assert candles(log_polls) == frame_by_frame(log_polls)
    assert b'"volume":5' in candles(log_polls)["A", T0]


def test_a_run_after_late_frames_of_the_same_poll_closes_as_frame_by_frame_does() -> None:
    """Late frames wait to be worked in, and the run that follows ends in the same millisecond."""
    log = list(enumerate(forward(9, 7, 9) + forward(9, 9)[1:]))
    log_polls = [log[:3], log[3:]]

    assert candles(log_polls) == frame_by_frame(log_polls)


def forward(*times: int, mode: ChartMode = "bid") -> list[Frame]:
    return [
        Frame(
            v=1, source="s", symbol="A", mode=mode, point=None, request=str(i), received=i,
            ticks=[Tick(T0 + time, 1.0 + i, 2.0, 0.0, 0.0, 6)],
        )
        for i, time in enumerate(times)
    ]  # fmt: skip


def test_forward_flow_is_a_run_cut_at_the_minutes() -> None:
    frames = forward(1, 2, 59_999, 60_000, 180_000)

    run = Run.of([3, 4, 7, 8, 9], frames)

    assert run is not None
    assert [(part.ts - T0, list(part.offsets), len(part.ticks)) for part in run.parts(60_000)] == [
        (0, [3, 4, 7], 3), (60_000, [8], 1), (180_000, [9], 1),
    ]  # fmt: skip


def test_a_frame_over_the_minute_belongs_to_both_parts() -> None:
    (first, second, third) = forward(1, 59_000, 60_001)
    second = Frame(
        v=1,
        source="s",
        symbol="A",
        mode="bid",
        point=None,
        request="x",
        received=1,
        ticks=[*second.ticks, *third.ticks],
    )

    run = Run.of([0, 1], [first, second])

    assert run is not None
    assert [list(part.offsets) for part in run.parts(60_000)] == [[0, 1], [1]]


def pieces(ticks: int, count: int, symbols: int) -> list[int]:
    """Records in each piece of so many records of so many ticks."""
    [tick] = forward(1)[0].ticks
    value = encode(msgspec.structs.replace(forward(1)[0], ticks=[tick] * ticks))
    records: list[Any] = [ConsumerRecord("t", 0, n, 0, 0, None, value, None, -1, len(value), ()) for n in range(count)]
    return [len(piece) for piece in in_pieces(records, symbols)]


def test_a_piece_has_runs_of_a_thousand_symbols_but_never_minutes_of_work() -> None:
    """A tick of each in a piece of a few symbols' size would be no run at all."""
    few, many = pieces(1, 20_000, symbols=8), pieces(1, 20_000, symbols=1_000)

    assert max(few) < 2_000
    assert many[0] >= 1_000 * MIN_TICKS
    assert sum(few) == sum(many) == 20_000
    for symbols in (1, 1_000, 1_000_000):
        assert max(pieces(200, 5_000, symbols)) * 200 <= 500_000, "ticks of large frames in one piece"
    assert pieces(1, 3, symbols=1_000) == [3], "what is there, without waiting for more"


@pytest.mark.parametrize(
    "frames",
    [
        forward(1, 3, 2),  # time goes back
        forward(1) + forward(1),  # one record, written twice
        forward(1) + forward(2, mode="last"),
    ],
)
def test_what_is_no_run_is_told(frames: list[Frame]) -> None:
    assert Run.of(range(len(frames)), frames) is None


class Row(NamedTuple):
    ts: int
    ranges: Ranges
    ticks: int


def without_a_fold(log: Log, cuts: list[int]) -> tuple[list[Tick], list[list[Tick]]]:
    """The ticks of A that come without a fold, and those that a fold counts of each minute."""
    proofs = [
        Proof(*key, normalized(ranges)) for key, ranges in sorted(oracle.minutes_in(log).items()) if key[1] == "A"
    ]
    refold = Refold(proofs, CountedTicks)
    refold.feed(log)
    counted = {proof.ts: list(cast(CountedTicks, fold).ticks()) for proof, fold in refold.results().items()}
    full = FullMinutes([Row(proof.ts, proof.ranges, len(counted[proof.ts])) for proof in proofs])
    found: list[Tick] = []
    for poll in polls(log, cuts):
        found += full.feed([frame for _, frame in poll if frame.symbol == "A"], poll[-1][0]) or ()
        if not full.is_whole:
            break
    return found, [counted[proof.ts] for proof in proofs]


@given(flows(), st.lists(st.integers(0, 200), max_size=6))
def test_ticks_without_a_fold_are_those_that_it_counts(frames: list[Frame], cuts: list[int]) -> None:
    found, minutes = without_a_fold(list(enumerate(frames)), cuts)
    assert found in [list(chain.from_iterable(minutes[:number])) for number in range(len(minutes) + 1)]


def test_forward_flow_needs_no_fold_and_a_resend_does() -> None:
    ticks = [Tick(T0 + n * 20_000, 1.1, 1.2, 0.0, 0.0, 6) for n in range(12)]
    frames = [
        Frame(v=1, source="s", symbol="A", mode="bid", point=0.01, request="", received=T0, ticks=[tick])
        for tick in ticks
    ]
    assert without_a_fold(list(enumerate(frames)), [5]) == (ticks, [ticks[n : n + 3] for n in range(0, 12, 3)])

    # The seventh, which begins the third minute, once more.
    found, _ = without_a_fold(list(enumerate([*frames[:7], frames[6], *frames[7:]])), [7])
    assert found == ticks[:6]
