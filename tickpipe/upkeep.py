"""What `tickpipe doctor` looks at on its own machine: the installation, keys that end, and backups."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from marketdata.errors import SettingsError, install_extra
from tickpipe.console import EXTRAS

if TYPE_CHECKING:
    from runtime.settings import Settings

_OLD_BACKUP: Final = timedelta(days=7)


class Level(StrEnum):
    """How urgent a line is: fine, worth a look, or in need of the cure."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


@dataclass(frozen=True)
class Line:
    """What was found of one part, and the cure unless it is green."""

    part: str
    level: Level
    found: str
    cure: str = ""


def installed(settings: "Settings") -> Iterator[Line]:
    """The version that is installed, and the extras that are not."""
    from importlib.metadata import version

    missing = sorted({extra for package, extra in EXTRAS.items() if not _is_installed(package)})
    said = f"tickpipe {version('tickpipe')}"
    if settings.otlp_endpoint and not _is_installed("opentelemetry"):
        cure = f"{install_extra('otel')}; or unset TICKPIPE_OTLP_ENDPOINT"
        yield Line("installation", Level.RED, f"{said} is to send spans and cannot", cure)
    if missing:
        cure = f"where a command or service asks for it, {install_extra(','.join(missing))}"
        yield Line("installation", Level.YELLOW, f"{said} without {', '.join(missing)}", cure)
    else:
        yield Line("installation", Level.GREEN, f"{said} with every extra")


def ends_of_keys(path: Path) -> Iterator[Line]:
    """The keys of the file that end soon, or have ended."""
    from runtime.api_keys import ENDS_SOON, read_keys

    now = datetime.now(UTC)
    try:
        keys = read_keys(path)
    except SettingsError as exc:
        yield Line("keys", Level.RED, str(exc), "mend the file, or make its keys again: tickpipe keys create")
        return
    ending = [(key.name, key.ends_at - now) for key in keys if key.ends_at and key.ends_at - now < ENDS_SOON]
    for name, left in ending:
        said = f"{name} ended {time_span(-left)} ago" if left <= timedelta() else f"{name} ends in {time_span(left)}"
        level = Level.RED if left <= timedelta() else Level.YELLOW
        yield Line("keys", level, said, f"tickpipe keys rotate {name}, or tickpipe keys revoke {name}")
    if keys and not ending:
        yield Line("keys", Level.GREEN, f"none of {len(keys)} ends within {time_span(ENDS_SOON)}")


def stored_backups(directory: Path | None) -> Iterator[Line]:
    """How old the newest backup in the folder is, and which cannot be read."""
    from tickpipe.backup.archive import ArchiveDamaged, ArchiveReader, ArchiveTooNew

    cure = "tickpipe backup --topics DIR, every day (docs/storage.md)"
    if directory is None:
        yield Line("backups", Level.YELLOW, "not looked at", "tickpipe doctor --backups DIR")
        return
    newest: datetime | None = None
    for path in directory.glob("*.zip"):
        try:
            with ArchiveReader(path) as archive:
                newest = max(newest or archive.manifest.created_at, archive.manifest.created_at)
        except (ArchiveDamaged, ArchiveTooNew, OSError) as exc:
            yield Line("backups", Level.YELLOW, str(exc), "tickpipe restore --check FILE says more")
    if newest is None:
        yield Line("backups", Level.RED, f"{directory} holds none", cure)
    elif (age := datetime.now(UTC) - newest) > _OLD_BACKUP:
        yield Line("backups", Level.RED, f"the newest is {time_span(age)} old", cure)
    else:
        yield Line("backups", Level.GREEN, f"the newest is {time_span(age)} old")


def time_span(age: timedelta) -> str:
    """A length of time in words."""
    minutes = int(age.total_seconds() // 60)
    return (
        f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 2_880 else f"{minutes // 1_440} days"
    )


def _is_installed(package: str) -> bool:
    # Faust puts an object without a spec in its own place, of which find_spec cannot tell.
    return package in sys.modules or find_spec(package) is not None
