"""The sink's background tasks on the table: roll-ups are materialised, minutes compared, old candles
deleted, and overdue ones closed.

Each has a connection of its own and works in small transactions, so that the flow of candles hardly notices it.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
import structlog

from marketdata.timeframes import FOLDABLE
from runtime.kafka import SharedAdmin
from runtime.service import PeriodicTask, sleep_unless
from runtime.settings import Settings
from runtime.telemetry import Bounded
from sink.db.connection import Connection, Database, StepSize
from sink.db.session import SQL
from sink.metrics import Metrics
from sink.stored_until import StoredUntil

log = structlog.get_logger(__name__)

#: What a transaction may take; hours, days, minutes and rows are halved and doubled to fit (seconds).
_STEP_SECONDS: Final = 2.0

#: Pause between two transactions when there is more to do, so that live candles are not held up (seconds).
_BREATHER_SECONDS: Final = 0.1

#: An hour is rolled up once it has been over, and stale, for this long: shorter rolls it up repeatedly while a replay
#: passes through it, longer leaves more to be rolled up by readers (seconds).
QUIET_SECONDS: Final = 30.0

#: Maximum number of hours in one transaction, some 100 ms: a sink that writes to one of them waits that long.
_MOST_HOURS: Final = 500

#: Maximum number of days in one step back through history, and the size of the first step.
_MOST_DAYS: Final = 64
_FIRST_DAYS: Final = 7

#: How often progress through a long history is logged (seconds).
_PROGRESS_SECONDS: Final = 30.0

#: Maximum number of symbols with a time series of their own; nobody looks at more than a screen shows.
MAX_SYMBOLS: Final = 200

#: Pause after another transaction held the lock (seconds).
_RETRY_SECONDS: Final = 5.0

#: Maximum number of minutes in one transaction: 360 of a hundred symbols are some 36,000 rows, less than a second.
_MOST_MINUTES: Final = 360

#: Maximum number of rows in one transaction that deletes hours, days or bars.
_MOST_ROWS: Final = 20_000

#: Stored rows with which the broker's bars of each timeframe go: column `stored_as` of the table `timeframes`.
_OF_MINUTES: Final = "M1"
_OF_HOURS: Final = "H1"
_OF_DAYS: Final = "D1"


class Materialiser(PeriodicTask[int]):
    """The task that materialises roll-ups, `refresh_candles()` and `materialise_candles()`; one sink at a time.

    Queries are correct without it: what is not materialised is rolled up from M1 when it is read.
    """

    name = "materialise"
    interval_seconds = 5.0

    def __init__(self, database: Database, metrics: Metrics, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._database = database
        self._metrics = metrics
        self._quiet = timedelta(seconds=quiet_seconds)
        self._hours = StepSize(_MOST_HOURS, goal_seconds=_STEP_SECONDS)
        self._days = StepSize(_MOST_DAYS, goal_seconds=_STEP_SECONDS, first=_FIRST_DAYS)
        self._more_stale = False
        self._all_materialised = False
        self._told = float("-inf")

    async def step(self) -> int:
        """Roll up some stale hours, or else go a step back through history; returns the number of stale hours."""
        folded = await self._database.run_sized(self._refresh, self._hours)
        self._metrics.materialised_hours.inc(folded)
        if folded == 0:
            await self._database.run_sized(self._materialise, self._days)
        return folded

    def pause_seconds(self, result: int) -> float:
        """The interval, or less when there is more to do."""
        return self.interval_seconds if self._all_materialised and not self._more_stale else _BREATHER_SECONDS

    async def _refresh(self, connection: Connection, hours: int) -> int:
        row = await (await connection.execute(SQL["count_stale"])).fetchone()
        self._metrics.stale_hours.set(row[0] if row else 0)
        about = {"quiet": self._quiet, "max_hours": hours}
        row = await (await connection.execute(SQL["refresh_candles"], about)).fetchone()
        folded = row[0] if row else 0
        self._more_stale = folded >= hours
        return folded

    async def _materialise(self, connection: Connection, days: int) -> None:
        async with connection.transaction():
            if days == 1:
                # A day is the smallest step, so it may take as long as it needs: nobody waits for it.
                await connection.execute(SQL["lift_local_timeout"])
            row = await (await connection.execute(SQL["materialise_candles"], {"days": days})).fetchone()
        materialised_from = row[0] if row else None
        if materialised_from is None:
            self._all_materialised = True  # for now: another sink is materialising
            return
        self._all_materialised = materialised_from == "-infinity"
        if self._all_materialised and self._told > float("-inf"):
            self._told = float("-inf")
            log.info("Hours and days of the whole history are materialised.", action="candles_materialised")
        elif not self._all_materialised and time.monotonic() - self._told > _PROGRESS_SECONDS:
            self._told = time.monotonic()
            log.info(
                "Hours and days are being rolled up from M1, back through the history.",
                action="candles_materialising", materialised_from=materialised_from,
            )  # fmt: skip


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


@dataclass(frozen=True)
class Retention:
    """How long candles are retained; None means for ever."""

    minutes: timedelta | None
    hours: timedelta | None
    days: timedelta | None


def retention_of(settings: Settings) -> Retention:
    """The retention that the settings ask for."""
    retained = (settings.retain_m1_days, settings.retain_h1_days, settings.retain_d1_days)
    return Retention(*(timedelta(days=days) if days else None for days in retained))


@dataclass(frozen=True)
class Deleted:
    """Deleted rows of M1, hours, days and the broker's bars, not counting rows of dropped chunks."""

    minutes: int = 0
    hours: int = 0
    days: int = 0
    bars: int = 0


class Retainer(PeriodicTask[Deleted | None]):
    """The task that deletes old candles; several sinks may run it at once."""

    name = "retain"
    #: Rows outlive their retention by at most this long.
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
        """The interval, or less when another transaction held the lock."""
        return _RETRY_SECONDS if result is None else self.interval_seconds

    async def step(self) -> Deleted | None:
        """Delete expired candles; returns early when told to stop, and None when another transaction holds the lock."""
        if self._retention.minutes is None:
            return Deleted()
        reached = await self._database.run(self._advance)
        if reached is None:
            return None
        minutes_from, hours_from, days_from = reached
        minutes = hours = days = bars = 0
        if minutes_from is not None:
            await self._database.run(lambda connection: self._drop_minutes(connection, minutes_from))
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
        retention = self._retention
        about = {
            "minutes": now - retention.minutes if retention.minutes else None,
            "hours": now - retention.hours if retention.hours else None,
            "days": now - retention.days if retention.days else None,
        }
        try:
            row = await (await connection.execute(SQL["advance_retention"], about)).fetchone()
        except psycopg.errors.LockNotAvailable:
            return None
        # Without a row another session holds the settings.
        return (row[0], row[1], row[2]) if row else None

    async def _drop_minutes(self, connection: Connection, before: datetime) -> None:
        await connection.execute(SQL["drop_minutes"], {"before": before})

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
        # Repeats the transaction until nothing is left.
        total = 0
        while not self._database.stopping.is_set():
            count = await self._database.run_sized(delete, size)
            if count is None:
                break
            total += count
            await sleep_unless(self._database.stopping, _BREATHER_SECONDS)
        return total


#: A worker closes the minutes it has in memory, and forgets those not touched for two minutes (seconds).
_UNTOUCHED_SECONDS: Final = 180.0

#: Checked again at every step, because a refold was pending or the row had just been stored.
_AGAIN: Final = timedelta(hours=1)

#: How far back to look for candles left open while no sink ran, one piece per step.
_LOOKBACK: Final = timedelta(days=7)
_PIECE: Final = timedelta(hours=6)

#: Rows that one statement closes, and live candles of the same symbols wait for: some 100 ms.
_MOST_CLOSED: Final = 2_000


class Closer(PeriodicTask[int]):
    """The task that closes rows whose period had ended by a moment up to which the whole log is now stored."""

    name = "close"
    #: Shorter asks Kafka more often, longer closes candles later.
    interval_seconds = 60.0

    def __init__(self, settings: Settings, admin: SharedAdmin, database: Database, metrics: Metrics) -> None:
        self._settings = settings
        self._database = database
        self._metrics = metrics
        self._stored_until = StoredUntil(settings, admin)
        # The rows between the two were checked; an index of open rows would slow down every write.
        self._oldest: datetime | None = None
        self._newest: datetime | None = None

    async def step(self) -> int:
        """Close what can be closed; returns how many candles."""
        closed = await self._database.run(self.close)
        self._metrics.rows.labels("closed").inc(closed)
        return closed

    async def close(self, connection: Connection, *, now: datetime | None = None) -> int:
        """Close what can be closed; returns how many candles. Readings taken here count from the next call on.

        Raises:
            KafkaUnavailable: when Kafka does not answer; the call can be repeated.
            psycopg.Error: when the database does not.
        """
        now = now or datetime.now(UTC)
        over = await self._stored_until.newest(now)
        if over is None:
            return 0
        over -= timedelta(seconds=self._settings.grace_seconds)
        closed = await self._close(connection, (self._newest or over) - _AGAIN, over, now)
        self._newest, oldest = over, self._oldest or over
        # Compressed rows are expensive to read, and closed long ago.
        if oldest > now - min(_LOOKBACK, timedelta(days=self._settings.compress_after_days or _LOOKBACK.days)):
            # Candles that begin in the piece may end after it.
            closed += await self._close(connection, oldest - _PIECE, min(oldest + _AGAIN, over), now)
            self._oldest = oldest - _PIECE
        if closed:
            log.info(
                "Closed candles that no worker closed: their ticks were stamped ahead.",
                action="candles_closed", candles=closed,
            )  # fmt: skip
        return closed

    async def _close(self, connection: Connection, since: datetime, over: datetime, now: datetime) -> int:
        about = {
            "since": since, "over": over, "most": _MOST_CLOSED,
            "untouched": now - timedelta(seconds=_UNTOUCHED_SECONDS),
            "timeframes": list(FOLDABLE),
            "widths": [timedelta(milliseconds=timeframe.base_width_ms) for timeframe in FOLDABLE.values()],
        }  # fmt: skip
        closed = 0
        # What is done stays done when a later statement is too slow.
        while (rows := (await connection.execute(SQL["close_overdue"], about)).rowcount) > 0:
            closed += rows
        return closed
