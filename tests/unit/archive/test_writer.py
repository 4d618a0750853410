"""What the archive gives back is what went in: frame by frame, fold by fold, whatever was interrupted."""

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from archive.writer import Writer
from marketdata.candle import Candle
from marketdata.errors import ArchiveDamaged, ArchiveFenced, ArchiveUnavailable
from marketdata.offsets import normalized, position
from marketdata.refold import Proof, Refold
from marketdata.tick import Frame, Tick
from marketdata.wire import encode
from runtime.archive.files import LocalFiles
from runtime.archive.manifest import DAY_MS, Catalogue, folder_name
from runtime.archive.reader import ArchiveReader, read_whole
from tests import oracle

LOG = "cluster/ticks/id"
MIDNIGHT = 1_549_238_400_000 + DAY_MS

Log = list[tuple[int, Frame]]

PRICES = st.sampled_from([0.0, -0.0, 0.1, 1.10001, -37.63, 1e15])
FRAMES = st.builds(
    Frame,
    v=st.just(1),
    source=st.sampled_from(["s", "a/b"]),
    symbol=st.sampled_from(["EURUSD", "WIN$", "Ünï 100%", "x" * 32, "\U0001f4c8" * 32]),
    mode=st.sampled_from(["bid", "last"]),
    point=st.sampled_from([None, 0.01, 0.00001]),
    request=st.text(max_size=3),
    received=st.integers(0, 253_402_300_799_999),
    ticks=st.lists(
        st.builds(
            Tick,
            # On both sides of midnight, so that frames lie in the files of two days, and at both ends of time.
            time_msc=st.integers(MIDNIGHT - 90_000, MIDNIGHT + 90_000) | st.sampled_from([0, 253_402_300_799_999]),
            bid=PRICES, ask=PRICES, last=PRICES, volume=PRICES,
            flags=st.sampled_from([0, 6, 1030, 2**63 - 1, -(2**63)]),
        ),
        min_size=1, max_size=5,
    ),
    coarse=st.booleans(),
)  # fmt: skip
#: Of each record its frame, and how many offsets lie before it that hold no frame.
RECORDS = st.lists(st.tuples(FRAMES, st.sampled_from([0, 0, 0, 1, 7])), min_size=1, max_size=20)


class Archive:
    """An archive in a folder, and what is written to it."""

    def __init__(self, root: Path) -> None:
        self.files = LocalFiles(root)
        self.catalogue = Catalogue(self.files, LOG)

    def write(self, log: Log, *, cut: int = 3, end: int | None = None) -> None:
        """Go on where the archive ends, `cut` frames at a flush; the log ends with offset `end`."""
        writer = Writer(self.catalogue)
        first = writer.resume(0)
        rest = [(offset, frame) for offset, frame in log if offset >= first]
        while rest:
            part, rest = rest[:cut], rest[cut:]
            last = rest[0][0] - 1 if rest else end or part[-1][0]
            writer.add(0, first, last, part)
            writer.flush(0)
            first = last + 1

    def read(self, first: int = 0, last: int = 1 << 40, **options: Any) -> Log:
        reader = ArchiveReader(self.catalogue)
        return [one for chunk in reader.read(0, first, last, **options) for one in chunk]

    def stored_files(self) -> set[str]:
        root = Path(self.files.full(""))
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


def frames(count: int, *, symbol: str = "EURUSD", per_frame: int = 2, time_msc: int = MIDNIGHT) -> Log:
    dice = random.Random(count)
    return [
        (offset, Frame(
            v=1, source="s", symbol=symbol, mode="bid", point=0.00001, request=f"r{offset}", received=time_msc + offset,
            ticks=[
                Tick(time_msc + offset * 1000 + n, round(1.1 + dice.random() / 100, 5), 1.2, 0.0, 0.0, 6)
                for n in range(per_frame)
            ],
        ))
        for offset in range(count)
    ]  # fmt: skip


def as_bytes(log: Log) -> list[tuple[int, bytes]]:
    return [(offset, encode(frame)) for offset, frame in log]


def candles(log: Log) -> list[bytes]:
    """Every minute of the log, folded and encoded as it goes to Kafka."""
    placed = [(position(0, offset), frame) for offset, frame in log]
    refold = Refold([Proof(*key, normalized(ranges)) for key, ranges in oracle.minutes_in(placed).items()])
    refold.feed(placed)
    made: list[Candle | None] = [
        fold.candle(log=LOG, offsets=proof.ranges, closed=True, emitted=0) for proof, fold in refold.results().items()
    ]
    return [encode(candle) for candle in made if candle is not None]


@given(RECORDS, st.integers(1, 5), st.integers(0, 3))
def test_a_fold_from_the_archive_is_byte_equal_to_one_from_the_log(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[Frame, int]], cut: int, merged: int
) -> None:
    archive = Archive(tmp_path_factory.mktemp("archive"))
    offsets = itertools.accumulate(gap + 1 for _, gap in records)
    log = list(zip(offsets, (frame for frame, _ in records), strict=True))
    archive.write(log, cut=cut)
    for date in list(archive.catalogue.progress(0).days)[:merged]:
        writer = Writer(archive.catalogue)
        writer.resume(0)
        writer.merge(0, date, at_least=2)
    found = archive.read()
    assert as_bytes(found) == as_bytes(log)
    assert candles(found) == candles(log)
    middle = log[len(log) // 2][0]
    assert as_bytes(archive.read(middle, middle + 2)) == [o for o in as_bytes(log) if middle <= o[0] <= middle + 2]
    series = {(log[0][1].source, log[0][1].symbol)}
    of_one = [(offset, frame) for offset, frame in log if (frame.source, frame.symbol) in series]
    assert as_bytes(archive.read(series=series)) == as_bytes(of_one)


def test_days_are_read_in_windows_as_one(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.archive.reader._WINDOW_TICKS", 50)
    monkeypatch.setattr("runtime.archive.columns.ROW_GROUP_TICKS", 64)
    log = [
        (offset, replace(frame, symbol=f"S{offset % 3}"))
        for offset, frame in frames(500, time_msc=MIDNIGHT - 200_000)
    ]  # fmt: skip
    archive.write(log, cut=90)
    assert archive.read() == log
    assert archive.read(123, 321) == [one for one in log if 123 <= one[0] <= 321]
    assert max(len(chunk) for chunk in ArchiveReader(archive.catalogue).read(0, 0, 499)) <= 50


class Crash(BaseException):
    """The process is killed."""


@contextmanager
def killed_at(files: LocalFiles, write: int, monkeypatch: pytest.MonkeyPatch, share: float) -> Iterator[None]:
    """Die at the n-th change of a file: before it (share 0), with a part of it written, or after it (share 1)."""
    count = itertools.count()
    create, delete = LocalFiles.create, LocalFiles.delete

    @contextmanager
    def dying_create(self: LocalFiles, path: str) -> Iterator[Any]:
        if next(count) == write:
            if share == 1:
                with create(self, path) as stream:
                    yield stream
                raise Crash
            target = Path(self.full(path))
            target.parent.mkdir(parents=True, exist_ok=True)
            with create(self, "torn") as stream:
                yield stream
            whole = Path(self.full("torn")).read_bytes()
            Path(self.full("torn")).unlink()
            if share:
                target.with_name(f"{target.name}.unfinished").write_bytes(whole[: int(len(whole) * share)])
            raise Crash
        with create(self, path) as stream:
            yield stream

    def dying_delete(self: LocalFiles, path: str) -> None:
        if next(count) == write:
            raise Crash
        delete(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "create", dying_create)
        patch.setattr(LocalFiles, "delete", dying_delete)
        yield


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_a_crash_at_any_write_repeats_and_drops_nothing(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Ticks of two days and symbols, in three flushes and a merge: each write of a file is the last one once."""
    log = [
        (offset, replace(frame, symbol=f"S{offset % 2}"))
        for offset, frame in frames(12, time_msc=MIDNIGHT - 6_000)
    ]  # fmt: skip

    def work(archive: Archive) -> None:
        archive.write(log, cut=4)
        for date in sorted(archive.catalogue.progress(0).days):
            writer = Writer(archive.catalogue)
            writer.resume(0)
            writer.merge(0, date, at_least=2)

    work(archive)
    expected = archive.stored_files()
    for write in itertools.count():
        archive = Archive(tmp_path / f"{share}-{write}")
        try:
            with killed_at(archive.files, write, monkeypatch, share):
                work(archive)
        except Crash:
            work(archive)
        else:
            break
        assert archive.read() == log, f"killed at change {write}"
        of_manifests = {file.path for file in ArchiveReader(archive.catalogue).files(0)}
        assert {path for path in archive.stored_files() if path.endswith(".parquet")} == of_manifests
    assert write > 20
    assert archive.stored_files() == expected


def test_late_ticks_of_an_old_day_are_one_more_file(archive: Archive) -> None:
    log = frames(6)
    late = [(6, replace(log[0][1], request="late"))]
    archive.write(log)
    archive.write(log + [(7, frame) for _, frame in frames(1, time_msc=MIDNIGHT + DAY_MS)])
    before = {file.path for file in archive.catalogue.manifest("2019-02-05", 0).files}
    archive = Archive(Path(archive.files.full("")))
    archive.write([(8, frame) for _, frame in late])
    after = {file.path for file in archive.catalogue.manifest("2019-02-05", 0).files}
    assert before < after
    assert len(after - before) == 1


def test_a_second_archiver_is_fenced(archive: Archive) -> None:
    log = frames(4)
    first, second = Writer(archive.catalogue), Writer(archive.catalogue)
    for writer in (first, second):
        assert writer.resume(0) == 0
        writer.add(0, 0, 3, log)
    first.flush(0)
    with pytest.raises(ArchiveFenced, match="another archiver"):
        second.flush(0)
    assert archive.read() == log
    assert second.resume(0) == 4


def test_the_lock_of_a_folder_is_held_by_one(archive: Archive) -> None:
    with archive.files.lock() as alone, archive.files.lock() as second:
        assert alone
        assert not second
    with archive.files.lock() as again:
        assert again


def test_damage_is_named(archive: Archive) -> None:
    archive.write(frames(4), cut=9)
    [file] = ArchiveReader(archive.catalogue).files(0)
    path = Path(archive.files.full(file.path))
    whole = path.read_bytes()
    for torn in (whole[: len(whole) // 2], whole[:-1], b""):
        path.write_bytes(torn)
        with pytest.raises(ArchiveDamaged, match=r"0-0+-0+3\.parquet"):
            archive.read()
        with pytest.raises(ArchiveDamaged, match="SHA-256"):
            read_whole(archive.files, file)
    path.unlink()
    with pytest.raises(ArchiveDamaged, match=r"missing.*parquet"):
        archive.read()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveUnavailable, match="file"):
        Archive(tmp_path / "file").write(frames(1))


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("EURUSD", "EURUSD"), ("a/b", "a%2Fb"), ("100%", "100%25"), ("x=y", "x%3Dy"), ("Gold\\n", "Gold%5Cn"),
        ("\x00", "%00"), ("WIN$", "WIN$"), ("Ü", "Ü"),
    ],
)  # fmt: skip
def test_names_become_folders_as_hive_writes_them(name: str, folder: str) -> None:
    assert folder_name(name) == folder


def test_no_name_is_longer_than_a_file_system_takes() -> None:
    long = [folder_name("\U0001f4c8" * 63 + last) for last in "ab"]
    assert long[0] != long[1]
    assert max(len(name.encode()) for name in long) < 220
