"""The relay as a user runs it: a process that a test may kill."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.ports import free_port
from tests.services import Process
from tests.waiting import wait_until


class RelayProcess(Process):
    """`tickpipe relay serve`, or `collect`, on a free port."""

    def __init__(
        self,
        db: Path,
        forward_to: str | None,
        *,
        key: str = "integration-tests",
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        command: str = "serve",
    ) -> None:
        self.db = db
        port = free_port()
        words = ["tickpipe", "relay", command, "--db", str(db), "--port", str(port)]
        if forward_to is not None:
            words += ["--forward", forward_to]
        variables = {**os.environ, "TICKPIPE_RELAY_FORWARD_KEY": key, **(environment or {})}
        super().__init__(words, port, variables, log=log)

    def start(self) -> Self:
        """Start it and wait until it serves."""
        super().start()
        return self.wait_alive()

    def stats(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.get("/stats").json()
        return answer

    def wait_forwarded(self) -> None:
        """Wait until nothing is pending."""
        wait_until(lambda: self.stats()["pending"] == 0, what="a relay that has forwarded everything")
