"""A fold over several partitions: every record counts once, however the log is spread, split and repeated."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdata.candle import PROVEN_FIELDS, Candle
from marketdata.offsets import Ranges, contains, normalized, place, position, union
from marketdata.refold import BRIDGE_RECORDS, Proof, Refold, bridged
from marketdata.rule import Reduced, Verdict, reduce_candles, verdict
from marketdata.tick import Frame, Tick
from marketdata.timeframes import timeframe_named
from stream_app.window import Window
from tests import oracle
from tests.unit.marketdata.test_fold_properties import LOGS, T0

Log = list[tuple[int, Frame]]


def spread(frames: list[Frame], rng: random.Random, partitions: int) -> Log:
    """The frames in order of positions, each put into any partition."""
    ends = [0] * partitions
    log: Log = []
    for frame in frames:
        partition = rng.randrange(partitions)
        log.append((position(partition, ends[partition]), frame))
        ends[partition] += 1
    return sorted(log, key=lambda record: record[0])


def refolded(log: Log, proof: Proof, *, closed: bool = False) -> Candle | None:
    refold = Refold([proof])
    refold.feed(log)
    return refold.results()[proof].candle(log="l", offsets=proof.ranges, closed=closed, emitted=0)


def emitted(log: Log, rng: random.Random) -> list[Candle]:
    """What workers publish that fold the partitions in polls; after the first, others begin anywhere."""
    candles: list[Candle] = []
    for partition in {place(at)[0] for at, _ in log}:
        own = [(place(at)[1], frame) for at, frame in log if place(at)[0] == partition]
        for reader in range(rng.randint(1, 3)):
            window = Window(log="l", partition=partition, grace_ms=5_000)
            start = rng.randrange(len(own)) if reader else 0
            while start < len(own):
                poll = own[start : start + rng.randint(1, 4)]
                window.feed(poll[0][0], poll[-1][0], [poll], now=0.0)
                start += len(poll)
                made = [e.candle for e in window.emissions(wall_ms=T0 + 1_000_000, now=0.0)]
                candles += [candle for candle in made if candle is not None]
    return candles


class Table:
    """The row of one key as the sink keeps it."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.stored: Candle | None = None
        self._pending: Ranges = ()

    def apply(self, reduced: Reduced) -> None:
        incoming = reduced.candle
        if self.stored is None or verdict(self.stored, incoming) is Verdict.REPLACED:
            self.stored = incoming
        if not contains(self.stored.offsets, reduced.wanted):
            self._pending = union(self._pending, reduced.wanted)

    def refold(self) -> None:
        if self.stored is not None and self._pending:
            proof = Proof(
                self.stored.source, self.stored.symbol, self.stored.ts, union(self.stored.offsets, self._pending)
            )
            self.stored, self._pending = refolded(self._log, proof), ()


def tables(log: Log, candles: Iterable[Candle], rng: random.Random) -> dict[tuple[str, int], Candle]:
    """What is stored when candles come in batches of any size and refolds happen in between."""
    by_key: dict[tuple[str, int], list[Candle]] = {}
    for candle in candles:
        by_key.setdefault((candle.symbol, candle.ts), []).append(candle)
    found = {}
    for key, own in by_key.items():
        table = Table(log)
        rng.shuffle(own)
        while own:
            batch = [own.pop() for _ in range(min(len(own), rng.randint(1, 5)))]
            table.apply(reduce_candles(batch, "l"))
            if rng.random() < 0.3:
                table.refold()
        table.refold()
        assert table.stored is not None
        found[key] = table.stored
    return found


@given(LOGS, st.integers(1, 4), st.integers(0, 2**32))
def test_any_split_over_partitions_with_any_repetition_ends_in_the_fold_of_the_union(
    frames: list[Frame], partitions: int, seed: int
) -> None:
    rng = random.Random(seed)
    log = spread(frames + rng.sample(frames, rng.randint(0, len(frames))), rng, partitions)

    stored = tables(log, emitted(log, rng), rng)

    for (symbol, ts), candle in stored.items():
        expected = oracle.fold(log, "s", symbol, ts, candle.offsets)
        assert expected is not None
        assert {name: getattr(candle, name) for name in PROVEN_FIELDS} == expected.__dict__
        # Nothing that touches the minute is left out; a partition where no tick of it has a price has no candle.
        touching = oracle.minutes_in(log)["s", symbol, ts]
        for partition, first, last in touching:
            alone = oracle.fold(log, "s", symbol, ts, ((partition, first, last),))
            assert alone is None or contains(candle.offsets, ((partition, first, last),))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32))
def test_distinct_ticks_all_count_wherever_they_lie(partitions: int, frame_size: int, seed: int) -> None:
    rng = random.Random(seed)
    ticks = [Tick(T0 + i * 700, 1.1 + i / 1000, 1.4, 0.0, 0.5, 56) for i in range(80)]
    frames = [
        Frame(
            v=1, source="s", symbol="A", mode="bid", point=0.1, request=str(i), received=T0 + i,
            ticks=ticks[i : i + frame_size],
        )
        for i in range(0, len(ticks), frame_size)
    ]  # fmt: skip
    again = rng.sample(frames, len(frames) // 2)  # what two partitions hold counts once
    log = spread(frames + again, rng, partitions)

    stored = tables(log, emitted(log, rng), rng)

    assert {ts: candle.volume for (_, ts), candle in stored.items()} == {T0: 80}
    assert (stored["A", T0].open, stored["A", T0].close, stored["A", T0].real_volume) == (1.1, 1.1 + 79 / 1000, 40.0)


def test_what_is_read_is_bridged_within_a_partition_only() -> None:
    far = BRIDGE_RECORDS + 10
    assert bridged([(1, 0, 3), (0, 20, 25), (0, 7, 9), (0, far + 26, far + 30)]) == (
        (0, 7, 25),
        (0, far + 26, far + 30),
        (1, 0, 3),
    )


@pytest.mark.parametrize("name", ["S1", "S5", "S30", "M1", "M5"])
@settings(max_examples=30)
@given(frames=LOGS, seed=st.integers(0, 2**32))
def test_any_base_timeframe_folds_in_the_window_and_again_from_the_log(
    name: str, frames: list[Frame], seed: int
) -> None:
    """Nothing but the timeframe that is given differs: no minute is built into the fold."""
    timeframe = timeframe_named(name)
    width_ms = timeframe.base_width_ms
    log = list(enumerate(frames))
    window = Window(log="l", partition=0, grace_ms=5_000, timeframe=timeframe)
    rng = random.Random(seed)
    start = 0
    while start < len(log):
        poll = log[start : start + rng.randint(1, 6)]
        window.feed(poll[0][0], poll[-1][0], [poll], now=0.0)
        start += len(poll)

    made = [e.candle for e in window.emissions(wall_ms=T0 + 1_000_000, now=0.0)]
    candles = [candle for candle in made if candle is not None]

    proofs = {Proof(c.source, c.symbol, c.ts, c.offsets, timeframe): c for c in candles}
    refold = Refold(proofs)
    refold.feed(log)
    for proof, fold in refold.results().items():
        again = fold.candle(log="l", offsets=proof.ranges, closed=proofs[proof].closed, emitted=proofs[proof].emitted)
        assert again == proofs[proof]
    for candle in candles:
        assert (candle.timeframe, candle.ts % width_ms) == (name, 0)
        assert candle.ts <= candle.first_tick <= candle.last_tick < candle.ts + width_ms


def test_a_refold_keeps_timeframes_apart() -> None:
    five, minute = timeframe_named("S5"), timeframe_named("M1")
    ticks = [Tick(T0 + i * 1_000, 1.1 + i / 100, 1.4, 0.0, 0.0, 6) for i in range(60)]
    frame = Frame(v=1, source="s", symbol="A", mode="bid", point=None, request="r", received=T0, ticks=ticks)
    proofs = [Proof("s", "A", T0, ((0, 0, 0),), minute), Proof("s", "A", T0 + 5_000, ((0, 0, 0),), five)]

    refold = Refold(proofs)
    refold.feed([(0, frame)])

    assert [fold.volume for fold in refold.results().values()] == [60, 5]


def test_seconds_of_a_run_are_the_candles_of_the_naive_fold() -> None:
    """Sixty ticks, one a second: twelve candles of five ticks, each from its first to its last bid."""
    ticks = [Tick(T0 + i * 1_000, 1.0 + i, 100.0, 0.0, 0.0, 6) for i in range(60)]
    log = [
        (n, Frame(v=1, source="s", symbol="A", mode="bid", point=None, request=str(n), received=T0, ticks=[tick]))
        for n, tick in enumerate(ticks)
    ]
    window = Window(log="l", partition=0, grace_ms=5_000, timeframe=timeframe_named("S5"))
    window.feed(0, 59, [log], now=0.0)

    candles = [e.candle for e in window.emissions(wall_ms=T0 + 1_000_000, now=0.0)]

    assert sorted((c.ts - T0, c.open, c.high, c.low, c.close, c.volume, c.closed) for c in candles if c) == [
        (n * 5_000, 1.0 + n * 5, 5.0 + n * 5, 1.0 + n * 5, 5.0 + n * 5, 5, n < 10) for n in range(12)
    ]


def test_normalized_proofs_of_two_partitions_are_not_one_run() -> None:
    assert normalized([(0, 0, 4), (1, 5, 9)]) == ((0, 0, 4), (1, 5, 9))
