"""`python -m stream_app`: one worker of the stream app, until SIGTERM or Ctrl-C."""

import asyncio
import sys

import faust
import structlog

from marketdata.errors import SettingsError, TickpipeError
from runtime.addresses import require_listenable
from runtime.logreader import wait_for_log
from runtime.logs import configure_logs
from runtime.process import collect_rarely, exit_on_stop_signal
from runtime.rights import Service
from runtime.settings import load_settings
from stream_app.app import create_app

log = structlog.get_logger(__name__)


def main() -> None:
    """Run one worker; ends with 0 when asked to stop, 2 when a setting cannot be used, 1 when it failed."""
    try:
        settings = load_settings()
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        sys.exit(2)
    configure_logs(settings)
    # Until Faust takes the signals over: a worker that is told to stop while it starts ends with 0 as well.
    exit_on_stop_signal()
    # Faust exits at once when no broker answers, so the wait is here. A second worker by the name of one that runs
    # would take its partitions, so it ends before that.
    try:
        require_listenable(settings.stream_host, settings.stream_port)
        log_name = asyncio.run(wait_for_log(settings, service=Service.STREAM))
    except TickpipeError as exc:
        log.error("The worker does not start.", action="start_refused", error=str(exc))
        sys.exit(1)
    collect_rarely()
    app = create_app(settings, log_name)
    worker = faust.Worker(app, quiet=True, override_logging=False, redirect_stdouts=False)
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
