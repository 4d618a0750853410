"""Detects a log of ticks that lost its end, as when Kafka's disk is replaced by an older copy under the same name.

The records that follow get offsets that stored rows name already, so those rows would win over the folds of the new
records. `sink_progress` holds where the log of ticks ended, beside how far candles were stored. Once the log ends
earlier, rows that name more belong to a log that is gone, and every candle in Kafka is read again.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from marketdata.errors import KafkaUnavailable, UnknownTopic
from marketdata.offsets import beyond
from runtime.health import Health
from runtime.kafka import Ends, SharedAdmin, log_ends
from runtime.logreader import log_name, own_log
from runtime.service import PeriodicTask
from runtime.settings import Settings
from sink.db.connection import Connection, Database
from sink.db.session import SQL
from sink.progress import reached_offsets

log = structlog.get_logger(__name__)

#: When Kafka answers again it may have another disk, and a log that has grown past what the rows name tells nothing
#: any more: it is asked this soon (seconds).
_AWAY_SECONDS: Final = 0.5

#: The workers find out by themselves, and until then publish candles of the lost end once more (seconds).
_UNSETTLED_SECONDS: Final = 60.0


class LogWatch(PeriodicTask[bool]):
    """The task that compares the end of the log of ticks with where it ended before."""

    name = "log"
    interval_seconds = 5.0

    def __init__(
        self, settings: Settings, admin: SharedAdmin, database: Database, health: Health, read_again: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._admin = admin
        self._database = database
        self._health = health
        self._read_again = read_again
        self._unsettled_until = 0.0

    def pause_seconds(self, result: bool) -> float:
        """The interval, or less while Kafka does not answer."""
        return self.interval_seconds if result else _AWAY_SECONDS

    async def step(self) -> bool:
        """Compare once; returns whether Kafka answered."""
        settings = self._settings
        try:
            async with self._admin.client() as client:
                name = await own_log(settings, client)
                candles_log = await log_name(settings, settings.candles_topic, client)
            # Before the ends: another sink may note a later end in between.
            before = await self._database.run(partial(reached_offsets, log_name=name))
            async with self._admin.client() as client:
                ends = await log_ends(settings, settings.ticks_topic, client)
        except (KafkaUnavailable, UnknownTopic):
            return False
        if lost := {partition: end for partition, (_, end) in ends.items() if end < before.get(partition, 0)}:
            self._health.set("log", False)
            self._unsettled_until = time.monotonic() + _UNSETTLED_SECONDS
            log.error(
                "The log of ticks has lost its end: was an older copy of Kafka's disk put back? The rows stay; ticks "
                "that only the lost end had are in no log. Send what you have once more (`tickpipe send`), then "
                "compare the table with the log: `tickpipe verify --complete --repair`.",
                action="log_shortened", log=name, ends=lost, before={p: before[p] for p in lost},
            )  # fmt: skip
        if lost or time.monotonic() < self._unsettled_until:
            rows = await self._database.run(partial(disown, log_name=name, candles_log=candles_log, ends=ends))
            if rows:
                log.warning("All candles are read again from Kafka.", action="candles_read_again", candles_gone=rows)
                self._read_again()
        if any(end != before.get(partition) for partition, (_, end) in ends.items()):
            await self._database.run(partial(note_ends, log_name=name, ends=ends))
        self._health.set("log", True)
        return True


async def note_ends(connection: Connection, *, log_name: str, ends: Ends) -> None:
    """Store where the partitions of the log end."""
    async with connection.transaction():
        for partition, (_, end) in sorted(ends.items()):
            await connection.execute(SQL["set_progress"], {"log": log_name, "partition": partition, "next": end})


async def disown(connection: Connection, *, log_name: str, candles_log: str, ends: Ends) -> int:
    """Make rows that name records beyond the ends those of a log that is gone; returns their number.

    If there are any, the progress over the candles is forgotten in the same transaction: all of them are judged again.
    """
    about: dict[str, object] = {"log": log_name, "beyond": beyond(ends)}
    async with connection.transaction():
        found = await (await connection.execute(SQL["rows_beyond"], about)).fetchone()
        if found is None:
            raise RuntimeError("unreachable: count(*) has a row")
        rows, first_ts, last_ts = found
        if rows:
            await connection.execute(SQL["disown_beyond"], {**about, "first_ts": first_ts, "last_ts": last_ts})
            await connection.execute(SQL["drop_refolds_beyond"], about)
            await connection.execute(SQL["forget_progress"], {"log": candles_log})
    return int(rows)
