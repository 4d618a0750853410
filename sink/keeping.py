"""Keeps hours and days folded: in the background, when their minutes have come to rest."""

import asyncio
import contextlib
import time
from datetime import timedelta
from typing import Final

import structlog

from sink.database import Connection, Database
from sink.metrics import Metrics
from sink.statements import SQL

log = structlog.get_logger(__name__)

#: How often marks are looked at (seconds).
_LOOK_INTERVAL_SECONDS: Final = 5.0

#: An hour is folded when it is over, and was marked, for so long: shorter folds it again and again while a replay goes
#: through it, longer leaves more to be folded by whoever reads (seconds).
QUIET_SECONDS: Final = 30.0

#: Hours of one transaction: some 100 ms. A sink that writes to one of them waits so long.
_STEP_HOURS: Final = 500

#: A step back through history takes about so long; its days are doubled and halved to fit (seconds).
_STEP_SECONDS: Final = 2.0
_MAX_STEP_DAYS: Final = 64

#: How often the progress through a long history is told (seconds).
_PROGRESS_SECONDS: Final = 30.0


class Keeper:
    """The task that calls `refresh_candles()` and `keep_candles()`; of several sinks one works, the others look on.

    Nobody depends on it for right answers: what is not kept is folded from M1 by whoever reads it.
    """

    def __init__(self, database: Database, metrics: Metrics, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._database = database
        self._metrics = metrics
        self._quiet = timedelta(seconds=quiet_seconds)
        self._days = 7
        self._all_kept = False
        self._told = float("-inf")

    async def run(self, stopping: asyncio.Event) -> None:
        """Keep until told to stop."""
        while not stopping.is_set():
            folded = await self.step()
            # With more to do the pause leaves the database to the live flow.
            pause = _LOOK_INTERVAL_SECONDS if self._all_kept and folded < _STEP_HOURS else 0.1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)

    async def step(self) -> int:
        """Fold up to 500 hours that were marked, or go a step back through history; returns how many were marked."""
        folded = await self._database.run(self._refresh)
        self._metrics.kept_hours.inc(folded)
        if folded == 0:
            await self._database.run(self._keep)
        return folded

    async def _refresh(self, connection: Connection) -> int:
        row = await (await connection.execute(SQL["count_marks"])).fetchone()
        self._metrics.marked_hours.set(row[0] if row else 0)
        about = {"quiet": self._quiet, "max_hours": _STEP_HOURS}
        row = await (await connection.execute(SQL["refresh_candles"], about)).fetchone()
        return row[0] if row else 0

    async def _keep(self, connection: Connection) -> None:
        begin = time.monotonic()
        async with connection.transaction():
            # As long as it takes: nobody waits for it.
            await connection.execute(SQL["lift_local_timeout"])
            row = await (await connection.execute(SQL["keep_candles"], {"days": self._days})).fetchone()
        kept_from = row[0] if row else None
        if kept_from is None:
            self._all_kept = True  # as far as this one is concerned: another sink is at it
            return
        took = time.monotonic() - begin
        self._days = max(1, self._days // 2) if took > _STEP_SECONDS else min(_MAX_STEP_DAYS, self._days * 2)
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
