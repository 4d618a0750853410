"""Checks that a backup is whole before anything is deleted for it: tables, topics, members, sizes, hashes, counts."""

import hashlib
from collections.abc import Callable, Iterable, Iterator

from tickpipe.backup import database, topics
from tickpipe.backup.archive import ArchiveDamaged, ArchiveReader, OnProgress, partition_member, table_member

#: Reads a member to its end and raises when it does not hold what the manifest says.
_ReadMember = Callable[[Iterable[bytes]], None]


def check_archive(archive: ArchiveReader, on_progress: OnProgress = lambda _: None) -> None:
    """Read the whole backup and compare it with its manifest; bytes are reported to `on_progress`.

    Raises:
        ArchiveDamaged: naming what is missing, more than there should be or not what was written.
    """
    require_complete(archive)
    for name, read in _members(archive).items():
        read(_verified(archive, name, on_progress))


def require_complete(archive: ArchiveReader) -> None:
    """Check the manifest and the list of members, without reading the members.

    Raises:
        ArchiveDamaged: when a table, a topic or a member is missing, or there are more than there should be.
        ArchiveTooNew: when the backup has migrations that this version does not know.
    """
    manifest = archive.manifest
    database.require_known_migrations(manifest.database)
    expected_tables = database.tables_of(manifest.database.migrations)
    _require_same("tables", [table.name for table in manifest.database.tables], expected_tables, archive)
    for table in manifest.database.tables:
        if table.name == "candle_settings" and table.rows != 1:
            raise ArchiveDamaged(
                f"{archive.path}: {table.name} has {table.rows} rows instead of one; take an earlier backup"
            )
    kafka = manifest.kafka
    if kafka is not None and kafka.topics:
        _require_same("topics", [topic.role for topic in kafka.topics], topics.ROLES, archive)
        for topic in kafka.topics:
            numbers = [part.partition for part in topic.partitions]
            _require_same(f"partitions of {topic.name}", numbers, range(max(1, len(numbers))), archive)
    members = _members(archive)
    _require_same("members in its manifest", list(manifest.members), members, archive)
    _require_same("members", [*archive.sizes], members, archive)
    for name, member in manifest.members.items():
        if archive.sizes[name] != member.bytes:
            raise ArchiveDamaged(
                f"{archive.path}: {name} has {archive.sizes[name]:,} bytes and its manifest says {member.bytes:,}; "
                "take an earlier backup"
            )


def _require_same(
    what: str, found: list[str] | list[int], expected: Iterable[str | int], archive: ArchiveReader
) -> None:
    wanted = list(expected)
    if sorted(map(str, found)) == sorted(map(str, wanted)):
        return
    missing = [str(one) for one in wanted if one not in found]
    foreign = [str(one) for one in found if one not in wanted]
    differences = [f"{', '.join(missing)} missing"] * bool(missing) + [f"{', '.join(foreign)} unknown"] * bool(foreign)
    raise ArchiveDamaged(
        f"{archive.path} is not a complete backup: {what}: {'; '.join(differences) or 'some are named twice'}; "
        "take an earlier one"
    )


def _members(archive: ArchiveReader) -> dict[str, _ReadMember]:
    # By name, the members that the tables and topics of the manifest need, and how each is read.
    found: dict[str, _ReadMember] = {}
    for table in archive.manifest.database.tables:
        found[table_member(table.name)] = _rows_of(archive, table.name, table.rows)
    kafka = archive.manifest.kafka
    for topic in kafka.topics if kafka is not None else ():
        for part in topic.partitions:
            name = partition_member(topic.role, part.partition)
            found[name] = _records_of(archive, name, part.first, part.end, part.records)
    return found


def _rows_of(archive: ArchiveReader, table: str, rows: int) -> _ReadMember:
    def read(pieces: Iterable[bytes]) -> None:
        # COPY writes a newline in a value as `\n`, so every real one ends a row.
        found = sum(piece.count(b"\n") for piece in pieces)
        if found != rows:
            raise ArchiveDamaged(
                f"{archive.path}: {table} has {found:,} rows and its manifest says {rows:,}; take an earlier backup"
            )

    return read


def _records_of(archive: ArchiveReader, name: str, first: int, end: int, records: int) -> _ReadMember:
    def read(pieces: Iterable[bytes]) -> None:
        found, next_offset = 0, first
        for record in topics.read_records(pieces):
            if not next_offset <= record.offset < end:
                raise ArchiveDamaged(f"{archive.path}: {name} has offset {record.offset} out of order")
            found, next_offset = found + 1, record.offset + 1
        if found != records:
            raise ArchiveDamaged(
                f"{archive.path}: {name} has {found:,} records and its manifest says {records:,}; "
                "take an earlier backup"
            )

    return read


def _verified(archive: ArchiveReader, name: str, on_progress: OnProgress) -> Iterator[bytes]:
    expected = archive.manifest.members[name]
    digest, size = hashlib.sha256(), 0
    for piece in archive.pieces(name):
        digest.update(piece)
        size += len(piece)
        yield piece
        on_progress(len(piece))
    if (size, digest.hexdigest()) != (expected.bytes, expected.sha256):
        raise ArchiveDamaged(f"{archive.path}: {name} is not what was written (SHA-256); take an earlier backup")
