"""What the archive gives back is what went in: frame by frame, fold by fold, whatever was interrupted."""

import errno
import itertools
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from archive.metrics import Metrics
from archive.service import _Flow, merged_files
from archive.writer import Writer
from marketdata.candle import Candle
from marketdata.errors import ArchiveBehind, ArchiveDamaged, ArchiveFenced, ArchiveUnavailable
from marketdata.offsets import normalized, position
from marketdata.refold import Proof, Refold
from marketdata.tick import DAY_MS, Frame, Tick, content
from marketdata.wire import encode
from runtime.archive.files import Digest, LocalFiles
from runtime.archive.manifest import Catalogue, folder_name
from runtime.archive.reader import ArchiveReader, FlowPart, read_whole
from runtime.settings import load_settings
from tests import oracle
from tests.conftest import fewer_examples
from tests.unit.marketdata.test_runs import flows as forward_flows

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


def resent(frame: Frame) -> Frame:
    """The same ticks by another request, as a sender repeats them or fills a hole with its history."""
    return replace(frame, request="again", received=min(frame.received + 1, 253_402_300_799_999))


def of_200(frame: Frame) -> Frame:
    """A frame of 200 ticks, some of them equal."""
    ticks = [replace(tick, bid=tick.bid + n // 2) for n, tick in enumerate(itertools.islice(
        itertools.cycle(frame.ticks), 200
    ))]  # fmt: skip
    return replace(frame, ticks=ticks)


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Frames of few ticks and of 200, some of them sent again, with holes between their offsets."""
    records = [
        (of_200(frame) if draw(st.integers(0, 9)) == 0 else frame, gap) for frame, gap in draw(RECORDS)
    ]  # fmt: skip
    for index in draw(st.lists(st.integers(0, len(records) - 1), max_size=4)):
        records.append((resent(records[index][0]), 0))
    offsets = itertools.accumulate(gap + 1 for _, gap in records)
    return list(zip(offsets, (frame for frame, _ in records), strict=True))


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

    def flows(self) -> Iterator[FlowPart]:
        return itertools.chain.from_iterable(ArchiveReader(self.catalogue).flows(0, 0, 1 << 40))

    def stored_files(self) -> set[str]:
        root = Path(self.files.full(""))
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True, scope="module")
def disk_that_need_not_be_waited_for() -> Iterator[None]:
    """A kill loses nothing that was written, and power is not cut here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.archive.files.os.fsync", lambda _descriptor: None)
        yield


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


def candles(log: Log, flows: Iterable[FlowPart] | None = None) -> list[bytes]:
    """Every minute of the log, folded and encoded as it goes to Kafka; out of `flows` where they are given."""
    placed = [(position(0, offset), frame) for offset, frame in log]
    refold = Refold([Proof(*key, normalized(ranges)) for key, ranges in oracle.minutes_in(placed).items()])
    if flows is None:
        refold.feed(placed)
    for part in flows or ():
        refold.feed_flows({part.series: ([position(0, offset) for offset in part.offsets], part.frames)})
    made: list[Candle | None] = [
        fold.candle(log=LOG, offsets=proof.ranges, closed=True, emitted=0) for proof, fold in refold.results().items()
    ]
    return [encode(candle) for candle in made if candle is not None]


@fewer_examples
@given(logs(), st.integers(1, 5), st.integers(0, 3))
def test_a_fold_from_the_archive_is_byte_equal_to_one_from_the_log(
    tmp_path_factory: pytest.TempPathFactory, log: Log, cut: int, merged: int
) -> None:
    archive = Archive(tmp_path_factory.mktemp("archive"))
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


@fewer_examples
@given(forward_flows() | logs().map(lambda log: [frame for _, frame in log]), st.integers(1, 30), st.integers(1, 20))
def test_flows_of_the_archive_fold_as_the_log(
    tmp_path_factory: pytest.TempPathFactory, sent: list[Frame], cut: int, ticks: int
) -> None:
    log = list(enumerate(sent))
    archive = Archive(tmp_path_factory.mktemp("archive"))
    archive.write(log, cut=cut)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("marketdata.runs.MIN_TICKS", 1)
        patch.setattr("runtime.archive.reader._FLOW_TICKS", ticks)
        patch.setattr("runtime.archive.reader._WINDOW_TICKS", 5 * ticks)
        assert candles(log, archive.flows()) == candles(log)
        given: dict[int, Frame] = {}
        for part in archive.flows():
            given |= zip(part.offsets, part.frames, strict=True)
            assert all(offset in given for offset in range(min(part.reached + 1, len(log))))
    assert [content(given[offset]) for offset, _ in log] == [content(frame) for frame in sent]


def test_days_are_read_in_windows_as_one(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.archive.reader._WINDOW_TICKS", 170)
    monkeypatch.setattr("runtime.archive.reader._CHUNK_TICKS", 49)
    monkeypatch.setattr("runtime.archive.reader._HELD_GROUPS", 2)
    monkeypatch.setattr("runtime.archive.columns.ROW_GROUP_TICKS", 64)
    log = [
        (offset, replace(frame, symbol=f"S{offset % 3}"))
        for offset, frame in frames(500, time_msc=MIDNIGHT - 200_000)
    ]  # fmt: skip
    archive.write(log, cut=90)
    assert archive.read() == log
    assert archive.read(123, 321) == [one for one in log if 123 <= one[0] <= 321]
    # A frame is never cut: two ticks each, so 49 ticks are 25 frames.
    assert max(len(chunk) for chunk in ArchiveReader(archive.catalogue).read(0, 0, 499)) == 25


class Crash(BaseException):
    """The process is killed."""


@contextmanager
def killed_at(write: int, monkeypatch: pytest.MonkeyPatch, done: bool) -> Iterator[None]:
    """Die at the n-th change of a file: before it, or when it is `done`."""
    count = itertools.count()
    create, delete = LocalFiles.create, LocalFiles.delete

    @contextmanager
    def dying_create(self: LocalFiles, path: str) -> Iterator[Any]:
        number = next(count)
        if number == write and not done:
            raise Crash
        with create(self, path) as stream:
            yield stream
        if number == write:
            raise Crash

    def dying_delete(self: LocalFiles, path: str) -> None:
        if next(count) == write:
            raise Crash
        delete(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "create", dying_create)
        patch.setattr(LocalFiles, "delete", dying_delete)
        yield


def assert_tidy(archive: Archive) -> None:
    """Among the ticks is no file but those of the manifests, and nothing half-written."""
    files = {file.path for file in ArchiveReader(archive.catalogue).files(0)}
    assert {path for path in archive.stored_files() if "/ticks/" in path} == files


@pytest.mark.parametrize("done", [pytest.param(False, marks=pytest.mark.full), True])
def test_a_crash_at_any_write_repeats_and_drops_nothing(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: bool
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
        archive = Archive(tmp_path / f"{done}-{write}")
        try:
            with killed_at(write, monkeypatch, done):
                work(archive)
        except Crash:
            work(archive)
        else:
            break
        assert archive.read() == log, f"killed at change {write}"
        assert_tidy(archive)
    assert write > 20
    assert archive.stored_files() == expected


@contextmanager
def bytes_left(count: int, failure: BaseException, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After so many bytes, written to whatever file, every write fails in its middle."""
    left, write = count, Digest.write

    def failing_write(self: Digest, data: Any) -> int:
        nonlocal left
        view = memoryview(data).cast("B")
        if len(view) > left:
            write(self, view[:left])
            left = 0
            raise failure
        left -= len(view)
        return write(self, view)

    with monkeypatch.context() as patch:
        patch.setattr(Digest, "write", failing_write)
        yield


def write_by_twos(writer: Writer, log: Log) -> None:
    for begin in range(0, len(log), 2):
        writer.add(0, begin, begin + 1, log[begin : begin + 2])
        writer.flush(0)


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), Crash()], ids=["full", "killed"])
@fewer_examples
@given(st.data())
def test_a_write_torn_at_any_byte_repeats_and_drops_nothing(
    tmp_path_factory: pytest.TempPathFactory, failure: BaseException, data: st.DataObject
) -> None:
    """A full disk is noticed by the archiver, which goes on; after a kill another one does."""
    monkeypatch = pytest.MonkeyPatch()
    archive = Archive(tmp_path_factory.mktemp("torn"))
    log = [(offset, replace(frame, symbol=f"S{offset % 2}")) for offset, frame in frames(8, time_msc=MIDNIGHT - 4_000)]
    #: What the four flushes write is some 21,000 bytes.
    count = data.draw(st.integers(0, 20_000))
    writer = Writer(archive.catalogue)
    writer.resume(0)
    with bytes_left(count, failure, monkeypatch), pytest.raises((ArchiveUnavailable, Crash)):
        write_by_twos(writer, log)
    if isinstance(failure, Crash):
        writer = Writer(archive.catalogue)
    first = writer.resume(0)
    # Of an interrupted flush a day may be there already, which the next one does not write again.
    assert archive.read(0, first - 1) == log[:first]
    archive.write(log)
    assert archive.read() == log
    assert_tidy(archive)


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


def test_a_partition_that_is_new_does_not_begin_another_archive(archive: Archive) -> None:
    """As when the volume is unmounted before the first ticks of a new partition are written."""
    writer, folder = Writer(archive.catalogue), Path(archive.files.full(""))
    for partition in (0, 1):
        assert writer.resume(partition) == 0
    writer.add(0, 0, 3, frames(4))
    writer.flush(0)
    moved = folder.rename(folder.with_name("moved"))
    writer.add(1, 0, 3, frames(4))
    with pytest.raises(ArchiveBehind, match="unmounted"):
        writer.flush(1)
    moved.rename(folder)
    assert writer.flush(1).next == 4


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
    archive = Archive(tmp_path / "file")
    with pytest.raises(ArchiveUnavailable, match="file"):
        archive.write(frames(1))
    with pytest.raises(ArchiveUnavailable, match="file"), archive.files.lock():
        pass


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


def test_a_damaged_file_stops_the_merging_of_no_other_symbol(archive: Archive) -> None:
    symbols = ("A", "B", "C")
    log = [(offset, replace(frame, symbol=symbols[offset % 3])) for offset, frame in frames(12)]
    archive.write(log, cut=6)
    damaged = next(file for file in archive.catalogue.manifest("2019-02-05", 0).files if file.symbol == "B")
    path = Path(archive.files.full(damaged.path))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    writer = Writer(archive.catalogue)
    writer.resume(0)
    with pytest.raises(ArchiveDamaged, match="symbol=B"):
        writer.merge(0, "2019-02-05", at_least=2)
    files = archive.catalogue.manifest("2019-02-05", 0).files
    assert sorted(file.symbol for file in files) == ["A", "B", "B", "C"]
    assert_tidy(archive)
    path.write_bytes(whole)
    assert archive.read() == log
    assert writer.merge(0, "2019-02-05", at_least=2) == 1
    assert archive.read() == log


@pytest.mark.parametrize(("series", "files"), [(1, 16), (1_000, 16), (5_000, 8), (10_000, 4), (30_000, 2)])
def test_of_many_symbols_fewer_files_wait_to_be_merged(series: int, files: int) -> None:
    # Each flush has the day's whole manifest in memory: 40,000 files, or two of each symbol.
    assert merged_files(series) == files


def test_the_metric_of_held_ticks_is_that_of_the_moment(archive: Archive) -> None:
    metrics = Metrics(CollectorRegistry())
    writer = _Flow(load_settings(), archive.catalogue, metrics).writer
    writer.resume(0)

    def held() -> float | None:
        return metrics.registry.get_sample_value("tickpipe_archive_held_ticks")

    writer.add(0, 0, 3, frames(4))
    assert held() == 8
    writer.flush(0)
    assert held() == 0
