"""Collects ticks and writes them to the archive, so that after a crash at any byte each record is there once."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import structlog

from marketdata.errors import ArchiveBehind, ArchiveDamaged, ArchiveFenced
from marketdata.runs import Chunk
from runtime.archive.columns import write_ticks
from runtime.archive.files import arrow_sink
from runtime.archive.manifest import ArchivedFile, Catalogue, Day, Manifest, Progress, Series, Span, date_of
from runtime.archive.reader import read_whole
from runtime.archive.resends import Flow
from runtime.archive.rows import SeriesDay, TickRows, rows_since

log = structlog.get_logger(__name__)

#: Ticks that are held over all partitions before they are written whatever their age, some 100 MB.
MAX_HELD_TICKS: Final = 500_000

#: Series that are merged before the manifest is saved: what a crash has done again.
_MERGED_AT_ONCE: Final = 200


@dataclass
class _Held:
    """What was read of a partition and is not written yet."""

    #: Offsets that were read; those of records that are no frames as well.
    first: int
    last: int
    since: float
    rows: TickRows


class Writer:
    """Writes one log's part of an archive. `add` what was read, `flush` it; `flush` and `merge` may be run in a thread.

    After an error of `flush` or `merge` the partition has to be begun again by `resume`.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._held: dict[int, _Held] = {}
        self._next: dict[int, int] = {}
        #: Ticks that are held.
        self.ticks = 0

    def resume(self, partition: int) -> int:
        """Forget what is held, remove what a crash left half done; the next offset to read."""
        if (held := self._held.pop(partition, None)) is not None:
            self.ticks -= len(held.rows)
        self._remove_unlisted(partition, self._catalogue.announced(partition))
        self._catalogue.settle(partition)
        self._next[partition] = self._catalogue.progress(partition).next
        return self._next[partition]

    def add(self, partition: int, first: int, last: int, chunk: Chunk) -> None:
        """Hold the frames of the offsets from `first` to `last`, which follow those of the call before."""
        held = self._held.get(partition)
        if held is None:
            held = self._held[partition] = _Held(first, last, time.monotonic(), TickRows(partition))
        held.last = last
        before = len(held.rows)
        held.rows.add(chunk)
        self.ticks += len(held.rows) - before

    def archived(self, partition: int) -> int:
        """The offset after the last one that is archived."""
        return self._next[partition]

    def due(self, max_age_seconds: float) -> list[int]:
        """The partitions that hold something as old as that, or all that hold any when they hold too much."""
        now = time.monotonic()
        is_full = self.ticks >= MAX_HELD_TICKS
        return [number for number, held in self._held.items() if is_full or now - held.since >= max_age_seconds]

    def flush(self, partition: int) -> Progress:
        """Write what is held of the partition; how far it is archived then.

        Raises:
            ArchiveFenced: when another archiver has written meanwhile.
            ArchiveBehind: when the archive ends before what was written.
            ArchiveUnavailable: when the files cannot be written.
        """
        held = self._held[partition]
        progress = self._unfenced(partition)
        if not progress.next:
            self._require_others()
        rows, parts = held.rows.in_order()
        by_day: dict[int, list[SeriesDay]] = {}
        for part in parts:
            by_day.setdefault(part.day, []).append(part)
        manifests = {day: self._catalogue.manifest(date_of(day), partition) for day in by_day}
        planned = {
            day: [
                (self._catalogue.file_path(*part.series, manifest.date, partition, _span(new)), part)
                for part in by_day[day]
                # What a flush had written of this day before it was interrupted is there already.
                if len(new := rows_since(rows, part, manifest.next))
            ]
            for day, manifest in manifests.items()
        }
        self._catalogue.announce(partition, [path for files in planned.values() for path, _ in files])
        for day, files in planned.items():
            manifest = manifests.pop(day)
            manifest.files += [
                self._write(path, part.series, [rows_since(rows, part, manifest.next)]) for path, part in files
            ]
            manifest.next = max(manifest.next, held.last + 1)
            self._catalogue.save_manifest(manifest)
            progress.days[manifest.date] = _summary(manifest)
        progress.add(held.first, held.last)
        self._catalogue.save_progress(progress)
        self._catalogue.settle(partition)
        self._next[partition] = progress.next
        del self._held[partition]
        self.ticks -= len(held.rows)
        return progress

    def merge(self, partition: int, date: str, *, at_least: int) -> int:
        """Merge the files of each source and symbol of a day that has `at_least` so many; how many files went.

        Raises:
            ArchiveDamaged: when files are not what the manifest says, once those of all other symbols are merged.
            ArchiveFenced, ArchiveBehind, ArchiveUnavailable: as `flush`.
        """
        gone = 0
        damaged: dict[Series, str] = {}
        while True:
            progress = self._unfenced(partition)
            manifest = self._catalogue.manifest(date, partition)
            todo = [
                files for series, files in _by_series(manifest).items()
                if len(files) >= at_least and series not in damaged
            ][:_MERGED_AT_ONCE]  # fmt: skip
            if not todo:
                break
            merged = {self._path_of(manifest, files): files for files in todo}
            self._catalogue.announce(partition, [*merged, *(file.path for files in todo for file in files)])
            old: list[str] = []
            for path, files in merged.items():
                series = (files[0].source, files[0].symbol)
                tables = (read_whole(self._catalogue.files, file) for file in files)
                try:
                    manifest.files.append(self._write(path, series, tables))
                except ArchiveDamaged as exc:
                    damaged[series] = str(exc)
                else:
                    old += [file.path for file in files]
                    gone += len(files) - 1
            manifest.files = [file for file in manifest.files if file.path not in set(old)]
            self._catalogue.save_manifest(manifest)
            progress.days[date] = _summary(manifest)
            self._catalogue.save_progress(progress)
            for path in old:
                self._catalogue.files.delete(path)
            self._catalogue.settle(partition)
        if damaged:
            raise ArchiveDamaged("; ".join(damaged.values()))
        return gone

    def note_compared(self, partition: int, offset: int) -> None:
        """Store that records before this offset were read back and equalled those of Kafka."""
        progress = self._unfenced(partition)
        progress.compared = offset
        self._catalogue.save_progress(progress)

    def _unfenced(self, partition: int) -> Progress:
        progress = self._catalogue.progress(partition)
        if progress.next < self._next[partition]:
            raise ArchiveBehind(
                f"{self._catalogue.files.full(self._catalogue.folder)} ends at offset {progress.next} of partition "
                f"{partition} and not at {self._next[partition]} any more; was it moved, or its volume unmounted?"
            )
        if progress.next != self._next[partition]:
            raise ArchiveFenced(
                f"partition {partition} is archived to offset {progress.next} and not to {self._next[partition]}: "
                f"another archiver writes to {self._catalogue.files.full(self._catalogue.folder)}; stop one of them"
            )
        return progress

    def _require_others(self) -> None:
        # A partition of which nothing is archived yet cannot tell whether the archive is gone; another one can.
        known = next((partition for partition, reached in self._next.items() if reached), None)
        if known is not None:
            self._unfenced(known)

    def _path_of(self, manifest: Manifest, files: list[ArchivedFile]) -> str:
        span = (files[0].first, files[-1].last)
        return self._catalogue.file_path(files[0].source, files[0].symbol, manifest.date, manifest.partition, span)

    def _write(self, path: str, series: Series, tables: Iterable[pa.Table]) -> ArchivedFile:
        ticks, first, last = 0, -1, -1
        flow = Flow()

        def counted() -> Iterable[pa.Table]:
            nonlocal ticks, first, last
            for table in tables:
                ticks += len(table)
                flow.feed(table)
                begin, last = _span(table)
                first = begin if first < 0 else first
                yield table

        with self._catalogue.files.create(path) as stream:
            write_ticks(arrow_sink(stream), counted())
        size, sha256 = stream.size, stream.sha256
        return ArchivedFile(path, *series, first, last, ticks, size, sha256, flow.low, flow.high, flow.is_forward)

    def _remove_unlisted(self, partition: int, paths: Iterable[str]) -> None:
        by_date: dict[str, list[str]] = {}
        for path in paths:
            by_date.setdefault(path.rpartition("/date=")[2].partition("/")[0], []).append(path)
        for date, of_day in by_date.items():
            listed = {file.path for file in self._catalogue.manifest(date, partition).files}
            for path in of_day:
                if path not in listed:
                    self._catalogue.files.delete(path)
                    log.info("Removed what an interrupted flush had written.", action="file_removed", path=path)


def _span(rows: pa.Table) -> Span:
    return rows["offset"][0].as_py(), rows["offset"][-1].as_py()


def _by_series(manifest: Manifest) -> dict[Series, list[ArchivedFile]]:
    found: dict[Series, list[ArchivedFile]] = {}
    for file in sorted(manifest.files, key=lambda file: file.first):
        found.setdefault((file.source, file.symbol), []).append(file)
    return found


def _summary(manifest: Manifest) -> Day:
    return Day(
        first=min(file.first for file in manifest.files),
        last=max(file.last for file in manifest.files),
        ticks=sum(file.ticks for file in manifest.files),
        files=len(manifest.files),
        series=len(_by_series(manifest)),
    )
