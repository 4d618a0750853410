"""Compares every file of an archive with its manifest, and the manifests with the progress."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import pyarrow.compute as pc

from marketdata.errors import ArchiveDamaged
from marketdata.tick import DAY_MS
from runtime.archive.columns import SCHEMA
from runtime.archive.files import ArchiveFiles
from runtime.archive.manifest import ArchivedFile, Catalogue, Manifest, date_of, logs_in
from runtime.archive.reader import read_whole

#: The archiver replaces a manifest and then the progress: between the two they differ for a moment (seconds).
_ATTEMPTS: Final = 3
_PAUSE_SECONDS: Final = 0.2


@dataclass(frozen=True)
class PartitionState:
    """How far a partition of a log is archived."""

    log: str
    partition: int
    #: First offset, and the one after the last.
    first: int
    next: int
    #: Records before it were compared with those of Kafka.
    compared: int
    days: int
    files: int
    ticks: int
    bytes: int


def states(files: ArchiveFiles) -> Iterator[PartitionState]:
    """The state of each partition of each log in the archive.

    Raises:
        ArchiveUnavailable, ArchiveDamaged: when a manifest cannot be read.
    """
    for catalogue in _catalogues(files):
        for partition in catalogue.partitions():
            progress = catalogue.progress(partition)
            listed = [file for date in progress.days for file in catalogue.manifest(date, partition).files]
            yield PartitionState(
                log=catalogue.log, partition=partition, first=progress.spans[0][0] if progress.spans else 0,
                next=progress.next, compared=progress.compared, days=len(progress.days), files=len(listed),
                ticks=sum(file.ticks for file in listed), bytes=sum(file.bytes for file in listed),
            )  # fmt: skip


def check(files: ArchiveFiles, on_file: Callable[[], None] = lambda: None) -> Iterator[str]:
    """What is wrong, one sentence each; `on_file` is called after each file.

    Raises:
        ArchiveUnavailable: when the archive does not answer.
    """
    try:
        catalogues = list(_catalogues(files))
    except ArchiveDamaged as exc:
        yield f"{exc}; nothing else can be checked"
        return
    for catalogue in catalogues:
        for partition in catalogue.partitions():
            for date in sorted(catalogue.progress(partition).days):
                try:
                    yield from _day_faults(catalogue, partition, date, on_file)
                except ArchiveDamaged as exc:
                    yield str(exc)


def _day_faults(catalogue: Catalogue, partition: int, date: str, on_file: Callable[[], None]) -> Iterator[str]:
    """What is wrong with a day, as it is now: the archiver may write and merge all the while."""
    for attempt in range(_ATTEMPTS):
        day, manifest = catalogue.progress(partition).days[date], catalogue.manifest(date, partition)
        ticks = sum(file.ticks for file in manifest.files)
        if (ticks, len(manifest.files)) == (day.ticks, day.files):
            break
        if attempt == _ATTEMPTS - 1:
            yield (
                f"the manifest of {date}, partition {partition}, lists {ticks:,} ticks in "
                f"{len(manifest.files)} files, its partition's progress {day.ticks:,} in {day.files}"
            )
        time.sleep(_PAUSE_SECONDS)
    yield from _overlaps(manifest)
    done: set[str] = set()
    while todo := [file for file in manifest.files if file.path not in done]:
        for file in todo:
            faults = list(_faults(catalogue, manifest, file))
            if faults and file not in (newer := catalogue.manifest(date, partition)).files:
                # It went into another file meanwhile.
                manifest = newer
                break
            done.add(file.path)
            yield from faults
            on_file()


def _catalogues(files: ArchiveFiles) -> Iterator[Catalogue]:
    return (Catalogue(files, log) for log in logs_in(files))


def _overlaps(manifest: Manifest) -> Iterator[str]:
    in_order = sorted(manifest.files, key=lambda file: (file.source, file.symbol, file.first))
    for one, other in pairwise(in_order):
        if (one.source, one.symbol) == (other.source, other.symbol) and other.first <= one.last:
            yield f"{one.path} and {other.path} have offsets in common"


def _faults(catalogue: Catalogue, manifest: Manifest, file: ArchivedFile) -> Iterator[str]:
    try:
        rows = read_whole(catalogue.files, file)
    except ArchiveDamaged as exc:
        yield str(exc)
        return
    where = catalogue.files.full(file.path)
    if rows.schema != SCHEMA:
        yield f"{where} has other columns than the archive's"
        return
    offsets, days = rows["offset"], pc.divide(rows["time"].cast("int64"), DAY_MS)
    found = (len(rows), pc.min(offsets).as_py(), pc.max(offsets).as_py())
    if found != (file.ticks, file.first, file.last):
        yield f"{where} has {found[0]:,} ticks of offsets {found[1]} to {found[2]}, unlike its manifest"
    if {date_of(pc.min(days).as_py()), date_of(pc.max(days).as_py())} != {manifest.date}:
        yield f"{where} has ticks of another day"
    in_order = rows.take(pc.sort_indices(rows, sort_keys=[("offset", "ascending"), ("index", "ascending")]))
    if not in_order.equals(rows):
        yield f"{where} is not in order of offset and index"
