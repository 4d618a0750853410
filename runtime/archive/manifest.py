"""The layout of the archive: the files of ticks, a manifest a day and partition, and the progress of each partition.

    <topic>.<topic id>/ticks/source=S/symbol=X/date=2019-02-04/0-000000000000012-000000000000345.parquet
    <topic>.<topic id>/manifests/date=2019-02-04/partition=0.json
    <topic>.<topic id>/progress/partition=0.json

Only files that a manifest lists count. A flush writes files, then the manifests of their days, then the progress. The
manifest says up to which offset it has the day's ticks, so a flush that was interrupted is done again without
repeating what it had done.
"""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import quote, unquote

import msgspec
from msgspec import Meta, Struct, field

from marketdata.errors import ArchiveDamaged
from marketdata.offsets import Range, normalized
from marketdata.tick import DAY_MS
from runtime.archive.files import ArchiveFiles

#: File systems allow 255 bytes in a name; `symbol=` and the like come before it.
_NAME_BYTES: Final = 200

#: What may stand in the name of a folder as it is. Everything beyond ASCII may as well.
_SAFE: Final = " !#$&'()+,-.;@[]^_`{}~"

#: First and last offset, both included.
Span = tuple[int, int]

#: Source and symbol.
Series = tuple[str, str]


class ArchivedFile(Struct, frozen=True):
    """A file of ticks of one source, symbol, day and partition."""

    path: str
    source: str
    symbol: str
    #: Offsets of the first and the last record that it has ticks of.
    first: int
    last: int
    ticks: int
    bytes: int
    sha256: str
    #: Times of its earliest and latest tick (UTC epoch milliseconds).
    low: int
    high: int
    #: None of its ticks is a resend of another one of the file (`runtime.archive.resends.Flow`).
    forward: bool


class Manifest(Struct, kw_only=True):
    """The files that hold one partition's ticks of one day (UTC)."""

    v: Literal[1] = 1
    #: The log that the offsets belong to (`runtime.logreader`).
    log: str
    partition: int
    date: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d$")]
    #: Every tick of the day in a record before this offset is in a file.
    next: int = 0
    files: list[ArchivedFile] = field(default_factory=list)


class Day(Struct, frozen=True):
    """What the progress knows of a day's manifest."""

    #: Offsets of the first and the last record with ticks of the day.
    first: int
    last: int
    ticks: int
    files: int
    #: Sources and symbols: with one file for each of them nothing is left to merge.
    series: int


class Progress(Struct, kw_only=True):
    """How far a partition is archived."""

    v: Literal[1] = 1
    log: str
    partition: int
    #: Offsets whose records are archived: ascending, apart only where Kafka had lost records before they were read.
    spans: list[Span] = field(default_factory=list)
    #: Records before this offset were read back from the archive and equalled those of Kafka.
    compared: int = 0
    days: dict[str, Day] = field(default_factory=dict)

    @property
    def next(self) -> int:
        """The offset of the next record to archive."""
        return self.spans[-1][1] + 1 if self.spans else 0

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The archived offsets as ranges of the log."""
        return tuple((self.partition, first, last) for first, last in self.spans)

    def add(self, first: int, last: int) -> None:
        """Note that these offsets are archived."""
        merged = normalized((*self.ranges, (self.partition, first, last)))
        self.spans = [(begin, end) for _, begin, end in merged]

    def first_since(self, time_ms: int) -> int | None:
        """The first offset of any record with ticks at or after the beginning of that day; None when there is none."""
        since = date_of(time_ms // DAY_MS)
        return min((day.first for date, day in self.days.items() if date >= since), default=None)


T = TypeVar("T", Manifest, Progress)


class Catalogue:
    """The manifests and the progress of one log in the archive."""

    def __init__(self, files: ArchiveFiles, log: str) -> None:
        self.files = files
        self.log = log
        self.folder = folder_of(log)

    def progress(self, partition: int) -> Progress:
        """How far the partition is archived; nothing of it when it never was."""
        found = self._load(Progress, self._progress_path(partition))
        return Progress(log=self.log, partition=partition) if found is None else found

    def save_progress(self, progress: Progress) -> None:
        """Replace what is stored."""
        self.files.replace(self._progress_path(progress.partition), msgspec.json.encode(progress))

    def partitions(self) -> list[int]:
        """The partitions that anything is archived of."""
        names = self.files.names(f"{self.folder}/progress")
        return sorted(int(name[10:-5]) for name in names if name.startswith("partition=") and name.endswith(".json"))

    def manifest(self, date: str, partition: int) -> Manifest:
        """The manifest of a day; an empty one when there is none yet."""
        found = self._load(Manifest, self._manifest_path(date, partition))
        return Manifest(log=self.log, partition=partition, date=date) if found is None else found

    def save_manifest(self, manifest: Manifest) -> None:
        """Replace what is stored."""
        self.files.replace(self._manifest_path(manifest.date, manifest.partition), msgspec.json.encode(manifest))

    def file_path(self, source: str, symbol: str, date: str, partition: int, span: Span) -> str:
        """Where a file of ticks belongs; it is named for the offsets that it has."""
        series = f"source={folder_name(source)}/symbol={folder_name(symbol)}"
        return f"{self.folder}/ticks/{series}/date={date}/{partition}-{span[0]:015d}-{span[1]:015d}.parquet"

    def announce(self, partition: int, paths: Iterable[str]) -> None:
        """Note which files are about to be written, so that none is left lying about after a crash."""
        self.files.replace(self._announced_path(partition), msgspec.json.encode(list(paths)))

    def announced(self, partition: int) -> list[str]:
        """What was announced and is not known to be done."""
        found = self.files.read(self._announced_path(partition))
        return [] if found is None else msgspec.json.decode(found, type=list[str])

    def settle(self, partition: int) -> None:
        """Forget the announcement."""
        self.files.delete(self._announced_path(partition))

    def _progress_path(self, partition: int) -> str:
        return f"{self.folder}/progress/partition={partition}.json"

    def _announced_path(self, partition: int) -> str:
        return f"{self.folder}/progress/announced={partition}.json"

    def _manifest_path(self, date: str, partition: int) -> str:
        return f"{self.folder}/manifests/date={date}/partition={partition}.json"

    def _load(self, kind: type[T], path: str) -> T | None:
        found = self.files.read(path)
        if found is None:
            return None
        loaded = _decoded(kind, found, self.files.full(path))
        if loaded.log != self.log:
            raise ArchiveDamaged(f"{self.files.full(path)} belongs to the log {loaded.log}, not to {self.log}")
        return loaded


def logs_in(files: ArchiveFiles) -> list[str]:
    """The names of the logs that the archive has anything of.

    Raises:
        ArchiveDamaged: when the progress of a partition cannot be read.
    """
    found = set()
    for folder in files.names(""):
        for name in files.names(f"{folder}/progress"):
            path = f"{folder}/progress/{name}"
            if name.startswith("partition=") and (content := files.read(path)) is not None:
                found.add(_decoded(Progress, content, files.full(path)).log)
    return sorted(found)


def _decoded(kind: type[T], content: bytes, where: str) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as exc:
        raise ArchiveDamaged(f"{where} is damaged: {exc}") from exc


def folder_of(log: str) -> str:
    """The folder of a log: its topic and the id of the topic, or of the cluster where the topic has none."""
    cluster, topic, *topic_id = log.split("/")
    return folder_name(f"{topic}.{topic_id[0] if topic_id else cluster}")


def folder_name(name: str) -> str:
    """The name as a part of a path, percent-encoded as Hive does; a long one is cut and ends with its hash."""
    encoded = "".join(c if ord(c) > 127 else quote(c, safe=_SAFE) for c in name)
    if len(encoded.encode()) <= _NAME_BYTES:
        return encoded
    cut = encoded.encode()[: _NAME_BYTES // 2].decode(errors="ignore")
    return f"{cut}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"


@lru_cache(maxsize=20_000)
def is_cut(name: str) -> bool:
    """Whether the name is too long for a part of a path to tell it."""
    return unquote(folder_name(name)) != name


def date_of(day: int) -> str:
    """The date of a day since 1970 (UTC)."""
    return datetime.fromtimestamp(day * 86_400, UTC).date().isoformat()
