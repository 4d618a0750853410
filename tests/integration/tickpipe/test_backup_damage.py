"""Backups that are damaged, too new or interrupted change nothing and say what they are."""

import zipfile
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from runtime.kafka import ensure_topics
from runtime.settings import Settings
from sink.db.migrations import migrate
from tests.integration.tickpipe.backups import Silent, archives, restored
from tickpipe.backup.archive import (
    FORMAT,
    ArchiveDamaged,
    ArchiveReader,
    ArchiveTooNew,
    Manifest,
    new_archive,
)
from tickpipe.backup.database import TABLES
from tickpipe.backup.engine import take_backup


class Interrupting(Silent):
    """Ctrl-C as soon as the work is under way."""

    def begin(self, description: str, total: float | None) -> None:
        """Interrupt the second piece of the work."""
        if description == "topics":
            raise KeyboardInterrupt


@pytest.fixture
async def small(settings: Settings, tmp_path: Path) -> Path:
    """A backup of an empty pipeline."""
    await ensure_topics(settings)
    await migrate(settings.database_url.get_secret_value())
    await take_backup(settings, tmp_path / "small.zip", Silent(), with_topics=True)
    return tmp_path / "small.zip"


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
    with pytest.raises(ArchiveDamaged, match="is not what was written"):
        await restored(settings, rewritten(small, {}, member=b"t\tUTC\t00:00:00\n"))


async def test_an_interrupted_backup_leaves_nothing(settings: Settings, small: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        await take_backup(settings, small.with_name("next.zip"), Interrupting(), with_topics=True)
    assert archives(small.parent) == ["small.zip"]
    with pytest.raises(FileExistsError, match="never written over"):
        await take_backup(settings, small, Silent(), with_topics=False)
    with ArchiveReader(small) as archive:
        archive.check()


async def test_every_table_of_the_schema_is_backed_up(settings: Settings, small: Path) -> None:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        tables = {name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    # The rows of these two come with the migrations.
    assert tables == {*TABLES, "schema_migrations", "timeframes"}
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
