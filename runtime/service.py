"""Runs a service without an HTTP application of its own as a process."""

import asyncio
import sys
from collections.abc import Callable
from typing import Protocol

import structlog

from marketdata.errors import SettingsError, TickpipeError
from runtime.logs import configure_logs
from runtime.process import collect_rarely, on_stop_signal
from runtime.settings import Settings, load_settings


class LongRunning(Protocol):
    """A service that runs in an event loop until it is stopped."""

    @property
    def exit_code(self) -> int:
        """Once it has ended."""

    async def run(self) -> None:
        """Work until `stop` is called."""

    def stop(self) -> None:
        """End soon."""


def run_service(
    name: str,
    new_service: Callable[[Settings], LongRunning],
    *,
    logger: str,
    load: Callable[[], Settings] = load_settings,
    left: str = "",
) -> int:
    """Run a service until SIGTERM or Ctrl-C; returns the exit code: 2 for settings, 1 after an error.

    Args:
        name: what its log lines call it.
        new_service: makes it, within the event loop.
        logger: the name of the logger.
        load: gives the settings, or raises SettingsError.
        left: a sentence about what is left undone when it ends by an error.
    """

    async def serve(settings: Settings) -> int:
        service = new_service(settings)
        on_stop_signal(service.stop)
        await service.run()
        return service.exit_code

    try:
        settings = load()
    except SettingsError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    configure_logs(settings)
    collect_rarely()
    log = structlog.get_logger(logger)
    try:
        return asyncio.run(serve(settings))
    except TickpipeError as exc:
        log.error(f"The {name} ends.{left}", action=f"{name}_refused", error=str(exc))
        return 1
    except Exception:
        log.exception(f"The {name} ends: this was not foreseen.{left}", action=f"{name}_failed")
        return 1
