"""Keeps hours and days folded: in the background, when their minutes have come to rest."""

import time
from datetime import timedelta
from typing import Final

import structlog

from runtime.periodic import PeriodicTask
from sink.database import Connection, Database, StepSize
from sink.metrics import Metrics
from sink.statements import SQL

log = structlog.get_logger(__name__)

#: An hour is folded when it is over, and was marked, for so long: shorter folds it again and again while a replay goes
#: through it, longer leaves more to be folded by whoever reads (seconds).
QUIET_SECONDS: Final = 30.0

#: Most hours of one transaction: some 100 ms. A sink that writes to one of them waits so long.
_MOST_HOURS: Final = 500

#: Most days of one step back through history, and those of the first.
_MOST_DAYS: Final = 64
_FIRST_DAYS: Final = 7

#: What a transaction may take; hours and days are halved and doubled to fit (seconds).
_STEP_SECONDS: Final = 2.0

#: Between two transactions, when there is more to do, the database belongs to the live flow (seconds).
_BREATHER_SECONDS: Final = 0.1

#: How often the progress through a long history is told (seconds).
_PROGRESS_SECONDS: Final = 30.0


class Keeper(PeriodicTask[int]):
    """The task that calls `refresh_candles()` and `keep_candles()`; of several sinks one works, the others look on.

    Nobody depends on it for right answers: what is not kept is folded from M1 by whoever reads it.
    """

    name = "keep"
    interval_seconds = 5.0

    def __init__(self, database: Database, metrics: Metrics, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._database = database
        self._metrics = metrics
        self._quiet = timedelta(seconds=quiet_seconds)
        self._hours = StepSize(_MOST_HOURS, goal_seconds=_STEP_SECONDS)
        self._days = StepSize(_MOST_DAYS, goal_seconds=_STEP_SECONDS, first=_FIRST_DAYS)
        self._more_marked = False
        self._all_kept = False
        self._told = float("-inf")

    async def step(self) -> int:
        """Fold some hours that were marked, or go a step back through history; returns how many were marked."""
        folded = await self._database.run_sized(self._refresh, self._hours)
        self._metrics.kept_hours.inc(folded)
        if folded == 0:
            await self._database.run_sized(self._keep, self._days)
        return folded

    def pause_seconds(self, result: int) -> float:
        """The interval, or less when there is more to do."""
        return self.interval_seconds if self._all_kept and not self._more_marked else _BREATHER_SECONDS

    async def _refresh(self, connection: Connection, hours: int) -> int:
        row = await (await connection.execute(SQL["count_marks"])).fetchone()
        self._metrics.marked_hours.set(row[0] if row else 0)
        about = {"quiet": self._quiet, "max_hours": hours}
        row = await (await connection.execute(SQL["refresh_candles"], about)).fetchone()
        folded = row[0] if row else 0
        self._more_marked = folded >= hours
        return folded

    async def _keep(self, connection: Connection, days: int) -> None:
        async with connection.transaction():
            if days == 1:
                # It cannot be less, so it may take as long as it takes: nobody waits for it.
                await connection.execute(SQL["lift_local_timeout"])
            row = await (await connection.execute(SQL["keep_candles"], {"days": days})).fetchone()
        kept_from = row[0] if row else None
        if kept_from is None:
            self._all_kept = True  # as far as this one is concerned: another sink is at it
            return
        self._all_kept = kept_from == "-infinity"
        if self._all_kept and self._told > float("-inf"):
            self._told = float("-inf")
            log.info("Hours and days of the whole history are kept.", action="candles_kept")
        elif not self._all_kept and time.monotonic() - self._told > _PROGRESS_SECONDS:
            self._told = time.monotonic()
            log.info(
                "Hours and days are being folded from M1, back through the history.",
                action="candles_keeping", kept_from=kept_from,
            )  # fmt: skip
