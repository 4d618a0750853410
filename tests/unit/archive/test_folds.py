"""What is folded from the archive's columns is, byte for byte, what the fold makes of the log's frames."""

import itertools
import random
from collections.abc import Iterable
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from archive.writer import Writer
from marketdata.errors import ArchiveDamaged
from marketdata.fold import CandleFold
from marketdata.offsets import place, position
from marketdata.refold import Proof, Refold
from marketdata.summed import SummedFold
from marketdata.tick import ChartMode, Frame, Tick
from marketdata.timeframes import M1, Timeframe, timeframe_named
from marketdata.wire import encode
from runtime.archive.files import LocalFiles
from runtime.archive.manifest import Catalogue
from runtime.archive.reader import ArchiveReader
from tests.conftest import fewer_examples
from tests.days import DAYS, Day
from tests.unit.archive.test_writer import LOG, MIDNIGHT, logs
from tests.unit.marketdata.test_fold_properties import T0
from tests.unit.marketdata.test_runs import flows

#: Frames by their position in the log.
Log = list[tuple[int, Frame]]

#: What volumes there are besides those of `flows`: sums of these are exact as doubles, or are not.
VOLUMES = (0.0, -0.0, 1.0, 3.0, -2.0, 2.0**52, 2.0**53, 1e18, 1e300, 0.25)


def proofs_in(log: Log, timeframe: Timeframe = M1, rng: random.Random | None = None) -> list[Proof]:
    """All periods that the log touches, each from its first to its last record in a partition.

    With a random generator also from and to any other two of the records that touch it.
    """
    width_ms = timeframe.base_width_ms
    touched: dict[tuple[str, str, int, int], list[int]] = {}
    for at, frame in log:
        for tick in frame.ticks:
            ts = tick.time_msc - tick.time_msc % width_ms
            touched.setdefault((frame.source, frame.symbol, ts, place(at)[0]), []).append(place(at)[1])
    proofs = []
    for (source, symbol, ts, partition), offsets in touched.items():
        pairs = [offsets] if rng is None else [offsets, rng.choices(offsets, k=2)]
        for pair in pairs:
            proofs.append(Proof(source, symbol, ts, ((partition, min(pair), max(pair)),), timeframe))
    return list(dict.fromkeys(proofs))


def told(folds: Iterable[tuple[Proof, CandleFold]]) -> dict[Proof, tuple[bytes, object]]:
    """The bytes of each candle, and what its fold has although it may make no candle."""
    return {
        proof: (
            b"" if (candle := fold.candle(log=LOG, offsets=proof.ranges, closed=True, emitted=0)) is None
            else encode(candle),
            (fold.volume, fold.real_volume, fold.spread, fold.earliest, fold.latest, fold.received, fold.ticks_held),
        )
        for proof, fold in folds
    }  # fmt: skip


def by_frames(log: Log, proofs: list[Proof]) -> dict[Proof, tuple[bytes, object]]:
    refold = Refold(proofs)
    refold.feed(log)
    return told(refold.results().items())


def archived(root: Path, log: Log, *, cut: int = 100_000, merged: bool = False) -> ArchiveReader:
    """An archive of the log, so many frames at a flush."""
    catalogue = Catalogue(LocalFiles(root), LOG)
    for partition, group in itertools.groupby(log, key=lambda one: place(one[0])[0]):
        rest = [(place(at)[1], frame) for at, frame in group]
        writer = Writer(catalogue)
        first = writer.resume(partition)
        while rest:
            part, rest = rest[:cut], rest[cut:]
            last = part[-1][0]
            writer.add(partition, first, last, part)
            writer.flush(partition)
            first = last + 1
        if merged:
            for date in list(catalogue.progress(partition).days):
                writer.merge(partition, date, at_least=2)
    return ArchiveReader(catalogue)


def by_columns(reader: ArchiveReader, proofs: list[Proof]) -> dict[Proof, SummedFold]:
    found: dict[Proof, SummedFold] = {}
    for _, folds in reader.folds(proofs):
        found |= folds
    return found


@st.composite
def days(draw: st.DrawFn) -> Log:
    """Flow of two symbols in two partitions on both sides of midnight, with whatever a log may have."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    shift_ms = MIDNIGHT - draw(st.sampled_from([0, 1_000, 60_000, 200_000])) - T0
    traded = draw(st.sampled_from([VOLUMES, VOLUMES[:4], VOLUMES[:1]]))

    def moved(tick: Tick) -> Tick:
        return replace(tick, time_msc=tick.time_msc + shift_ms, volume=rng.choice(traded))

    log: Log = []
    for partition in range(draw(st.integers(1, 2))):
        offset = draw(st.sampled_from([0, 5]))
        for frame in draw(flows()):
            ticks = list(map(moved, frame.ticks))
            if rng.random() < 0.02:
                rng.shuffle(ticks)
            log.append((position(partition, offset), replace(frame, ticks=ticks)))
            offset += rng.choice([1, 1, 1, 2])
    return log


@fewer_examples
@given(
    st.one_of(days(), logs()),
    st.integers(1, 40), st.booleans(), st.sampled_from([1, 7, 1_000]),
    st.sampled_from([M1, timeframe_named("S5"), timeframe_named("H1")]), st.randoms(use_true_random=False),
)  # fmt: skip
def test_a_fold_of_columns_is_byte_equal_to_one_of_frames(  # noqa: PLR0917 - hypothesis gives them by their place
    tmp_path_factory: pytest.TempPathFactory,
    log: Log,
    cut: int,
    merged: bool,
    rows: int,
    timeframe: Timeframe,
    rng: random.Random,
) -> None:
    proofs = proofs_in(log, timeframe, rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.archive.columns.ROW_GROUP_TICKS", 5 * rows)
        patch.setattr("runtime.archive.folds._BATCH_ROWS", rows)
        patch.setattr("runtime.archive.folds._MOST_HELD", 4 * rows)
        patch.setattr("runtime.archive.sums._PLAIN_ROWS", 1)
        found = by_columns(archived(tmp_path_factory.mktemp("archive"), log, cut=cut, merged=merged), proofs)
    expected = by_frames(log, proofs)
    assert told(found.items()) == {proof: expected[proof] for proof in found}


def of_day(day: Day, size: int, *symbols: str, after_ms: int = 0) -> Log:
    """The day's quotes for each symbol in frames of so many, moved by `after_ms`."""
    return list(enumerate(
        Frame(
            v=1, source="s", symbol=symbol, mode="bid", point=0.00001, request=f"r{begin}", received=begin,
            ticks=[replace(tick, time_msc=tick.time_msc + after_ms) for tick in day.ticks[begin : begin + size]],
        )
        for begin in range(0, len(day.ticks), size) for symbol in symbols
    ))  # fmt: skip


@pytest.mark.parametrize("size", [1, 200])
@pytest.mark.parametrize(
    "day",
    [
        *(day.beginning(hours=3) for day in DAYS),
        *(pytest.param(day, marks=[pytest.mark.full, pytest.mark.long(25)]) for day in DAYS),
    ],
    ids=lambda day: day.name,
)
def test_a_day_is_folded_from_its_columns_alone(
    tmp_path: Path, day: Day, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over midnight, so that a frame of 200 lies in two files; each has several row groups."""
    monkeypatch.setattr("runtime.archive.columns.ROW_GROUP_TICKS", 1_000)
    monkeypatch.setattr("runtime.archive.folds._BATCH_ROWS", 1_000)
    log = of_day(day, size, "A", "B", after_ms=-5_400_000)
    proofs = proofs_in(log)

    found = by_columns(archived(tmp_path, log, merged=True), proofs)

    assert told(found.items()) == by_frames(log, proofs)
    assert found.keys() == set(proofs)
    assert len({proof.ts for proof in proofs}) > 170


@pytest.mark.parametrize("mode", ["bid", "last"])
@pytest.mark.parametrize(
    ("prices", "are_found"),
    [((1.1, 0.0, 1.2), True), ((1.1, -0.0, -3.5), True), ((0.0, 0.0, 0.0), True), ((1.1, inf, 1.2), False)],
)
def test_what_is_no_price_draws_nothing(
    tmp_path: Path, mode: ChartMode, prices: tuple[float, ...], are_found: bool
) -> None:
    log: Log = [
        (offset, Frame(
            v=1, source="s", symbol="A", mode=mode, point=0.01, request="", received=T0 + offset,
            ticks=[Tick(T0 + offset, price, 1.3, price, 2.0, 24)],
        ))
        for offset, price in enumerate(prices)
    ]  # fmt: skip
    proofs = proofs_in(log)

    found = by_columns(archived(tmp_path, log), proofs)

    assert found.keys() == (set(proofs) if are_found else set())
    assert told(found.items()) == {proof: by_frames(log, proofs)[proof] for proof in found}


def test_a_late_tick_leaves_the_other_minutes_to_the_columns(tmp_path: Path) -> None:
    log = of_day(DAYS[0].beginning(hours=1), 1, "A")
    late = replace(log[500][1], request="late")
    log.append((len(log), late))
    proofs = proofs_in(log)

    found = by_columns(archived(tmp_path, log), proofs)

    expected = by_frames(log, proofs)
    assert told(found.items()) == {proof: expected[proof] for proof in found}
    minute = late.ticks[0].time_msc // 60_000 * 60_000
    assert {proof.ts for proof in proofs} - {proof.ts for proof in found} == {minute}


def test_what_is_damaged_is_left_to_the_fold_of_frames(tmp_path: Path) -> None:
    log = of_day(DAYS[0].beginning(hours=1), 200, "A")
    reader = archived(tmp_path, log)
    [path] = tmp_path.rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:5_000])

    assert by_columns(reader, proofs_in(log)) == {}
    with pytest.raises(ArchiveDamaged, match="parquet"):
        next(reader.flows(0, 0, len(log)))


def test_a_frame_that_is_cut_between_row_groups_is_folded_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last tick, in the second group, goes back into the minute that the first group seems to have left."""
    monkeypatch.setattr("runtime.archive.columns.ROW_GROUP_TICKS", 2)
    monkeypatch.setattr("runtime.archive.folds._BATCH_ROWS", 1)
    monkeypatch.setattr("runtime.archive.sums._PLAIN_ROWS", 1)
    ticks = [Tick(T0 + after_ms, 1.1, 1.2, 0.0, 0.0, 6) for after_ms in (1_000, 61_000, 2_000)]
    frame = Frame(v=1, source="s", symbol="A", mode="bid", point=0.01, request="", received=T0, ticks=ticks)
    log: Log = [(0, frame), (1, replace(frame, ticks=[replace(ticks[1], time_msc=T0 + 121_000)]))]
    proofs = proofs_in(log)

    found = by_columns(archived(tmp_path, log), proofs)

    assert told(found.items()) == {proof: by_frames(log, proofs)[proof] for proof in found}
    assert [proof.ts for proof in found] == [T0 + 120_000]
