"""Compares every file of an archive with its manifest, and the manifests with the progress."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import pyarrow.compute as pc

from marketdata.errors import ArchiveDamaged
from runtime.archive.columns import SCHEMA
from runtime.archive.files import ArchiveFiles
from runtime.archive.manifest import DAY_MS, ArchivedFile, Catalogue, Manifest, date_of, logs_in
from runtime.archive.reader import read_whole


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
            progress = catalogue.progress(partition)
            for date, day in sorted(progress.days.items()):
                try:
                    manifest = catalogue.manifest(date, partition)
                except ArchiveDamaged as exc:
                    yield str(exc)
                    continue
                ticks = sum(file.ticks for file in manifest.files)
                if (ticks, len(manifest.files)) != (day.ticks, day.files):
                    yield (
                        f"the manifest of {date}, partition {partition}, lists {ticks:,} ticks in "
                        f"{len(manifest.files)} files, its partition's progress {day.ticks:,} in {day.files}"
                    )
                yield from _overlaps(manifest)
                for file in manifest.files:
                    yield from _faults(catalogue, manifest, file)
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
