"""`python -m sink`: the sink as a process. Exit code 0 after SIGTERM or SIGINT, 1 after an error, 2 for settings."""

import asyncio
import sys

import structlog
from prometheus_client import REGISTRY

from marketdata.errors import SettingsError, TickpipeError
from runtime.logs import configure_logs
from runtime.process import collect_rarely, on_stop_signal
from runtime.settings import Settings, load_settings
from sink.service import Sink

log = structlog.get_logger("sink")


async def _serve(settings: Settings) -> int:
    sink = Sink(settings, registry=REGISTRY)
    on_stop_signal(sink.stop)
    await sink.run()
    return sink.exit_code


def main() -> int:
    """Run until a signal; returns the exit code."""
    try:
        settings = load_settings()
    except SettingsError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    configure_logs(settings)
    collect_rarely()
    try:
        return asyncio.run(_serve(settings))
    except TickpipeError as exc:
        log.error("The sink ends. Offsets were not committed.", action="sink_refused", error=str(exc))
        return 1
    except Exception:
        log.exception("The sink ends: this was not foreseen. Offsets were not committed.", action="sink_failed")
        return 1


if __name__ == "__main__":
    sys.exit(main())
