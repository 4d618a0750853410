"""Services as users run them, in processes of their own that a test may kill, and what a test asks of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Self

import httpx
from pydantic import SecretStr

from runtime.services import DECLARED
from runtime.settings import Settings
from tests import plainhttp, preloaded
from tests.waiting import PATIENCE_SECONDS, wait_until


def environment(settings: Settings) -> dict[str, str]:
    """The variables that make a process read these settings."""
    variables = {f"TICKPIPE_{name.upper()}": _as_text(value) for name, value in settings.model_dump().items()}
    return {**os.environ, **variables}


def _as_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return json.dumps({key: _as_text(inner) for key, inner in value.items()})
    return json.dumps(value) if isinstance(value, list) else str(value)


class Process:
    """A command of ours that serves HTTP on a port of this machine.

    It is forked from a process that has its imports done, unless it is to be `fresh`: an interpreter of its own.
    """

    def __init__(
        self,
        command: list[str],
        port: int,
        environment: Mapping[str, str],
        *,
        log: Path | None = None,
        fresh: bool = False,
    ) -> None:
        self.command = command
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._environment = environment
        self._log = log
        self._fresh = fresh
        self._process: subprocess.Popen[bytes] | preloaded.Forked | None = None

    def start(self) -> Self:
        """Start it; it may not serve yet."""
        with self._log.open("ab") if self._log else nullcontext(2) as output:
            if self._fresh or not preloaded.suits(self._environment):
                command = [sys.executable, "-m", *self.command]
                self._process = subprocess.Popen(command, env=dict(self._environment), stderr=output)
            else:
                self._process = preloaded.start(self.command, self._environment, stderr=output)
        return self

    def wait_for(self, path: str) -> Self:
        """Wait until it answers 200 there."""
        wait_until(lambda: self._answers(path), what=f"200 of {' '.join(self.command)} at {path}")
        return self

    def wait_alive(self) -> Self:
        """Wait until it serves."""
        return self.wait_for("/health")

    def wait_ready(self) -> Self:
        """Wait until it says that it can do its work."""
        return self.wait_for("/ready")

    def _answers(self, path: str) -> bool:
        assert self.returncode is None, f"{' '.join(self.command)} ended with {self.returncode}: {self.said()}"
        try:
            return self.get(path, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def get(self, path: str, *, timeout: float = PATIENCE_SECONDS) -> httpx.Response:
        return plainhttp.get(self.url + path, timeout=timeout)

    def post(
        self, body: object, path: str = "/ingest/tick", *, timeout: float = PATIENCE_SECONDS, **headers: str
    ) -> httpx.Response:
        """Post a body as JSON, or as it is when it is bytes; `X_Source` names the header `X-Source`."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return plainhttp.post(self.url + path, content=content, headers=named, timeout=timeout)

    def post_until_taken(self, body: bytes, *, timeout: float = PATIENCE_SECONDS, **headers: str) -> list[int]:
        """Post as an obedient sender does: after 503 again when Retry-After says so. All statuses; the last is 200."""
        statuses: list[int] = []
        while statuses[-1:] != [200]:
            answer = self.post(body, timeout=timeout, **headers)
            statuses.append(answer.status_code)
            assert answer.status_code in (200, 503), answer.text
            assert len(statuses) < 100, "it is refused for ever"
            if answer.status_code == 503:
                time.sleep(int(answer.headers["Retry-After"]))
        return statuses

    def said(self) -> str:
        """What it wrote to its log, when it has one of its own."""
        return self._log.read_text() if self._log else ""

    def forget_said(self) -> None:
        """Empty its log; it goes on writing at the end."""
        if self._log:
            os.truncate(self._log, 0)

    @property
    def returncode(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def peak_memory_mb(self) -> float:
        """The most memory that it has had so far."""
        [line] = [one for one in Path(f"/proc/{self.pid}/status").read_text().splitlines() if one.startswith("VmHWM:")]
        return int(line.split()[1]) / 1024

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

    def wait(self, timeout_seconds: float = PATIENCE_SECONDS) -> int:
        assert self._process is not None
        return self._process.wait(timeout_seconds)

    def close(self) -> None:
        """Kill it if it runs."""
        if self._process is not None and self.returncode is None:
            self.kill()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over its labels, those that are not given."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rpartition(" ")[2])
            for line in self.get("/metrics").text.splitlines()
            if line.startswith((f"{name} ", f"{name}{{")) and all(label in line for label in wanted)
        )


class Service(Process):
    """The service of this module as a process."""

    def __init__(
        self,
        module: str,
        settings: Settings,
        *,
        command: list[str] | None = None,
        log: Path | None = None,
        fresh: bool = False,
    ) -> None:
        self.module = module
        self.settings = settings
        ports: dict[str, int] = {one.module: getattr(settings, f"{one.name}_port") for one in DECLARED}
        super().__init__(command or [module], ports[module], environment(settings), log=log, fresh=fresh)

    def post(
        self, body: object, path: str = "/ingest/tick", *, timeout: float = PATIENCE_SECONDS, **headers: str
    ) -> httpx.Response:
        """Post with a key that the producer accepts, unless `X_API_Key` is another."""
        key = next(iter(self.settings.api_keys.values())).get_secret_value()
        return super().post(body, path, timeout=timeout, **{"X_API_Key": key} | headers)


@contextmanager
def running(settings: Settings, *modules: str, logs: Path | None = None) -> Iterator[list[Service]]:
    """The named services, ready; whatever is left of them at the end is killed. Each logs to a file in `logs`."""
    services = [Service(module, settings, log=logs / f"{module}.log" if logs else None) for module in modules]
    try:
        for service in services:
            service.start()
        for service in services:
            service.wait_ready()
        yield services
    finally:
        for service in services:
            service.close()
