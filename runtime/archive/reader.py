"""Reads the records of a partition and a range of offsets from the archive, in order and in bounded memory."""

import hashlib
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile

from marketdata.coverage import Touched
from marketdata.errors import ArchiveDamaged
from marketdata.offsets import Ranges, position
from marketdata.refold import Proof
from marketdata.runs import Chunk
from marketdata.summed import SummedFold
from marketdata.tick import Frame
from marketdata.timeframes import Timeframe
from runtime.archive.columns import SCHEMA, TICK_COLUMNS, WITH_SERIES, completed, flow_in, frames_in, schema_of
from runtime.archive.files import ArchiveFiles, open_files
from runtime.archive.folds import ArchivedFolds, DayFile
from runtime.archive.manifest import ArchivedFile, Catalogue, Manifest, Progress, Series
from runtime.archive.resends import Part, is_forward, sharing
from runtime.archive.sums import MOST_SERIES, TOUCHED_COLUMNS, touched_periods

#: Rows that are put in order at once, some 100 MB: with ten thousand symbols each window opens as many files.
_WINDOW_TICKS: Final = 400_000

#: Ticks that are handed out at once, some 30 MB as frames.
_CHUNK_TICKS: Final = 50_000

#: Ticks of one source and symbol that are folded at once, some ten milliseconds.
_FLOW_TICKS: Final = 10_000

#: Ticks of row groups that are held because the next window may need more of them, some 100 MB; and row groups, of
#: which even a small one takes some 40 KB.
_HELD_TICKS: Final = 1_000_000
_HELD_GROUPS: Final = 1_000

#: A file may be merged into another between reading its name and opening it; not over and over.
_ATTEMPTS: Final = 5


class ArchiveReader:
    """Reads one log's part of an archive. Not to be used by two threads at once.

    Methods raise `ArchiveUnavailable` when the archive does not answer, and `ArchiveDamaged` naming the file when it is
    not what its manifest says.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._progress: dict[int, Progress] = {}
        self._manifests: dict[tuple[str, int], Manifest] = {}
        self._groups = _RowGroups(catalogue)

    def progress(self, partition: int) -> Progress:
        """How far the partition is archived by now."""
        found = self._catalogue.progress(partition)
        if found != self._progress.get(partition):
            self._forget_manifests()
            self._progress[partition] = found
        return found

    def read(
        self, partition: int, first: int, last: int, *, series: Collection[Series] | None = None
    ) -> Iterator[Chunk]:
        """The frames at offsets from `first` to `last`, of these sources and symbols or of all; offsets may be missing.

        What the archive does not have is left out; `progress` tells what it has.
        """
        for _, parts in self._windows(partition, first, last, series):
            names = sorted(parts)
            tables = [
                rows.append_column(WITH_SERIES.field("series"), pa.repeat(pa.scalar(number, pa.int32()), len(rows)))
                for number, name in enumerate(names)
                for rows in parts[name]
            ]
            for rows in _whole_frames(_in_order(tables), _CHUNK_TICKS):
                yield frames_in(rows, names)

    def flows(
        self, partition: int, first: int, last: int, *, series: Collection[Series] | None = None
    ) -> Iterator[list["FlowPart"]]:
        """Like `read`, each source and symbol by itself, which folds in less than half the time."""
        for end, parts in self._windows(partition, first, last, series):
            reached = end if len(parts) == 1 else first - 1
            found: list[FlowPart] = []
            for number, (name, tables) in enumerate(parts.items(), start=1):
                for rows in _whole_frames(_in_order(tables), _FLOW_TICKS):
                    offsets, frames = flow_in(rows.combine_chunks().to_batches()[0], name)
                    found.append(FlowPart(name, offsets, frames, offsets[-1] if len(parts) == 1 else reached))
                    if len(found) * _FLOW_TICKS >= _CHUNK_TICKS:
                        yield found
                        found = []
                if number == len(parts) and found:
                    found[-1] = found[-1]._replace(reached=end)
            if found:
                yield found
            first = end + 1

    def touched(self, partition: int, first: int, last: int, width_ms: int) -> Iterator[tuple[int, Touched]]:
        """What the records at offsets from `first` to `last` touch, a window at a time, with the number of records."""
        begin = position(partition, 0)
        for end, parts in self._windows(partition, first, last, None, TOUCHED_COLUMNS):
            names, periods, records, newest = sorted(parts), [], 0, -1
            for some in (names[at : at + MOST_SERIES] for at in range(0, len(names), MOST_SERIES)):
                tables = [_in_order(parts[name]) for name in some]
                for number, ts, positions in touched_periods(tables, width_ms, begin):
                    periods.append(((*some[number], ts), positions))
                    # A record may touch several periods.
                    records += len(positions) - (positions[0] == newest)
                    newest = positions[-1]
            yield records, Touched(begin + end, periods)

    def _windows(
        self,
        partition: int,
        first: int,
        last: int,
        series: Collection[Series] | None,
        columns: tuple[str, ...] = tuple(SCHEMA.names),
    ) -> Iterator[tuple[int, dict[Series, list[pa.Table]]]]:
        """The rows by source and symbol, a window of offsets at a time, each with its last offset."""
        progress, attempts = self._progress.get(partition), 0
        if progress is None or progress.next <= last:
            progress = self.progress(partition)
        while first <= last:
            files = self._files(progress, partition, first, last, series)
            try:
                while first <= last and files:
                    first = max(first, files[0].first)
                    end = _window_end(files, first, last)
                    parts: dict[Series, list[pa.Table]] = {}
                    for file in files:
                        if file.first <= end and len(rows := self._groups.rows(file, first, end, columns)):
                            parts.setdefault((file.source, file.symbol), []).append(rows)
                    yield end, parts
                    first, attempts = end + 1, 0
                    files = [file for file in files if file.last >= first]
                return
            except FileNotFoundError as exc:
                attempts += 1
                if attempts == _ATTEMPTS:
                    raise ArchiveDamaged(f"a file of the archive is missing: {exc}") from exc
                self._forget_manifests()

    def folds(self, proofs: Iterable[Proof]) -> Iterator[tuple[int, dict[Proof, SummedFold]]]:
        """Folds of these proofs, each of one range, all archived; in batches, with the number of records read.

        What is not among them, for whatever reason, is left to a fold of the frames.
        """
        parts: dict[tuple[int, Timeframe], list[Proof]] = {}
        for proof in proofs:
            parts.setdefault((proof.ranges[0][0], proof.timeframe), []).append(proof)
        for (partition, timeframe), some in parts.items():
            folds = ArchivedFolds(partition, timeframe, some)
            first, last = min(proof.ranges[0][1] for proof in some), max(proof.ranges[0][2] for proof in some)
            # Reading frames looks again where a file was merged meanwhile, and names one that is damaged.
            with suppress(pa.ArrowException, OSError):
                days = self._days(self.progress(partition), partition, first, last)
                yield from folds.read(self._catalogue.files, [day for day in days if folds.has_part_in(day.file)])

    def files(self, partition: int) -> Iterator[ArchivedFile]:
        """Every file of the partition, day by day."""
        progress = self.progress(partition)
        for date in sorted(progress.days):
            yield from self._manifest(date, partition).files

    def flow(self, series: Series, ranges: Ranges) -> "ArchivedFlow | None":
        """The ticks of one source and symbol on the days that have records in these ranges.

        None where they are not plain forward flow: then only a fold tells which ones count.
        """
        parts = []
        for partition in {partition for partition, _, _ in ranges}:
            first = min(begin for of, begin, _ in ranges if of == partition)
            last = max(end for of, _, end in ranges if of == partition)
            for date, day in self.progress(partition).days.items():
                if day.first <= last and day.last >= first:
                    files = self._manifest(date, partition).files
                    parts += [Part.of(partition, date, file) for file in files if (file.source, file.symbol) == series]
        return None if sharing(parts) or not is_forward(parts) else ArchivedFlow(self._groups, parts)

    def _forget_manifests(self) -> None:
        self._manifests.clear()
        self._groups.clear()

    def _manifest(self, date: str, partition: int) -> Manifest:
        key = (date, partition)
        if key not in self._manifests:
            self._manifests[key] = self._catalogue.manifest(date, partition)
        return self._manifests[key]

    def _files(
        self, progress: Progress, partition: int, first: int, last: int, series: Collection[Series] | None
    ) -> list[ArchivedFile]:
        found = [
            file for _, file in self._days(progress, partition, first, last)
            if series is None or (file.source, file.symbol) in series
        ]  # fmt: skip
        return sorted(found, key=lambda file: file.first)

    def _days(self, progress: Progress, partition: int, first: int, last: int) -> Iterator[DayFile]:
        for date, day in progress.days.items():
            if day.first <= last and day.last >= first:
                for file in self._manifest(date, partition).files:
                    if file.first <= last and file.last >= first:
                        yield DayFile(date, file)


class FlowPart(NamedTuple):
    """Frames of one source and symbol in order of their offsets."""

    series: Series
    offsets: Sequence[int]
    frames: Sequence[Frame]
    #: Everything up to this offset is in this part and those before it.
    reached: int


class ArchivedFlow:
    """Plain forward flow of one source and symbol: every tick counts, so the columns are what a fold would give."""

    def __init__(self, groups: "_RowGroups", parts: Iterable[Part]) -> None:
        self._groups = groups
        self._parts = sorted(parts, key=lambda part: part.low)

    def ticks(self, first_ms: int, end_ms: int) -> pa.Table | None:
        """Those from `first_ms` to before `end_ms` (UTC epoch milliseconds), in order; None when a file was merged."""
        tables = [SCHEMA.empty_table().select(TICK_COLUMNS)]
        try:
            for part in self._parts:
                if part.low < end_ms and part.high >= first_ms:
                    tables += self._groups.between(part.path or "", first_ms, end_ms)
        except FileNotFoundError:
            return None
        found = pa.concat_tables(tables)
        # Within a frame time may go back.
        order = pc.greater_equal(found["time"][1:], found["time"][:-1])
        return found if pc.all(order).as_py() is not False else found.take(pc.sort_indices(found["time"]))


def open_archive(location: str, log: str) -> ArchiveReader:
    """A reader of what the archive at this location has of a log.

    Raises:
        SettingsError: when it is no location.
    """
    return ArchiveReader(Catalogue(open_files(location), log))


def read_whole(files: ArchiveFiles, file: ArchivedFile) -> pa.Table:
    """All rows of a file, once its bytes are those that its manifest names.

    Raises:
        ArchiveDamaged: when they are not, or the file is missing.
    """
    content = files.read(file.path)
    where = files.full(file.path)
    if content is None:
        raise ArchiveDamaged(f"{where} is missing")
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise ArchiveDamaged(f"{where} is damaged: its SHA-256 is not that of its manifest")
    # In this thread alone: one of Arrow's that lets go of the bytes while the interpreter ends aborts the process. Not
    # by `read_table`, whose datasets use such threads whatever they are told.
    return completed(ParquetFile(pa.BufferReader(content)).read(use_threads=False), SCHEMA.names)


def _window_end(files: list[ArchivedFile], first: int, last: int) -> int:
    # Files are taken to have as many ticks at every offset.
    end = last
    while end > first:
        ticks = 0.0
        for file in files:
            if file.first > end:
                break
            covered = min(file.last, end) - max(file.first, first) + 1
            ticks += file.ticks * covered / (file.last - file.first + 1)
        if ticks <= _WINDOW_TICKS:
            break
        end = first + max(0, int((end - first) * min(0.9, _WINDOW_TICKS / ticks)))
    return end


def _in_order(tables: list[pa.Table]) -> pa.Table:
    if not tables:
        return WITH_SERIES.empty_table()
    whole = pa.concat_tables(tables)
    if all(one["offset"][-1].as_py() < next_["offset"][0].as_py() for one, next_ in pairwise(tables)):
        return whole
    return whole.take(pc.sort_indices(whole, sort_keys=[("offset", "ascending"), ("index", "ascending")]))


def _whole_frames(rows: pa.Table, ticks: int) -> Iterator[pa.Table]:
    """Rows in order of their offsets, so many at a time or some more: none of them ends within a frame."""
    offsets, begin = rows["offset"], 0
    while begin < len(rows):
        end = min(begin + ticks, len(rows))
        while end < len(rows) and offsets[end] == offsets[end - 1]:
            end += 1
        yield rows.slice(begin, end - begin)
        begin = end


class _RowGroups:
    """Row groups of files, the newest of them held: the next window begins in the middle of the same."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._open: OrderedDict[str, ParquetFile] = OrderedDict()
        self._held: OrderedDict[tuple[str, int, tuple[str, ...]], pa.Table] = OrderedDict()
        self._ticks = 0

    def clear(self) -> None:
        """Let go of everything."""
        self._open.clear()
        self._held.clear()
        self._ticks = 0

    def rows(self, file: ArchivedFile, first: int, last: int, columns: tuple[str, ...]) -> pa.Table:
        """The rows of the file at these offsets."""
        with self._damage_named(file.path):
            tables = [self._group(file.path, group, columns) for group in self._overlapping(file, first, last)]
        rows = pa.concat_tables(tables) if tables else SCHEMA.empty_table().select(columns)
        if file.first < first or file.last > last:
            # In order of their offsets: a slice, where a filter would copy all of them.
            begin = bisect_left(rows["offset"], first, key=pa.Int64Scalar.as_py)
            end = bisect_right(rows["offset"], last, lo=begin, key=pa.Int64Scalar.as_py)
            rows = rows.slice(begin, end - begin)
        return rows

    def between(self, path: str, first_ms: int, end_ms: int) -> Iterator[pa.Table]:
        """The ticks of the file from `first_ms` to before `end_ms`."""
        moment = SCHEMA.field("time").type
        first, end = pa.scalar(first_ms, moment), pa.scalar(end_ms, moment)
        with self._damage_named(path):
            parquet = self._opened(path)
            column = parquet.schema_arrow.get_field_index("time")
            for group in range(parquet.num_row_groups):
                about = parquet.metadata.row_group(group).column(column).statistics
                low, high = pa.scalar(about.min, moment).value, pa.scalar(about.max, moment).value
                if low < end_ms and high >= first_ms:
                    rows = self._group(path, group, TICK_COLUMNS)
                    if low < first_ms or high >= end_ms:
                        rows = rows.filter((pc.field("time") >= first) & (pc.field("time") < end))
                    yield rows

    def _overlapping(self, file: ArchivedFile, first: int, last: int) -> list[int]:
        parquet = self._opened(file.path)
        if parquet.schema_arrow != schema_of(parquet.schema_arrow.names):
            raise ArchiveDamaged(f"{self._catalogue.files.full(file.path)} has other columns than the archive's")
        column = parquet.schema_arrow.get_field_index("offset")
        groups = []
        for group in range(parquet.num_row_groups):
            about = parquet.metadata.row_group(group).column(column).statistics
            if about.min <= last and about.max >= first:
                groups.append(group)
        return groups

    @contextmanager
    def _damage_named(self, path: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as exc:
            if isinstance(exc, FileNotFoundError):
                raise
            raise ArchiveDamaged(f"{self._catalogue.files.full(path)} is damaged: {exc}") from exc

    def _opened(self, path: str) -> ParquetFile:
        parquet = self._open.get(path)
        if parquet is None:
            parquet = self._open[path] = ParquetFile(self._catalogue.files.open(path))
            while len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
        return parquet

    def _group(self, path: str, group: int, columns: tuple[str, ...]) -> pa.Table:
        # The columns of a tick alone take a sixth to a tenth of the time: those of its record are texts.
        key = (path, group, columns)
        if (found := self._held.get(key)) is None:
            rows = self._opened(path).read_row_group(group, columns=list(columns))
            found = self._held[key] = completed(rows, columns)
            self._ticks += len(found)
            while len(self._held) > 1 and (self._ticks > _HELD_TICKS or len(self._held) > _HELD_GROUPS):
                _, dropped = self._held.popitem(last=False)
                self._ticks -= len(dropped)
        return found


#: Files that are held open; below what a process may open by default.
_OPEN_FILES: Final = 256
