"""QuestDB for `benchmarks.whole`: ticks in a table, their candles in a materialised view of it, one process of Java."""

import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.peers.installed import JAVA, jars_of
from benchmarks.rounds import NotMeasured

VERSION = "9.1.0"
_START_SECONDS = 60.0
#: Rows appear in the view so long after they were written, or something is wrong (seconds).
_PATIENCE_SECONDS = 120.0
_LOOK_SECONDS = 0.05

_TABLES = (
    "CREATE TABLE ticks (ts TIMESTAMP, symbol SYMBOL, bid DOUBLE, ask DOUBLE, flags LONG) TIMESTAMP(ts)"
    " PARTITION BY DAY WAL",
    "CREATE MATERIALIZED VIEW candles AS (SELECT ts, symbol, first(bid) AS open, max(bid) AS high, min(bid) AS low,"
    " last(bid) AS close, count() AS volume FROM ticks SAMPLE BY 1m) PARTITION BY DAY",
)

#: Symbol and start of the minute (epoch milliseconds) to open, high, low, close and ticks.
Held = dict[tuple[str, int], tuple[float, float, float, float, int]]


class QuestDb:
    """A running server with its two tables."""

    def __init__(self, url: str, process: psutil.Process) -> None:
        self.process = process
        self._client = httpx.Client(base_url=url, timeout=_PATIENCE_SECONDS, trust_env=False)

    def write(self, lines: Iterator[str], batch: int) -> None:
        """Send lines of the line protocol in requests of so many."""
        while several := list(itertools.islice(lines, batch)):
            self._client.post("/write", content="".join(several).encode()).raise_for_status()

    def wait_for(self, first_ms: int, end_ms: int, ticks: int) -> None:
        """Wait until the view holds so many ticks of a period.

        Raises:
            NotMeasured: when they stay away, or are more.
        """
        deadline, found = time.monotonic() + _PATIENCE_SECONDS, 0
        while time.monotonic() < deadline:
            within = _within(first_ms, end_ms)
            [[found]] = self._rows(f"SELECT coalesce(sum(volume), 0) FROM candles WHERE {within}")  # noqa: S608 - ours
            if found >= ticks:
                break
            time.sleep(_LOOK_SECONDS)
        if found < ticks:
            raise NotMeasured(f"of {ticks} ticks {found} are in the view")

    def held(self, first_ms: int, end_ms: int) -> Held:
        """The candles of a period."""
        rows = self._rows(
            "SELECT symbol, cast(ts AS LONG) / 1000, open, high, low, close, volume FROM candles"  # noqa: S608 - ours
            f" WHERE {_within(first_ms, end_ms)}"
        )
        return {(symbol, minute): tuple(bar) for symbol, minute, *bar in rows}

    def execute(self, statement: str) -> None:
        """Run a statement that returns no rows."""
        self._client.get("/exec", params={"query": statement}).raise_for_status()

    def _rows(self, query: str) -> list[list[Any]]:
        answer = self._client.get("/exec", params={"query": query, "limit": "0,1000000"}).raise_for_status()
        rows: list[list[Any]] = json.loads(answer.content)["dataset"]
        return rows


def _within(first_ms: int, end_ms: int) -> str:
    return f"ts >= cast({first_ms * 1000} AS TIMESTAMP) AND ts < cast({end_ms * 1000} AS TIMESTAMP)"


def line_of(symbol: str, time_msc: int, bid: float, ask: float, flags: int) -> str:
    """A tick in the line protocol, which counts nanoseconds."""
    return f"ticks,symbol={symbol} bid={bid!r},ask={ask!r},flags={flags}i {time_msc}000000\n"


@contextmanager
def questdb(directory: Path, port: int) -> Iterator[QuestDb]:
    """Start it, with nothing open but HTTP on this port of the machine itself.

    Raises:
        NotMeasured: when it cannot be had or does not start.
    """
    jars = jars_of(f"org.questdb:questdb:{VERSION}")
    environment = os.environ | {
        "QDB_HTTP_BIND_TO": f"127.0.0.1:{port}", "QDB_HTTP_MIN_ENABLED": "false", "QDB_PG_ENABLED": "false",
        "QDB_LINE_TCP_ENABLED": "false", "QDB_TELEMETRY_ENABLED": "false",
    }  # fmt: skip
    command = [JAVA, "-p", jars, "-m", "io.questdb/io.questdb.ServerMain", "-d", str(directory), "-n"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603 - our own command
    try:
        server = QuestDb(f"http://127.0.0.1:{port}", psutil.Process(process.pid))
        _until(lambda: server.execute("SELECT 1"), process)
        for statement in _TABLES:
            server.execute(statement)
        yield server
    finally:
        process.terminate()
        process.wait()


def _until(works: Callable[[], None], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            works()
            return
        except httpx.HTTPError as exc:
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotMeasured(f"QuestDB did not start ({exc})") from exc
            time.sleep(0.2)
