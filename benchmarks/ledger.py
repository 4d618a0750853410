"""What the ledger of minutes costs the sink and PostgreSQL while thousands of symbols trade.

`python -m benchmarks.ledger`. One step looks at what is new; it is measured with nothing new, with a new minute of
every symbol, and with ranges that are wanted. CPU is that of this process and of the step's PostgreSQL backend.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from benchmarks.outcome import Beginning
from benchmarks.report import table_of
from runtime.kafka import SharedAdmin
from runtime.settings import Settings
from runtime.topics import wait_for_kafka
from sink.db.connection import Connection, Database, connect
from sink.db.schema import migrate
from sink.db.session import database_conninfo
from sink.ledger import LedgerKeeper
from sink.metrics import Metrics
from sink.stored_until import StoredUntil
from tests.conftest import own_settings
from tests.servers import EmbeddedServers

#: Symbols, and minutes of each that are there before.
SIZES: Final = {1_000: 1_440, 10_000: 240}

#: Ranges that are wanted, beside which live minutes are looked at.
HOLES: Final = 200

#: What is measured once; the rest is done in every look.
ONCE: Final = "everything, after a start"

MINUTE: Final = timedelta(minutes=1)

#: Symbols whose minutes are written by one statement.
_AT_ONCE: Final = 50

_TRADE: Final = """
    INSERT INTO market_data (ts, symbol, timeframe, open, high, low, close, volume, source, origin, closed, first_tick,
        last_tick, log, offsets)
    SELECT ts, 'SYM' || lpad(n::text, 5, '0'), 'M1', 1, 1, 1, 1, 3, 'bench', 'ticks', true, ts, ts, 'log', '{[0,1)}'
    FROM generate_series(%(first)s, %(symbols)s - 1) AS n
    CROSS JOIN generate_series(%(begin)s::timestamptz, %(last)s::timestamptz, interval '1 minute') AS ts
    ON CONFLICT DO NOTHING
"""

_LOSE: Final = """
    DELETE FROM market_data WHERE timeframe = 'M1' AND ts >= %(begin)s AND ts < %(end)s
        AND symbol IN (SELECT 'SYM' || lpad(n::text, 5, '0') FROM generate_series(0, %(holes)s - 1) AS n)
"""


class Stored(StoredUntil):
    """Everything is stored up to the minute that the benchmark has written."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, SharedAdmin(settings))
        self.until = datetime.now(UTC)

    async def newest(self, now: datetime) -> datetime | None:
        """See `StoredUntil`."""
        return self.until


@dataclass
class Cost:
    """Of one step (seconds)."""

    wall: float
    own: float
    backend: float


class Bench:
    """One keeper over one table."""

    def __init__(self, settings: Settings, symbols: int, minutes: int) -> None:
        self._symbols = symbols
        self._stored = Stored(settings)
        self._last = self._stored.until.replace(second=0, microsecond=0) - timedelta(hours=2)
        self._begin = self._last - minutes * MINUTE
        self._database = Database(database_conninfo(settings), asyncio.Event(), name="ledger")
        self.metrics = Metrics(CollectorRegistry())
        mine = {TopicPartition(settings.fills_topic, 0)}
        self._keeper = LedgerKeeper(settings, self._database, self.metrics, self._stored, assignment=lambda: mine)

    async def close(self) -> None:
        """Close its connections."""
        await self._keeper.close()
        await self._database.close()

    async def trade(self, connection: Connection) -> None:
        """Store the minutes that are there before."""
        await self._write(connection, self._begin)
        await connection.execute("ANALYZE market_data")

    async def _write(self, connection: Connection, begin: datetime) -> None:
        for first in range(0, self._symbols, _AT_ONCE):
            about = {"first": first, "symbols": min(first + _AT_ONCE, self._symbols)}
            await connection.execute(_TRADE, about | {"begin": begin, "last": self._last})
        self._stored.until = self._last + MINUTE

    async def go_on(self, connection: Connection) -> None:
        """Store the next minute of every symbol."""
        self._last += MINUTE
        await self._write(connection, self._last)

    async def lose(self, connection: Connection, holes: int) -> None:
        """Take half an hour from so many symbols."""
        begin = self._last - timedelta(hours=1)
        await connection.execute(_LOSE, {"holes": holes, "begin": begin, "end": begin + timedelta(minutes=30)})
        self._keeper._looked = None  # as after a start of the sink

    async def all_steps(self) -> Cost:
        """Look at everything that is new."""

        async def steps() -> None:
            while not await self._keeper.step():
                pass

        return await self._cost(steps)

    async def _cost(self, work: Callable[[], Awaitable[None]]) -> Cost:
        pid = await self._database.run(_backend)
        own, backend = psutil.Process(), psutil.Process(pid)
        before, begin = (_cpu(own), _cpu(backend)), time.perf_counter()
        await work()
        return Cost(time.perf_counter() - begin, _cpu(own) - before[0], _cpu(backend) - before[1])


async def _backend(connection: Connection) -> int:
    return connection.info.backend_pid


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _mean(costs: list[Cost]) -> Cost:
    # The clock of a process ticks every 10 ms: only the sum of many steps tells.
    count = len(costs)
    return Cost(
        median(one.wall for one in costs),
        sum(one.own for one in costs) / count,
        sum(one.backend for one in costs) / count,
    )


async def costs_of(settings: Settings, symbols: int, minutes: int, steps: int) -> dict[str, Cost]:
    """By what there is to do."""
    await migrate(database_conninfo(settings))
    await wait_for_kafka(settings)
    bench = Bench(settings, symbols, minutes)
    found: dict[str, Cost] = {}
    try:
        async with await connect(database_conninfo(settings)) as connection:
            await bench.trade(connection)
            found[ONCE] = await bench.all_steps()
            found["nothing new"] = _mean([await bench.all_steps() for _ in range(steps)])
            live = []
            for _ in range(steps):
                await bench.go_on(connection)
                live.append(await bench.all_steps())
            found["a new minute of every symbol"] = _mean(live)
            await bench.lose(connection, HOLES)
            await bench.all_steps()
            found[f"{HOLES} ranges wanted, nothing new"] = _mean([await bench.all_steps() for _ in range(steps)])
    finally:
        await bench.close()
    return found


def lines_of(figures: dict[int, dict[str, Cost]]) -> list[str]:
    """The figures as Markdown."""
    rows = [
        [
            f"{symbols:,}",
            what,
            *(f"{1000 * seconds:.1f}" for seconds in (cost.wall, cost.own, cost.backend)),
            "" if what == ONCE else _share(cost),
        ]
        for symbols, of_size in figures.items()
        for what, cost in of_size.items()
    ]
    head = ["symbols", "to do", "step, ms", "CPU of the sink, ms", "CPU of PostgreSQL, ms", "of a core"]
    return [*table_of(head, rows), ""]


def _share(cost: Cost) -> str:
    return f"{(cost.own + cost.backend) / LedgerKeeper.interval_seconds:.2%}"


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, nargs="+", default=list(SIZES), help="how many (default: 1000 10000)")
    parser.add_argument("--steps", type=int, default=20, help="steps of each kind (default: 20)")
    options = parser.parse_args()
    beginning, figures = Beginning.now(), {}
    with tempfile.TemporaryDirectory() as directory, EmbeddedServers(Path(directory) / "servers") as servers:
        for symbols in options.symbols:
            settings = own_settings(servers, f"ledger_{symbols}", ledger_days=2)
            figures[symbols] = asyncio.run(costs_of(settings, symbols, SIZES.get(symbols, 240), options.steps))
            print(*lines_of(figures), sep="\n")
    beginning.store("ledger", lines_of(figures), {"figures": _plain(figures)})


def _plain(figures: dict[int, dict[str, Cost]]) -> dict[str, Any]:
    return {str(symbols): {what: vars(cost) for what, cost in of.items()} for symbols, of in figures.items()}


if __name__ == "__main__":
    main()
