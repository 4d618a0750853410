"""`tickpipe archive check` names whatever differs from what the archiver wrote, and nothing else."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from msgspec.structs import replace

from archive.checking import check, states
from archive.writer import Writer
from runtime.archive.columns import write_ticks
from runtime.archive.files import arrow_sink
from runtime.archive.manifest import ArchivedFile, Manifest
from runtime.archive.reader import read_whole
from tests.unit.archive.test_writer import LOG, Archive, frames

DATE = "2019-02-05"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path)
    archive.write(frames(6), cut=3)
    return archive


def rewritten(change: Callable[[pa.Table], pa.Table]) -> Callable[[Archive, Manifest], None]:
    """The first file with other rows, and a manifest that knows its new hash."""

    def tamper(archive: Archive, manifest: Manifest) -> None:
        file = manifest.files[0]
        rows = change(read_whole(archive.files, file))
        with archive.files.create(file.path) as stream:
            write_ticks(arrow_sink(stream), [rows])
        manifest.files[0] = replace(file, bytes=stream.size, sha256=stream.sha256)

    return tamper


def relisted(**changes: object) -> Callable[[Archive, Manifest], None]:
    """The manifest says something else of the first file."""

    def tamper(archive: Archive, manifest: Manifest) -> None:
        manifest.files[0] = replace(manifest.files[0], **changes)

    return tamper


def _cut_off(archive: Archive, manifest: Manifest) -> None:
    path = Path(archive.files.full(manifest.files[0].path))
    path.write_bytes(path.read_bytes()[:-9])


def _unlink(archive: Archive, manifest: Manifest) -> None:
    Path(archive.files.full(manifest.files[0].path)).unlink()


def _forget(archive: Archive, manifest: Manifest) -> None:
    del manifest.files[0]


def _twice(archive: Archive, manifest: Manifest) -> None:
    manifest.files.append(manifest.files[0])


def _moved(rows: pa.Table) -> pa.Table:
    days = pa.array([value.as_py() + 86_400_000 for value in rows["time"].cast(pa.int64())], pa.int64())
    return rows.set_column(0, rows.schema.field("time"), days.cast(rows.schema.field("time").type))


def test_an_untouched_archive_has_no_fault(archive: Archive) -> None:
    seen: list[None] = []
    assert list(check(archive.files, lambda: seen.append(None))) == []
    assert len(seen) == 2
    [state] = states(archive.files)
    assert (state.log, state.partition, state.first, state.next, state.days, state.files, state.ticks) == (
        LOG, 0, 0, 6, 1, 2, 12,
    )  # fmt: skip
    writer = Writer(archive.catalogue)
    writer.resume(0)
    assert writer.merge(0, DATE, at_least=2) == 1
    assert list(check(archive.files)) == []


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (_cut_off, r"0-0+-0+2\.parquet is damaged: its SHA-256"),
        (_unlink, r"0-0+-0+2\.parquet is missing"),
        (_forget, rf"manifest of {DATE}, partition 0, lists 6 ticks in 1 files.*12 in 2"),
        (_twice, r"have offsets in common"),
        (rewritten(lambda rows: rows.slice(1)), r"has 5 ticks of offsets 0 to 2, unlike"),
        (rewritten(lambda rows: rows.take([1, 0, *range(2, len(rows))])), r"not in order"),
        (rewritten(_moved), r"has ticks of another day"),
        (relisted(first=1), r"has 6 ticks of offsets 0 to 2, unlike"),
        (relisted(last=7), r"has 6 ticks of offsets 0 to 2, unlike|offsets in common"),
        (relisted(sha256="0" * 64), r"SHA-256"),
        (relisted(ticks=7), r"lists 13 ticks|unlike"),
    ],
)
def test_each_tampering_is_named(archive: Archive, tamper: Callable[[Archive, Manifest], None], named: str) -> None:
    manifest = archive.catalogue.manifest(DATE, 0)
    tamper(archive, manifest)
    archive.catalogue.save_manifest(manifest)
    found = list(check(archive.files))
    assert [fault for fault in found if re.search(named, fault)], found


@pytest.mark.parametrize("path", [f"manifests/date={DATE}/partition=0.json", "progress/partition=0.json"])
def test_a_torn_manifest_is_named(archive: Archive, path: str) -> None:
    target = Path(archive.files.full(f"{archive.catalogue.folder}/{path}"))
    target.write_bytes(target.read_bytes()[:-5])
    assert [fault for fault in check(archive.files) if path in fault]


def test_a_file_of_other_columns_is_named(archive: Archive) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415

    manifest = archive.catalogue.manifest(DATE, 0)
    file: ArchivedFile = manifest.files[0]
    with archive.files.create(file.path) as stream:
        pq.write_table(pa.table({"time": [1]}), arrow_sink(stream))
    manifest.files[0] = replace(file, sha256=stream.sha256)
    archive.catalogue.save_manifest(manifest)
    assert "other columns" in next(check(archive.files))
