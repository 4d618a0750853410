"""`tickpipe backup` and `tickpipe restore`: the database and, if wanted, the topics in one file."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marketdata.errors import KafkaUnavailable
from tickpipe.connection import DataDir, StackServices, connected_settings, data_dir_option, data_directory
from tickpipe.console import INTERRUPTED, ask, err, out, require_consent, run

if TYPE_CHECKING:
    from runtime.settings import Settings
    from tickpipe.backup.archive import ArchiveReader, Manifest
    from tickpipe.backup.engine import Restored

#: Services of the stack that write to topics or to the database; they are stopped in the stack's order.
_WRITER = re.compile(r"(producer|stream|sink)(-\d+)?")

_STOP_ELSEWHERE = (
    "stop producer, stream workers and sink first: `docker compose stop producer stream sink`, or in Kubernetes scale "
    "them to 0 replicas; then run the same command again"
)


def backup(
    target: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="A directory, in which the file is named by the time; or a file.")
    ],
    *,
    topics: Annotated[bool, typer.Option("--topics", help="The topics too: ticks, rejected records.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Back up the database and, with `--topics`, the topics, into one file. Everything may keep running meanwhile.

    The ticks are what cannot be made again; with them a new machine has all there was, and every candle is still
    proven. The file gets its name only when it is complete, and none is ever overwritten. `tickpipe restore FILE`
    brings it back, `tickpipe restore --check FILE` reads it and compares checksums. Keys and settings are not in it.

    Examples:

    * `tickpipe backup --topics /mnt/backup`
    * `tickpipe backup candles.zip`
    """
    target = target.expanduser().absolute()
    if target.is_dir():
        target /= f"tickpipe-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.zip"
    started = time.monotonic()
    try:
        manifest = run(_backup(connected_settings(data_dir), target, with_topics=topics))
    except KeyboardInterrupt as exc:
        err.print("Interrupted; no backup was written.")
        raise typer.Exit(INTERRUPTED) from exc
    for line in described(manifest):
        out.print(line, markup=False, soft_wrap=True)
    size_mb = target.stat().st_size / 1e6
    out.print(f"{target}: {size_mb:,.1f} MB, {time.monotonic() - started:.1f} s", markup=False, soft_wrap=True)
    if manifest.kafka is None:
        err.print("No Kafka broker answered, so the backup does not know how far services were in the log.")
    elif not topics:
        err.print("The ticks are not in it; back them up with --topics.")


async def _backup(settings: "Settings", path: Path, *, with_topics: bool) -> "Manifest":
    from tickpipe.backup.engine import take_backup
    from tickpipe.console import Bar

    with Bar("backup") as bar:
        return await take_backup(settings, path, bar, with_topics=with_topics)


def described(manifest: "Manifest") -> list[str]:
    """The contents of a backup as lines of text."""
    lines = [f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC, Tickpipe {manifest.tickpipe}, {manifest.database.edition}"]
    lines += [f"  {table.name}: {table.rows:,} rows" for table in manifest.database.tables if table.rows]
    for topic in manifest.kafka.topics if manifest.kafka else ():
        lines.append(f"  {topic.name}: {sum(part.records for part in topic.partitions):,} records")
    return lines


def restore(
    file: Annotated[Path, typer.Argument(help="What `tickpipe backup` wrote.")],
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only read the file: is it complete, is every checksum right.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete the candles that the database holds. Topics are never deleted.")
    ] = False,
    database_only: Annotated[
        bool, typer.Option("--database-only", help="Leave Kafka alone: no topics, no offsets of groups.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Restore a backup into an empty database and, when it has topics, into a Kafka without records.

    Before anything is deleted or written the file is read: every table and topic is there, every count and checksum is
    right. Then the database is replaced in one transaction. Records come back to the offsets they had, so every candle
    is still proven: `tickpipe verify` afterwards says so. Services of the embedded stack are stopped and started again;
    elsewhere you stop producer, stream workers and sink, and start them afterwards. A restore that was interrupted is
    run again and continues.

    Where Kafka still has the log, it is left as it is: then only the database comes back, and the groups are set back
    to where the backup was taken, so that all candles since are folded again from the log.

    Examples:

    * `tickpipe restore --check tickpipe-20260105T030000Z.zip`
    * `tickpipe up`, then `tickpipe restore tickpipe-20260105T030000Z.zip`
    """
    from tickpipe.backup.archive import ArchiveReader

    if not check:
        require_consent(yes, look="--check")
    with ArchiveReader(file) as archive:
        _check(archive)
        for line in described(archive.manifest):
            out.print(line, markup=False, soft_wrap=True)
        if check:
            out.print(
                "The backup is complete: every table, topic and count is there, every checksum is right.",
                soft_wrap=True,
            )
            return
        settings = connected_settings(data_dir)
        directory = data_directory(data_dir)
        started = time.monotonic()
        try:
            restored = _restore(settings, directory, archive, replace=replace, database_only=database_only, yes=yes)
        except KeyboardInterrupt as exc:
            err.print("Interrupted; run the same command again, it continues.")
            raise typer.Exit(INTERRUPTED) from exc
    _report(restored, time.monotonic() - started)


def _check(archive: "ArchiveReader") -> None:
    from tickpipe.backup.completeness import check_archive
    from tickpipe.backup.engine import Count, bytes_text
    from tickpipe.console import Bar

    with Bar("checking", archive.total_bytes) as bar:
        check_archive(archive, Count(bar, bytes_text).add)


def _restore(
    settings: "Settings", directory: Path, archive: "ArchiveReader", *, replace: bool, database_only: bool, yes: bool
) -> "Restored":
    from tickpipe.backup.engine import Restore
    from tickpipe.console import Bar

    restore = Restore(settings, archive, database_only=database_only)
    run(restore.prepare(replace=replace))
    deleted = "; the candles that it holds are deleted" if replace else ""
    ask(f"Restore this into the database{deleted}?", yes)
    services = StackServices(directory, _WRITER)
    services.stop()
    try:
        kafka = archive.manifest.kafka
        if not database_only and kafka is not None:
            try:
                run(_wait_until_groups_are_empty(settings))
            except KafkaUnavailable:
                # Candles alone can be restored without Kafka.
                if kafka.topics:
                    raise
    except BaseException:
        _start(services)
        raise
    try:
        with Bar("restoring") as bar:
            restored = run(restore.run(bar))
    except BaseException:
        # New ticks behind half of the old ones would take the offsets of the other half.
        _warn_that_they_stay_stopped(services, directory)
        raise
    _start(services)
    return restored


async def _wait_until_groups_are_empty(settings: "Settings") -> None:
    from sink.progress import with_sink_group
    from tickpipe.replay.engine import GroupActive, wait_until_empty

    try:
        with err.status("waiting until Kafka has let go of the stopped services"):
            settings = await with_sink_group(settings)
            for group in (settings.stream_group, settings.sink_group):
                await wait_until_empty(settings, lambda members, waited: None, group=group)
    except GroupActive as exc:
        raise GroupActive(f"{exc}; {_STOP_ELSEWHERE}") from exc


def _start(services: StackServices) -> None:
    services.start()
    if not services.names:
        err.print("Now start producer, stream workers and sink.")


def _warn_that_they_stay_stopped(services: StackServices, directory: Path) -> None:
    if services.names:
        option = data_dir_option(directory)
        err.print(
            f"{', '.join(services.names)} stay stopped: run the same command again, it continues; or start them by "
            f"`tickpipe down{option}` and `tickpipe up{option}`.",
            markup=False, soft_wrap=True,
        )  # fmt: skip


def _report(restored: "Restored", seconds: float) -> None:
    from tickpipe.backup.engine import LogState

    out.print(f"{restored.candles:,} candles restored, {seconds:.1f} s", markup=False)
    match restored.log:
        case LogState.RESTORED:
            out.print(f"{restored.records:,} records of topics are at the offsets they had.", markup=False)
        case LogState.PRESENT:
            out.print("The log is here and was left as it is; what came since the backup is folded again from it.")
        case LogState.MISSING:
            err.print(
                "The ticks are neither in the backup nor in this Kafka: the candles are here, and `tickpipe verify` "
                "cannot prove them.",
                soft_wrap=True,
            )
        case LogState.UNTOUCHED:
            err.print(
                "Kafka was left alone. What came since the backup is missing; with the same Kafka bring it back by "
                "`tickpipe replay`.",
                soft_wrap=True,
            )
    if restored.log in (LogState.RESTORED, LogState.PRESENT):
        out.print("Prove it with `tickpipe verify`.")
