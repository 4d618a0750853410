"""Backups that are damaged, too new or interrupted change nothing and say what they are."""

import hashlib
import shutil
import stat
import tracemalloc
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from runtime.settings import Settings
from runtime.topics import ensure_topics
from sink.db.connection import connect
from sink.db.schema import migrate
from tests.conftest import passing_settings
from tests.integration.sink.fixed import new_writer
from tests.integration.tickpipe.backups import Silent, archives, restored
from tests.servers import EmbeddedServers
from tests.unit.sink.candles import MINUTE, candle
from tickpipe.backup.archive import (
    FORMAT,
    ArchiveDamaged,
    ArchiveReader,
    ArchiveTooNew,
    Manifest,
    new_archive,
)
from tickpipe.backup.completeness import check_archive
from tickpipe.backup.database import TABLES
from tickpipe.backup.engine import take_backup


class Interrupting(Silent):
    """Ctrl-C as soon as the work is under way."""

    def begin(self, description: str, total: float | None) -> None:
        """Interrupt the second piece of the work."""
        if description == "topics":
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def settings(servers: EmbeddedServers) -> Iterator[Settings]:
    """Those of one pipeline for all tests: an empty one at first, later with one candle at most."""
    with passing_settings(servers, uuid.uuid4().hex[:12]) as made:
        yield made


@pytest.fixture(scope="module")
async def backup(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of the empty pipeline."""
    path = tmp_path_factory.mktemp("backup") / "small.zip"
    await ensure_topics(settings)
    await migrate(settings.database_url.get_secret_value())
    await take_backup(settings, path, Silent(), with_topics=True)
    return path


@pytest.fixture
def small(backup: Path, tmp_path: Path) -> Path:
    """A copy of it in a folder of the test's own."""
    return Path(shutil.copy2(backup, tmp_path / "small.zip"))


def damaged(path: Path) -> list[Path]:
    """Copies of the archive, each broken in a way of its own."""
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        header = archive.getinfo("database/candle_settings.copy").header_offset
    # Behind the header of 30 bytes, the name and the extra field, whose lengths are in it.
    lengths = int.from_bytes(whole[header + 26 : header + 28], "little"), whole[header + 28]
    place = header + 30 + sum(lengths) + 5
    contents = {
        "cut off": whole[: len(whole) // 2],
        "a bit": whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
        "something else": b"PK is not enough",
        "empty": b"",
    }
    for name, content in contents.items():
        path.with_name(f"{name}.zip").write_bytes(content)
    return [path.with_name(f"{name}.zip") for name in contents]


async def test_damage_is_told_and_changes_nothing(settings: Settings, small: Path) -> None:
    for path in damaged(small):
        with pytest.raises(ArchiveDamaged, match="earlier"):
            await restored(settings, path)
    await restored(settings, small)


def rewritten(path: Path, change: dict[str, Any], *, member: bytes | None = None) -> Path:
    """The archive with another manifest, or another candle_settings; every CRC is right."""
    changed = path.with_name("changed.zip")
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(changed, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            if name == "manifest.json":
                content = msgspec.json.encode(msgspec.json.decode(content) | change)
            elif name == "database/candle_settings.copy" and member is not None:
                content = member
            after.writestr(name, content)
    return changed


async def test_what_a_newer_version_wrote_is_refused(settings: Settings, small: Path) -> None:
    with pytest.raises(ArchiveTooNew, match=r"Tickpipe 9\.0"):
        await restored(settings, rewritten(small, {"format": FORMAT + 1, "tickpipe": "9.0", "members": "otherwise"}))
    with ArchiveReader(small) as archive:
        database = msgspec.to_builtins(archive.manifest.database)
    with pytest.raises(ArchiveTooNew, match="0099_more"):
        await restored(settings, rewritten(small, {"database": database | {"migrations": ["0099_more.sql"]}}))
    database["tables"][0]["columns"] += ("colour",)
    with pytest.raises(ArchiveTooNew, match="candle_settings has no column colour"):
        await restored(settings, rewritten(small, {"database": database}))


async def test_what_was_changed_by_hand_is_told_by_its_checksum(settings: Settings, small: Path) -> None:
    with zipfile.ZipFile(small) as archive:
        settings_in_backup = archive.read("database/candle_settings.copy")
    with pytest.raises(ArchiveDamaged, match="is not what was written"):
        await restored(settings, rewritten(small, {}, member=settings_in_backup.replace(b"UTC", b"EST")))


def forged(path: Path, change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> Path:
    """The archive with its manifest and members changed; sizes and checksums are right again."""
    with zipfile.ZipFile(path) as before:
        members = {name: before.read(name) for name in before.namelist()}
    manifest = msgspec.json.decode(members.pop("manifest.json"))
    named = dict(members)
    change(manifest, members)
    manifest["members"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in members.items()
        if name in named or name in manifest.get("also", ())
    }
    changed = path.with_name("forged.zip")
    with zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as after:
        for name, content in members.items():
            after.writestr(name, content)
        after.writestr("manifest.json", manifest.get("raw") or msgspec.json.encode(manifest))
    return changed


def _no_tables(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
    manifest["database"]["tables"] = []
    for name in [name for name in members if name.startswith("database/")]:
        del members[name]


def _no_tables_of_no_migration(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
    manifest["database"]["migrations"] = []
    _no_tables(manifest, members)


def _a_table_twice(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
    manifest["database"]["tables"] *= 2


def _no_settings(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
    manifest["database"]["tables"][0]["rows"] = 0
    members["database/candle_settings.copy"] = b""


def _other_count_of_rows(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
    manifest["database"]["tables"][1]["rows"] = 7


def _a_topic_missing(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
    topic = manifest["kafka"]["topics"].pop()
    for part in topic["partitions"]:
        del members[f"topics/{topic['role']}/{part['partition']}.records"]


def _a_partition_missing(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
    del manifest["kafka"]["topics"][0]["partitions"][0]
    del members["topics/ticks_topic/0.records"]


def _a_member_missing(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
    del members["database/broker_bars.copy"]


def _a_member_outside(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
    manifest["also"] = ["../../outside"]
    members["../../outside"] = b"x"


def _records_missing(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
    manifest["kafka"]["topics"][0]["partitions"][0] |= {"end": 3, "records": 3}


def _a_block_of_four_gigabytes(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
    manifest["kafka"]["topics"][0]["partitions"][0] |= {"end": 3, "records": 3}
    members["topics/ticks_topic/0.records"] = b"\xff" * 4 + bytes(200 << 20)


def _a_large_manifest(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
    manifest["raw"] = msgspec.json.encode(manifest) + b" " * (200 << 20)


@pytest.mark.parametrize(
    "change",
    [
        _no_tables, _no_tables_of_no_migration, _a_table_twice, _no_settings, _other_count_of_rows, _a_topic_missing,
        _a_partition_missing, _a_member_missing, _a_member_outside, _records_missing,
        pytest.param(_a_block_of_four_gigabytes, marks=pytest.mark.full),
        pytest.param(_a_large_manifest, marks=pytest.mark.full),
    ],
)  # fmt: skip
async def test_nothing_is_deleted_for_a_backup_that_is_not_whole(
    settings: Settings, small: Path, change: Callable[[dict[str, Any], dict[str, bytes]], None]
) -> None:
    # Arrange
    path = forged(small, change)
    async with await connect(settings.database_url.get_secret_value()) as connection:
        await new_writer().write(connection, [candle(ts=MINUTE)])
    tracemalloc.start()

    # Act
    try:
        with pytest.raises(ArchiveDamaged, match="earlier"):
            await restored(settings, path, replace=True)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # Assert
    with psycopg.connect(settings.database_url.get_secret_value()) as connection_after:
        assert connection_after.execute("SELECT count(*) FROM market_data").fetchone() == (1,)
    assert peak_bytes < 100 << 20


async def test_a_restore_that_fails_leaves_the_database_as_it_was(settings: Settings, small: Path) -> None:
    """A whole archive with a row that the database refuses."""

    def change(manifest: dict[str, Any], members: dict[str, bytes]) -> None:
        manifest["database"]["tables"][2]["rows"] = 1
        members["database/broker_bars.copy"] = b"no bar\n"

    async with await connect(settings.database_url.get_secret_value()) as connection:
        await new_writer().write(connection, [candle(ts=MINUTE)])
    with pytest.raises(psycopg.DataError):
        await restored(settings, forged(small, change), replace=True)
    with psycopg.connect(settings.database_url.get_secret_value()) as after:
        assert after.execute("SELECT count(*) FROM market_data").fetchone() == (1,)


def test_a_member_that_is_larger_than_the_manifest_says_is_refused(small: Path) -> None:
    changed = small.with_name("larger.zip")
    with zipfile.ZipFile(small) as before, zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as after:
        for name in before.namelist():
            content = before.read(name)
            after.writestr(name, bytes(300 << 20) if name == "database/broker_bars.copy" else content)
    with ArchiveReader(changed) as archive, pytest.raises(ArchiveDamaged, match="314,572,800 bytes"):
        check_archive(archive)


def test_only_its_owner_may_read_a_backup(backup: Path) -> None:
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600


async def test_an_interrupted_backup_leaves_nothing(settings: Settings, small: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        await take_backup(settings, small.with_name("next.zip"), Interrupting(), with_topics=True)
    assert archives(small.parent) == ["small.zip"]
    with pytest.raises(FileExistsError, match="never written over"):
        await take_backup(settings, small, Silent(), with_topics=False)
    with ArchiveReader(small) as archive:
        check_archive(archive)


async def test_every_table_of_the_schema_is_backed_up(settings: Settings, small: Path) -> None:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        tables = {name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    # The rows of two come with the migrations, and late minutes with those that are restored; the progress is empty
    # after a restore, so that all is read again.
    assert tables == {*TABLES, "tickpipe_migrations", "timeframes", "late_minutes", "sink_progress"}
    with ArchiveReader(small) as archive:
        assert isinstance(archive.manifest, Manifest)
        assert {table.name for table in archive.manifest.database.tables} == set(TABLES)


def test_a_failed_archive_is_not_there(tmp_path: Path) -> None:
    def fail() -> None:
        with new_archive(tmp_path / "a.zip") as archive, archive.member("database/x.copy") as write:
            write(b"rows")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_links_takes_a_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    with new_archive(tmp_path / "a.zip"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
