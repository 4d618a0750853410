"""The embedded stack as a user drives it: by the command line, on a data directory of its own."""

import asyncio
import csv
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import psycopg

from runtime.settings import Settings, load_settings
from tests import preloaded
from tests.faults.truth import lag
from tests.ports import free_port
from tests.waiting import PATIENCE_SECONDS, wait_until
from tickpipe.embedded.stack import StackConfig, StackState, find_stack, start_detached

Row = tuple[Any, ...]

#: What turns ticks into rows; what looks at the rows takes as much of a processor again.
_TO_THE_TABLE = ("kafka", "postgres", "producer", "stream", "sink")


class Stack:
    """The command line on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.producer_port = free_port()
        #: Standard error of the last command.
        self.said = ""

    def run(self, *arguments: str, expect: int = 0, timeout_seconds: float = PATIENCE_SECONDS) -> str:
        """Standard output of `tickpipe ARGUMENTS`, whose exit code must be the expected one."""
        return self._run("tickpipe", *arguments, expect=expect, timeout_seconds=timeout_seconds)

    def _run(self, module: str, *arguments: str, expect: int = 0, timeout_seconds: float = PATIENCE_SECONDS) -> str:
        done = preloaded.run([module, *arguments, "--data-dir", str(self.data_dir)], timeout=timeout_seconds)
        self.said = done.stderr
        assert done.returncode == expect, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def up(self, *, short_lived: bool = False) -> str:
        """What the start prints. `short_lived` gives the stack a Kafka that compiles less."""
        module = "tests.integration.short_lived" if short_lived else "tickpipe"
        return self._run(module, "up", "--detach", "--producer-port", str(self.producer_port))

    def start_to_the_table(self) -> None:
        """Start it without dashboard and archive, and with a Kafka that compiles less; `tickpipe down` stops it."""
        start_detached(
            StackConfig(self.data_dir, producer_port=self.producer_port, services=_TO_THE_TABLE, short_lived=True)
        )

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.run("status", "--json"))
        return status

    def found(self) -> StackState:
        """What the stack says of itself, without the command that prints it."""
        state = find_stack(self.data_dir)
        assert state is not None, "the stack does not run"
        return state

    def kill(self, *names: str, by: signal.Signals = signal.SIGKILL) -> dict[str, int]:
        """Kill these services at once and wait until all run again; how often each was started for that."""
        before = {name: self.found().service(name) for name in names}
        for service in before.values():
            assert service.pid is not None
            os.kill(service.pid, by)

        def are_back() -> bool:
            now = self.found()
            return all(
                now.service(name).state == "running" and now.service(name).pid != service.pid
                for name, service in before.items()
            )

        wait_until(are_back, what=f"{', '.join(names)} running again")
        return {name: self.found().service(name).restarts - service.restarts for name, service in before.items()}

    def candles(self, *arguments: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.run("candles", *arguments, "--format", "csv"))))

    def settings(self) -> Settings:
        state = self.found()
        return load_settings(data_dir=self.data_dir, database_url=state.database_url, **state.kafka_settings)

    def sql(self, query: str) -> list[Row]:
        with psycopg.connect(self.found().database_url, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description is not None else []

    def settle(self) -> None:
        """Wait until nothing lags and nothing waits for a refold."""
        settings = self.settings()
        wait_until(
            lambda: not asyncio.run(lag(settings)) and not self.sql("SELECT 1 FROM pending_refolds LIMIT 1"),
            what="a settled pipeline",
        )
