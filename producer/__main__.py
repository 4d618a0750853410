"""`python -m producer`: serves the application on TICKPIPE_PRODUCER_HOST and _PORT until SIGTERM or Ctrl-C."""

import gc
import sys

import uvicorn
from fastapi import FastAPI

from marketdata.errors import SettingsError
from producer.app import create_app
from runtime import serving
from runtime.logs import configure_logs
from runtime.process import collect_rarely
from runtime.settings import Settings, load_settings

#: Requests under way get this long to finish (seconds): as long as one may wait for Kafka.
_GRACEFUL_SECONDS = 10


def main() -> int:
    """Serve; returns the exit code: 2 when the settings do not let it start."""
    try:
        settings = load_settings()
        configure_logs(settings)
        app = create_app(settings)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    # What is there now stays, or every full collection would walk through all of FastAPI (30 ms and more); and what a
    # request makes ends with it, so looking for more garbage would only add to its time.
    gc.collect()
    collect_rarely()
    return serving.run_server(uvicorn.Server(server_config(app, settings)), app.guard)


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How the producer serves its application."""
    return serving.server_config(
        app, settings.producer_host, settings.producer_port,
        graceful_seconds=_GRACEFUL_SECONDS, timeout_keep_alive=serving.KEEP_ALIVE_SECONDS,
        max_connections=settings.max_connections,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
