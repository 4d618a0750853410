"""Closes candles that nobody else closes: of a minute that was stamped ahead, which the worker forgot long before it.

A worker holds an untouched minute for two minutes at most, because one tick stamped tomorrow must not hold the commit
until tomorrow. When tomorrow comes and brings no tick of that minute, its row would stay open for ever, and with it its
hour, its day and its month.
"""

from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from aiokafka import TopicPartition

from marketdata.timeframes import FOLDABLE
from runtime.kafka import Ends, admin_client, committed_offsets, log_ends
from runtime.kafka_errors import kafka_errors
from runtime.settings import Settings
from runtime.tasks import PeriodicTask
from sink.db.connection import Connection, Database
from sink.db.statements import SQL
from sink.metrics import Metrics

log = structlog.get_logger(__name__)

#: A worker closes what it has in memory by itself, and forgets what was not touched for two minutes (seconds).
_UNTOUCHED_SECONDS: Final = 180.0

#: Readings that wait until they are reached; of a backlog of more than a day the oldest are not waited for.
_MAX_READINGS: Final = 1_440

#: Looked at again at every step: what was not closed because it waited for a refold, or had just been stored.
_AGAIN: Final = timedelta(hours=1)

#: So far back candles are looked for that were left open while no sink ran, a piece at every step.
_LOOKBACK: Final = timedelta(days=7)
_PIECE: Final = timedelta(hours=6)

#: Rows that one statement closes, and live candles of the same symbols wait for: some 100 ms.
_MOST_ROWS: Final = 2_000


#: A moment, and how far a topic reached at it.
_Reading = tuple[datetime, Ends]


class Closer(PeriodicTask[int]):
    """The task that closes rows whose period was over at a moment of which all that the log held is stored by now."""

    name = "close"
    #: Shorter asks Kafka the more, longer closes the later.
    interval_seconds = 60.0

    def __init__(self, settings: Settings, database: Database, metrics: Metrics) -> None:
        self._settings = settings
        self._database = database
        self._metrics = metrics
        # Ends of `ticks` that the workers have not reached yet; then ends of `candles.m1`, as they were when the
        # workers had, that the sinks have not stored yet.
        self._unfolded: deque[_Reading] = deque(maxlen=_MAX_READINGS)
        self._unstored: deque[_Reading] = deque(maxlen=_MAX_READINGS)
        # What lies between the two was looked through; an index of the open rows would cost every write of a row.
        self._oldest: datetime | None = None
        self._newest: datetime | None = None

    async def step(self) -> int:
        """Close what can be closed; returns how many candles."""
        closed = await self._database.run(self.close)
        self._metrics.rows.labels("closed").inc(closed)
        return closed

    async def close(self, connection: Connection, *, now: datetime | None = None) -> int:
        """Close what can be closed; returns how many candles. What was read is told from the next call on.

        Raises:
            KafkaUnavailable: when Kafka does not answer; the call can be repeated.
            psycopg.Error: when the database does not.
        """
        now = now or datetime.now(UTC)
        over = await self._stored_until(now)
        if over is None:
            return 0
        over -= timedelta(seconds=self._settings.grace_seconds)
        closed = await self._close(connection, (self._newest or over) - _AGAIN, over, now)
        self._newest, oldest = over, self._oldest or over
        # Compressed rows are dear to look at, and long over.
        if oldest > now - min(_LOOKBACK, timedelta(days=self._settings.compress_after_days or _LOOKBACK.days)):
            # Those that begin in the piece may end after it.
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
            "since": since, "over": over, "untouched": now - timedelta(seconds=_UNTOUCHED_SECONDS), "most": _MOST_ROWS,
            "timeframes": list(FOLDABLE),
            "widths": [timedelta(milliseconds=timeframe.base_width_ms) for timeframe in FOLDABLE.values()],
        }  # fmt: skip
        closed = 0
        # What is done stays done when a later statement is too slow.
        while (rows := (await connection.execute(SQL["close_overdue"], about)).rowcount) > 0:
            closed += rows
        return closed

    async def _stored_until(self, now: datetime) -> datetime | None:
        """The newest moment of which all that the log held is known to be folded and stored."""
        settings = self._settings
        async with admin_client(settings) as client:
            with kafka_errors(settings):
                folded = await committed_offsets(client, settings.stream_group)
                stored = await committed_offsets(client, settings.sink_group)
        over = _passed(self._unstored, stored, settings.candles_topic)
        if (moment := _passed(self._unfolded, folded, settings.ticks_topic)) is not None:
            self._unstored.append((moment, await log_ends(settings, settings.candles_topic)))
        self._unfolded.append((now, await log_ends(settings, settings.ticks_topic)))
        return over


def _passed(readings: deque[_Reading], committed: dict[TopicPartition, int], topic: str) -> datetime | None:
    """The moment of the newest reading that was reached; it and those before it are removed."""
    moment = None
    while readings and _is_reached(readings[0][1], committed, topic):
        moment, _ = readings.popleft()
    return moment


def _is_reached(ends: Ends, committed: dict[TopicPartition, int], topic: str) -> bool:
    return all(
        end <= first or committed.get(TopicPartition(topic, partition), -1) >= end
        for partition, (first, end) in ends.items()
    )
