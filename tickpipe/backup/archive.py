"""The file of a backup: a zip archive of named members, and a manifest with the SHA-256 of each.

Every unzip program opens it. The manifest is written last, and the file gets its name only when it is complete.
"""

import errno
import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Final, Self

import msgspec

from marketdata.errors import TickpipeError

#: Raised when an older Tickpipe could not restore what this one writes.
FORMAT: Final = 1

_MANIFEST: Final = "manifest.json"

#: Fast, and still a quarter of the size: the data is text (zlib's scale from 1 to 9).
_COMPRESSION: Final = 1

#: The largest manifest that is read, which holds a hundred thousand partitions (bytes).
_MANIFEST_BYTES: Final = 16 << 20

#: Bytes that are read at once.
PIECE_BYTES: Final = 1 << 20

#: Called with the number of bytes or records that were handled since the last call.
OnProgress = Callable[[int], None]


class ArchiveDamaged(TickpipeError):
    """The file is not a complete backup: it was cut off or changed; take an earlier one."""


class ArchiveTooNew(TickpipeError):
    """A newer Tickpipe wrote the backup; restore it with that version or a later one."""


class Member(msgspec.Struct, frozen=True):
    """Size and checksum of a member."""

    bytes: int
    sha256: str


class Table(msgspec.Struct, frozen=True):
    """A table as lines of PostgreSQL's COPY in text format."""

    name: str
    columns: tuple[str, ...]
    rows: int
    #: Types by column, so that columns that users have added can be made again; empty in older backups.
    types: dict[str, str] = {}


class DatabasePart(msgspec.Struct, frozen=True):
    """The database, of one snapshot."""

    edition: str
    migrations: tuple[str, ...]
    tables: tuple[Table, ...]


class Partition(msgspec.Struct, frozen=True):
    """Records of a partition from offset `first` up to, not including, `end`."""

    partition: int
    first: int
    end: int
    records: int


class Topic(msgspec.Struct, frozen=True):
    """A topic by its role, which is the setting that names it, and by the name that it had."""

    role: str
    name: str
    partitions: tuple[Partition, ...]


class KafkaPart(msgspec.Struct, frozen=True):
    """The log that the candles' offsets belong to, and how far it was read."""

    cluster_id: str
    #: As candles carry it, see `own_log`.
    log: str
    #: Next offset by partition, by role of the topic: what the stream had folded, what the sink had stored.
    stream_offsets: dict[str, dict[int, int]]
    sink_offsets: dict[str, dict[int, int]]
    #: Empty when the topics were not backed up.
    topics: tuple[Topic, ...] = ()


class Manifest(msgspec.Struct, frozen=True):
    """The contents of the archive."""

    format: int
    tickpipe: str
    created_at: datetime
    database: DatabasePart
    #: None when no broker answered.
    kafka: KafkaPart | None
    members: dict[str, Member]


class _Format(msgspec.Struct):
    format: int
    tickpipe: str = "?"


class ArchiveWriter:
    """Writes members one after the other: `with writer.member(name) as write: write(data)`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION)
        self.members: dict[str, Member] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._zip.close()

    @contextmanager
    def member(self, name: str) -> Iterator[Callable[[bytes], None]]:
        """A function that appends to the member."""
        digest, size = hashlib.sha256(), 0
        with self._zip.open(name, "w", force_zip64=True) as stream:

            def write(data: bytes) -> None:
                nonlocal size
                digest.update(data)
                size += len(data)
                stream.write(data)

            yield write
        self.members[name] = Member(size, digest.hexdigest())

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, which completes the archive."""
        self._zip.writestr(_MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2))


@contextmanager
def new_archive(path: Path) -> Iterator[ArchiveWriter]:
    """An archive that is written under another name; it is renamed to `path` when the block succeeds, else deleted.

    Only its owner may read the file.

    Raises:
        FileExistsError: when there is a file already; a backup is never overwritten.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    if path.exists():
        raise FileExistsError(f"{path} is there already; a backup is never written over another")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Whoever may read the backup may read every tick. (`Path.open` has no opener.)
        with open(partial, "xb", opener=_private) as file:
            with ArchiveWriter(file) as writer:
                yield writer
            file.flush()
            os.fsync(file.fileno())
        _put_in_place(partial, path)
        _sync_directory(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _put_in_place(partial: Path, path: Path) -> None:
    try:
        # Unlike a rename, a link does not replace a file that was created meanwhile.
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:
        # A USB stick (exFAT) or a Windows share has no hard links.
        if path.exists():
            raise
        partial.rename(path)


def _sync_directory(directory: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            # Not every file system supports it, and the file itself is on disk already.
            with suppress(OSError):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


#: What zipfile and the decoders raise where a file is damaged: of a place before its beginning the system says EINVAL,
#: and a bit may say that a member is encrypted (RuntimeError).
_DAMAGES: Final = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, RuntimeError, ValueError, OSError,
    msgspec.MsgspecError,
)  # fmt: skip


class ArchiveReader:
    """An archive opened for reading; use it as `with ArchiveReader(path) as archive`."""

    def __init__(self, path: Path) -> None:
        """Open the archive and read its manifest.

        Raises:
            ArchiveDamaged: when it is not a complete archive.
            ArchiveTooNew: when a newer Tickpipe wrote it.
            OSError: when the file cannot be opened.
        """
        self.path = path
        file = path.open("rb")
        try:
            with self._damage_named():
                self._zip = zipfile.ZipFile(file)
                self._check_directory()
                content = b"".join(self.pieces(_MANIFEST))
                found = msgspec.json.decode(content, type=_Format)
            if found.format > FORMAT:
                raise ArchiveTooNew(
                    f"{path} was written by Tickpipe {found.tickpipe} in format {found.format}, and this version reads "
                    f"up to format {FORMAT}; restore it with that version or a later one"
                )
            with self._damage_named():
                self.manifest = msgspec.json.decode(content, type=Manifest)
        except BaseException:
            file.close()
            raise
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._zip.close()
        self._file.close()

    @property
    def total_bytes(self) -> int:
        """Size of all members, uncompressed."""
        return sum(member.bytes for member in self.manifest.members.values())

    @property
    def sizes(self) -> dict[str, int]:
        """Size of every member but the manifest, uncompressed, as the archive's own directory says (bytes)."""
        return {info.filename: info.file_size for info in self._zip.infolist() if info.filename != _MANIFEST}

    def pieces(self, name: str) -> Iterator[bytes]:
        """The member in pieces of at most 1 MiB.

        Raises:
            ArchiveDamaged: when it is missing or cannot be read.
        """
        with self._damage_named(), self._zip.open(name) as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece

    def _check_directory(self) -> None:
        names = self._zip.namelist()
        if len(set(names)) < len(names):
            raise zipfile.BadZipFile("members have the same name")
        for info in self._zip.infolist():
            # Other methods unpack a whole block at once, of whatever size.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile(f"{info.filename} is compressed by an unknown method")
        if self._zip.getinfo(_MANIFEST).file_size > _MANIFEST_BYTES:
            raise zipfile.BadZipFile(f"{_MANIFEST} is too large")

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except _DAMAGES as exc:
            if isinstance(exc, OSError) and exc.errno != errno.EINVAL:
                raise
            raise ArchiveDamaged(
                f"{self.path} is not a complete backup ({exc}): it was cut off or changed; take an earlier one"
            ) from exc


def table_member(name: str) -> str:
    """The name of the member that holds a table."""
    return f"database/{name}.copy"


def partition_member(role: str, partition: int) -> str:
    """The name of the member that holds the records of a partition."""
    return f"topics/{role}/{partition}.records"
