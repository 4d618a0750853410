"""`python -m archive`: the archiver. Exit code 0 after SIGTERM or SIGINT, 1 after an error, 2 for settings."""

import sys

from prometheus_client import REGISTRY

from archive.service import Archiver
from marketdata.errors import SettingsError
from runtime.service import run_service
from runtime.settings import Settings, load_settings


def main() -> int:
    """Run until a signal; returns the exit code."""

    def new_archiver(settings: Settings) -> Archiver:
        return Archiver(settings, registry=REGISTRY)

    return run_service("archiver", new_archiver, logger="archive", load=_settings)


def _settings() -> Settings:
    settings = load_settings()
    if not settings.archive:
        raise SettingsError("TICKPIPE_ARCHIVE: set it to the folder of the archive, or to `off`")
    return settings


if __name__ == "__main__":
    sys.exit(main())
