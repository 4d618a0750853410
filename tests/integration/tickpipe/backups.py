"""What the tests of backups share: a progress display that nobody looks at, and a restore as the command does it."""

from pathlib import Path

from runtime.settings import Settings
from tickpipe.backup.archive import (
    ArchiveReader,
)
from tickpipe.backup.completeness import check_archive
from tickpipe.backup.engine import Restore, Restored


class Silent:
    """A progress display that nobody looks at."""

    def begin(self, description: str, total: float | None) -> None:
        """Nothing."""

    def update(self, completed: float, detail: str = "") -> None:
        """Nothing."""


async def restored(settings: Settings, path: Path, *, replace: bool = False, database_only: bool = False) -> Restored:
    with ArchiveReader(path) as archive:
        check_archive(archive)
        restore = Restore(settings, archive, database_only=database_only)
        await restore.prepare(replace=replace)
        return await restore.run(Silent())


def archives(directory: Path) -> list[str]:
    """Names of whole archives and of what is left of others."""
    return sorted(path.name for path in directory.iterdir() if ".zip" in path.name)
