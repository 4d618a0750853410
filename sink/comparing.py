"""Counts how our minutes compare with the broker's own bars, for the metrics."""

import asyncio
import contextlib
from collections import Counter
from typing import Final

from sink.database import Connection, Database
from sink.metrics import Metrics
from sink.statements import SQL

#: How often the last 24 hours are counted: some 100 ms of reading for a hundred symbols (seconds).
_INTERVAL_SECONDS: Final = 60.0

#: Symbols with time series of their own; more than one screen shows nobody looks at.
MAX_SYMBOLS: Final = 200


class Comparer:
    """The task that sets `tickpipe_sink_compared_minutes`."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics

    async def run(self, stopping: asyncio.Event) -> None:
        """Count until told to stop."""
        while not stopping.is_set():
            await self.step()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _INTERVAL_SECONDS)

    async def step(self) -> None:
        """Count once."""
        rows = await self._database.run(self._count)
        minutes: Counter[tuple[str, str]] = Counter()
        own = set(sorted({symbol for symbol, _, _ in rows})[:MAX_SYMBOLS])
        for symbol, verdict, count in rows:
            minutes[symbol if symbol in own else "other", verdict] += count
        self._metrics.compared_minutes.clear()
        for (symbol, verdict), count in minutes.items():
            self._metrics.compared_minutes.labels(symbol, verdict).set(count)

    async def _count(self, connection: Connection) -> list[tuple[str, str, int]]:
        return await (await connection.execute(SQL["count_compared"])).fetchall()
