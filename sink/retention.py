"""Deletes candles that are older than wanted: off unless somebody sets how long they are kept."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
import structlog

from runtime.periodic import PeriodicTask, sleep_unless
from runtime.settings import Settings
from sink.database import Connection, Database, StepSize
from sink.edition import edition
from sink.statements import SQL

log = structlog.get_logger(__name__)

#: Pause when a long transaction was in the way (seconds).
_RETRY_SECONDS: Final = 5.0

#: Most minutes of one transaction: six hours of a hundred symbols are some 36,000 rows, less than a second.
_MOST_MINUTES: Final = 360

#: Most rows of one transaction that deletes hours, days or bars.
_MOST_ROWS: Final = 20_000

#: What a transaction may take; minutes and rows are halved and doubled to fit (seconds).
_STEP_SECONDS: Final = 2.0

#: Between two transactions the database belongs to the live flow (seconds).
_PAUSE_SECONDS: Final = 0.1

#: Stored rows with which the broker's bars of each timeframe go: column `stored_as` of the table `timeframes`.
_OF_MINUTES: Final = "M1"
_OF_HOURS: Final = "H1"
_OF_DAYS: Final = "D1"


@dataclass(frozen=True)
class Retention:
    """How long candles are kept; None is for ever."""

    minutes: timedelta | None
    hours: timedelta | None
    days: timedelta | None


def retention_of(settings: Settings) -> Retention:
    """What the settings say."""
    kept = (settings.keep_m1_days, settings.keep_h1_days, settings.keep_d1_days)
    return Retention(*(timedelta(days=days) if days else None for days in kept))


@dataclass(frozen=True)
class Deleted:
    """Rows that were deleted, of M1, hours, days and the broker's bars; without those of chunks that were dropped."""

    minutes: int = 0
    hours: int = 0
    days: int = 0
    bars: int = 0


class Retainer(PeriodicTask[Deleted | None]):
    """The task that deletes; of several sinks each may, rows go once."""

    name = "retain"
    #: How late it is noticed that a day has become too old.
    interval_seconds = 600.0

    def __init__(
        self, database: Database, retention: Retention, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = database
        self._retention = retention
        self._now = now
        self._minutes = StepSize(_MOST_MINUTES, goal_seconds=_STEP_SECONDS)
        self._rows = StepSize(_MOST_ROWS, goal_seconds=_STEP_SECONDS)

    def pause_seconds(self, result: Deleted | None) -> float:
        """The interval, or less when a transaction was in the way."""
        return _RETRY_SECONDS if result is None else self.interval_seconds

    async def step(self) -> Deleted | None:
        """Delete what is too old by now; returns early when told to stop, and None when a transaction is in the way."""
        if self._retention.minutes is None:
            return Deleted()
        reached = await self._database.run(self._advance)
        if reached is None:
            return None
        minutes_from, hours_from, days_from = reached
        minutes = hours = days = bars = 0
        if minutes_from is not None:
            await self._database.run(lambda connection: self._drop_chunks(connection, minutes_from))
            minutes = await self._all(
                self._minutes, lambda connection, step: self._delete_minutes(connection, minutes_from, step)
            )
            bars += await self._delete("delete_bars", minutes_from, _OF_MINUTES)
        if hours_from is not None:
            hours = await self._delete("delete_hours", hours_from)
            bars += await self._delete("delete_bars", hours_from, _OF_HOURS)
        if days_from is not None:
            days = await self._delete("delete_days", days_from)
            bars += await self._delete("delete_bars", days_from, _OF_DAYS)
        deleted = Deleted(minutes, hours, days, bars)
        if deleted != Deleted():
            log.info(
                "Old candles were deleted.", action="candles_deleted", minutes=minutes, hours=hours, days=days,
                bars=bars, minutes_from=minutes_from, hours_from=hours_from, days_from=days_from,
            )  # fmt: skip
        return deleted

    async def _advance(self, connection: Connection) -> tuple[datetime | None, datetime | None, datetime | None] | None:
        now = self._now()
        kept = self._retention
        about = {
            "minutes": now - kept.minutes if kept.minutes else None,
            "hours": now - kept.hours if kept.hours else None,
            "days": now - kept.days if kept.days else None,
        }
        try:
            row = await (await connection.execute(SQL["advance_retention"], about)).fetchone()
        except psycopg.errors.LockNotAvailable:
            return None
        # Without a row somebody else has the settings at the moment.
        return (row[0], row[1], row[2]) if row else None

    async def _drop_chunks(self, connection: Connection, before: datetime) -> None:
        if (await edition(connection)).startswith("timescaledb"):
            await connection.execute(SQL["drop_chunks"], {"before": before})

    async def _delete_minutes(self, connection: Connection, before: datetime, minutes: int) -> int | None:
        row = await (await connection.execute(SQL["oldest_minute"], {"before": before})).fetchone()
        if row is None:
            return None
        about = {"oldest": row[0], "end": min(before, row[0] + timedelta(minutes=minutes))}
        return (await connection.execute(SQL["delete_minutes"], about)).rowcount

    async def _delete(self, statement: str, before: datetime, stored_as: str | None = None) -> int:
        async def delete(connection: Connection, rows: int) -> int | None:
            about: dict[str, Any] = {"before": before, "rows": rows, "stored_as": stored_as}
            return (await connection.execute(SQL[statement], about)).rowcount or None

        return await self._all(self._rows, delete)

    async def _all(self, size: StepSize, delete: Callable[[Connection, int], Awaitable[int | None]]) -> int:
        # Transaction after transaction, until one says that nothing is left.
        total = 0
        while not self._database.stopping.is_set():
            count = await self._database.run_sized(delete, size)
            if count is None:
                break
            total += count
            await sleep_unless(self._database.stopping, _PAUSE_SECONDS)
        return total
