"""The sink's idle-time check: minutes of the newest days that the log holds and the table does not are stored."""

import asyncio
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from aiokafka import TopicPartition

from runtime.log_identity import own_log
from runtime.settings import Settings
from runtime.tasks import PeriodicTask, sleep_unless, unless_set
from sink.completeness import Completeness, Selection, store_folds
from sink.db.connection import Database
from sink.metrics import Metrics
from sink.writer import Writer

log = structlog.get_logger(__name__)

#: A sink that has just started, or was given partitions, still stores what waited for it (seconds).
FIRST_SECONDS: Final = 60.0

#: When the workers or the sinks are behind the log, the check is tried again after this (seconds).
_BEHIND_SECONDS: Final = 60.0

#: After each piece of the log the check rests this many times as long as the piece took: it never takes more than a
#: quarter of a core.
_REST: Final = 3.0


class Checker(PeriodicTask[bool]):
    """The task that does what `tickpipe verify --complete --repair` does, for the newest days and by itself.

    It reads only while nothing waits to be stored. Each sink checks the partitions that it is assigned; what it has
    gone through it does not read again when a check is broken off, by an error or because partitions went elsewhere.
    """

    name = "check"
    #: Reading two days of a hundred symbols takes minutes, so shorter would never rest.
    interval_seconds = 3_600.0

    def __init__(
        self,
        settings: Settings,
        database: Database,
        writer: Writer,
        metrics: Metrics,
        *,
        idle: asyncio.Event,
        assignment: Callable[[], Collection[TopicPartition]],
        first_seconds: float | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._writer = writer
        self._metrics = metrics
        self._idle = idle
        self._assignment = assignment
        self._first_seconds = FIRST_SECONDS if first_seconds is None else first_seconds
        self._began = datetime.now(UTC)
        metrics.checks.begun_at.set(self._began.timestamp())
        self._piece_began = time.monotonic()
        self._under_way: Completeness | None = None

    async def step(self) -> bool:
        """Check once, or go on with what was broken off; returns whether the check is done."""
        await sleep_unless(self._database.stopping, self._first_seconds)
        self._first_seconds = 0
        return bool(await unless_set(self._database.stopping, self._check()))

    def pause_seconds(self, result: bool) -> float:
        """The interval, or less when something was behind."""
        return self.interval_seconds if result else _BEHIND_SECONDS

    async def _check(self) -> bool:
        await self._idle.wait()
        completeness = await self._taken_up()
        self._piece_began = time.monotonic()
        async for candles in completeness.missing():
            stored = await store_folds(self._database, self._writer, candles)
            self._metrics.checks.missing.inc(stored)
            if stored:
                log.warning(
                    "Minutes that the log holds were missing from the table; they were folded again and stored.",
                    action="missing_stored", candles=stored, first=min(candle.ts for candle in candles),
                    last=max(candle.ts for candle in candles),
                )  # fmt: skip
        if completeness.is_done:
            self._metrics.checks.begun_at.set(self._began.timestamp())
            self._under_way = None
        return completeness.is_done

    async def _taken_up(self) -> Completeness:
        log_name = await own_log(self._settings)
        found = self._under_way
        if found is None or found.own_log != log_name:
            self._began = datetime.now(UTC)
            found = self._under_way = Completeness(
                self._settings,
                self._database,
                log_name,
                Selection(from_=self._began - timedelta(days=self._settings.check_days)),
                only_settled=True,
                looks_at=self._is_mine,
                pause=self._pause,
                on_compared=self._metrics.checks.minutes.inc,
            )
        return found

    def _is_mine(self, partition: int) -> bool:
        return TopicPartition(self._settings.candles_topic, partition) in self._assignment()

    async def _pause(self) -> None:
        await asyncio.sleep(_REST * (time.monotonic() - self._piece_began))
        await self._idle.wait()
        self._piece_began = time.monotonic()
