"""Counts how our minutes compare with the broker's own bars, for the metrics."""

from collections import Counter
from typing import Final

from runtime.labels import Bounded
from runtime.periodic import PeriodicTask
from sink.database import Connection, Database
from sink.metrics import Metrics
from sink.statements import SQL

#: Symbols with time series of their own; more than one screen shows nobody looks at.
MAX_SYMBOLS: Final = 200


class Comparer(PeriodicTask[None]):
    """The task that sets `tickpipe_sink_compared_minutes`."""

    name = "compare"
    #: Counting the last 24 hours is some 100 ms of reading for a hundred symbols.
    interval_seconds = 60.0

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics

    async def step(self) -> None:
        """Count once."""
        rows = await self._database.run(self._count)
        minutes: Counter[tuple[str, str]] = Counter()
        label_of = Bounded(MAX_SYMBOLS)
        for symbol, verdict, count in sorted(rows):
            minutes[label_of(symbol), verdict] += count
        self._metrics.compared_minutes.clear()
        for (symbol, verdict), count in minutes.items():
            self._metrics.compared_minutes.labels(symbol, verdict).set(count)

    async def _count(self, connection: Connection) -> list[tuple[str, str, int]]:
        return await (await connection.execute(SQL["count_compared"])).fetchall()
