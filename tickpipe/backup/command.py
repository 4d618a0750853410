"""`tickpipe backup`: one file with the database and, if wanted, the topics."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tickpipe.connection import DataDir, connected_settings
from tickpipe.console import INTERRUPTED, err, out, run

if TYPE_CHECKING:
    from runtime.settings import Settings
    from tickpipe.backup.archive import Manifest


def backup(
    target: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="A directory, in which the file is named by the time; or a file.")
    ],
    *,
    topics: Annotated[bool, typer.Option("--topics", help="The topics too: ticks, rejected records.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Back up the database and, with `--topics`, the topics, into one file. Everything may go on meanwhile.

    The ticks are what cannot be made again; with them a new machine has all there was, and every candle is still
    proven. The file has its name only when it is whole, and none is ever overwritten. `tickpipe restore FILE` brings it
    back, `tickpipe restore --check FILE` reads it and compares checksums. Keys and settings are not in it.

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
    from tickpipe.backup.taking import take_backup
    from tickpipe.progress import Bar

    with Bar("backup") as bar:
        return await take_backup(settings, path, bar, with_topics=with_topics)


def described(manifest: "Manifest") -> list[str]:
    """What a backup holds, for people."""
    lines = [f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC, Tickpipe {manifest.tickpipe}, {manifest.database.edition}"]
    lines += [f"  {table.name}: {table.rows:,} rows" for table in manifest.database.tables if table.rows]
    for topic in manifest.kafka.topics if manifest.kafka else ():
        lines.append(f"  {topic.name}: {sum(part.records for part in topic.partitions):,} records")
    return lines
