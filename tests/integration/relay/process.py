"""The relay as a user runs it: a process that a test may kill."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import httpx

from tests import plainhttp
from tests.ports import free_port


class RelayProcess:
    """`tickpipe relay serve` on a free port."""

    def __init__(
        self,
        db: Path,
        forward_to: str | None,
        *,
        key: str = "integration-tests",
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self.db = db
        self._log = log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._forward = [] if forward_to is None else ["--forward", forward_to]
        self._environment = {**os.environ, "TICKPIPE_RELAY_FORWARD_KEY": key, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tickpipe", "relay", "serve", "--db", str(self.db), "--port", str(self.port)]
        with self._log.open("ab") if self._log else nullcontext() as output:
            self._process = subprocess.Popen([*command, *self._forward], env=self._environment, stderr=output)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self._process.poll() is None, "the relay ended"
            with suppress(httpx.HTTPError):
                if plainhttp.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError("the relay was not ready in 30 s")

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(20)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def post(self, body: object, path: str = "/ingest/tick", **more: Any) -> httpx.Response:
        return plainhttp.post(f"{self.url}{path}", json=body, timeout=20, **more)

    def stats(self) -> dict[str, Any]:
        answer: dict[str, Any] = plainhttp.get(f"{self.url}/stats", timeout=20).json()
        return answer

    def wait_forwarded(self, within_seconds: float = 30.0) -> None:
        """Until nothing is pending."""
        deadline = time.monotonic() + within_seconds
        while self.stats()["pending"]:
            assert time.monotonic() < deadline, self.stats()
            time.sleep(0.1)
