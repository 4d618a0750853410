"""`python -m archive`: the archiver. Exit code 0 after SIGTERM or SIGINT, 1 after an error, 2 for settings."""

import asyncio
import sys

import structlog
from prometheus_client import REGISTRY

from archive.service import Archiver
from marketdata.errors import SettingsError, TickpipeError
from runtime.logs import configure_logs
from runtime.process import collect_rarely, on_stop_signal
from runtime.settings import Settings, load_settings

log = structlog.get_logger("archive")


async def _serve(settings: Settings) -> int:
    archiver = Archiver(settings, registry=REGISTRY)
    on_stop_signal(archiver.stop)
    await archiver.run()
    return archiver.exit_code


def main() -> int:
    """Run until a signal; returns the exit code."""
    try:
        settings = load_settings()
        if not settings.archive:
            raise SettingsError("TICKPIPE_ARCHIVE: set it to the folder of the archive, or to `off`")
    except SettingsError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    configure_logs(settings)
    collect_rarely()
    try:
        return asyncio.run(_serve(settings))
    except TickpipeError as exc:
        log.error("The archiver ends.", action="archiver_refused", error=str(exc))
        return 1
    except Exception:
        log.exception("The archiver ends: this was not foreseen.", action="archiver_failed")
        return 1


if __name__ == "__main__":
    sys.exit(main())
