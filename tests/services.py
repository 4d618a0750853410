"""Services as users run them, in processes of their own that a test may kill, and what a test asks of them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self, TypeVar

import httpx
from pydantic import SecretStr

from runtime.settings import Settings
from tests import plainhttp

T = TypeVar("T")

#: Time that a service has to become ready on a very busy machine (seconds).
READY_SECONDS = 120.0


def environment(settings: Settings) -> dict[str, str]:
    """The variables that make a process read these settings."""
    variables = {f"TICKPIPE_{name.upper()}": _as_text(value) for name, value in settings.model_dump().items()}
    return {**os.environ, **variables}


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return json.dumps({key: _as_text(inner) for key, inner in value.items()})
    return json.dumps(value) if isinstance(value, list) else str(value)


class Service:
    """One of `producer`, `stream_app`, `sink` and `dashboard` as a process."""

    def __init__(self, module: str, settings: Settings) -> None:
        self.module = module
        self.settings = settings
        port = {
            "producer": settings.producer_port, "stream_app": settings.stream_port, "sink": settings.sink_port,
            "dashboard": settings.dashboard_port,
        }  # fmt: skip
        self.url = f"http://127.0.0.1:{port[module]}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        self._process = subprocess.Popen([sys.executable, "-m", self.module], env=environment(self.settings))
        return self

    def wait_ready(self) -> Self:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            assert self.returncode is None, f"{self.module} ended with {self.returncode}"
            with suppress(httpx.HTTPError):
                if plainhttp.get(f"{self.url}/ready", timeout=2).status_code == 200:
                    return self
            time.sleep(0.1)
        raise AssertionError(f"{self.module} was not ready in {READY_SECONDS} s")

    @property
    def returncode(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_seconds: float = 60.0) -> int:
        assert self._process is not None
        return self._process.wait(timeout_seconds)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over its labels, those that are not given."""
        lines = plainhttp.get(f"{self.url}/metrics", timeout=5).text.splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith((f"{name} ", f"{name}{{")) and all(label in line for label in wanted)
        )


@contextmanager
def running(settings: Settings, *modules: str) -> Iterator[list[Service]]:
    """The named services, ready; whatever is left of them at the end is killed."""
    services = [Service(module, settings) for module in modules]
    try:
        for service in services:
            service.start()
        for service in services:
            service.wait_ready()
        yield services
    finally:
        for service in services:
            if service.returncode is None:
                service.kill()


async def eventually(check: Callable[[], Awaitable[T]], *, within_seconds: float, what: str) -> T:
    """The first true value of `check`, which is asked over and over; an AssertionError naming `what` otherwise."""
    deadline = time.monotonic() + within_seconds
    while True:
        value = await check()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} not within {within_seconds} s; the last answer was {value!r}"
        await asyncio.sleep(0.2)
