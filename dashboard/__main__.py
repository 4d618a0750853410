"""`python -m dashboard`: serves on TICKPIPE_DASHBOARD_HOST and _PORT until SIGTERM or Ctrl-C."""

import sys
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from dashboard.app import Parts, create_app
from marketdata.errors import SettingsError
from runtime.addresses import is_loopback
from runtime.asgi import OwnNames
from runtime.logs import configure_logs
from runtime.process import collect_rarely
from runtime.serving import run_server, server_config
from runtime.settings import Settings, load_settings

log = structlog.get_logger(__name__)

#: Answers under way get this long to finish (seconds).
_GRACEFUL_SECONDS = 5


class Server(uvicorn.Server):
    """A server that ends the live streams at shutdown; they would never end by themselves."""

    def __init__(self, config: uvicorn.Config, parts: Parts) -> None:
        super().__init__(config)
        self._parts = parts

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End the live streams, then stop as any server does."""
        self._parts.hub.close()
        super().handle_exit(sig, frame)


def main() -> int:
    """Serve; returns the exit code: 2 when the settings do not let it start."""
    try:
        settings = load_settings()
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    configure_logs(settings)
    collect_rarely()
    _warn_if_open(settings)
    parts = Parts(settings)
    return run_server(_server(parts), parts.guard)


def _warn_if_open(settings: Settings) -> None:
    host = settings.dashboard_host
    if not is_loopback(host) and not settings.dashboard_password.get_secret_value():
        log.warning(
            "Everybody who reaches this address can see the candles; TICKPIPE_DASHBOARD_PASSWORD sets a password.",
            action="no_password", host=host,
        )  # fmt: skip


def _guarded(app: FastAPI, settings: Settings) -> FastAPI | OwnNames:
    # A page that takes another name has no password of this one.
    return app if settings.dashboard_password.get_secret_value() else OwnNames(app, settings.allowed_hosts)


def _server(parts: Parts) -> Server:
    settings = parts.settings
    config = server_config(
        _guarded(create_app(parts), settings), settings.dashboard_host, settings.dashboard_port,
        graceful_seconds=_GRACEFUL_SECONDS, max_connections=settings.max_connections,
    )  # fmt: skip
    return Server(config, parts)


if __name__ == "__main__":
    sys.exit(main())
