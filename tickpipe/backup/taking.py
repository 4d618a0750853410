"""Taking a backup while everything runs.

The order makes it whole: what the groups have committed is read first, then the snapshot of the database is taken,
then the ends of the topics are read. So the candles that are stored name only offsets that are in the topics, and
nothing that was committed is missing; what happened in between is folded again after a restore, which changes
nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from psycopg import AsyncConnection

from marketdata.errors import KafkaUnavailable
from runtime.kafka import ensure_topics, log_ends
from runtime.log_identity import own_log
from runtime.settings import Settings
from tickpipe.backup import database, topics
from tickpipe.backup.archive import FORMAT, KafkaPart, Manifest, new_archive
from tickpipe.replay.engine import group_offsets


class Teller(Protocol):
    """Shows how far the work is (`tickpipe.console.Bar`)."""

    def begin(self, description: str, total: float | None) -> None:
        """The next piece of the work."""

    def tell(self, completed: float, said: str = "") -> None:
        """So much of it is done."""


@dataclass
class Count:
    """Adds up what the parts report, for a teller."""

    teller: Teller
    said: Callable[[int], str]
    done: int = 0

    def add(self, more: int) -> None:
        """So much more is done."""
        before, self.done = self.done, self.done + more
        # Updating the bar for every record costs more than the record.
        if more > 10_000 or before // 10_000 != self.done // 10_000:
            self.teller.tell(self.done, self.said(self.done))


def records_said(done: int) -> str:
    """Progress through topics in words."""
    return f"{done:,} records"


def bytes_said(done: int) -> str:
    """Progress through bytes in words."""
    return f"{done / 1e6:,.0f} MB"


async def take_backup(settings: Settings, path: Path, teller: Teller, *, with_topics: bool) -> Manifest:
    """Write the backup to `path`, which is there only when it is whole; returns what it holds.

    Without the topics it also works while no broker answers; then a restore does not know where the groups stood.

    Raises:
        FileExistsError: when `path` is there already.
        KafkaUnavailable: when the topics are wanted and no broker answers.
    """
    with new_archive(path) as archive:
        try:
            kafka = await _kafka_part(settings)
        except KafkaUnavailable:
            if with_topics:
                raise
            kafka = None
        async with await AsyncConnection.connect(
            settings.database_url.get_secret_value(), connect_timeout=10, application_name="tickpipe-backup"
        ) as connection:
            await database.begin_snapshot(connection)
            teller.begin("database", await database.dump_bytes(connection) or None)
            part = await database.dump(connection, archive, Count(teller, bytes_said).add)
        if kafka is not None and with_topics:
            teller.begin("topics", await _records_of(settings, kafka.sink_offsets))
            dumped = await topics.dump(settings, archive, kafka.sink_offsets, Count(teller, records_said).add)
            kafka = KafkaPart(
                kafka.cluster_id, kafka.log, kafka.stream_offsets, kafka.sink_offsets, tuple(dumped)
            )  # fmt: skip
        manifest = Manifest(FORMAT, version("tickpipe"), datetime.now(UTC), part, kafka, archive.members)
        archive.finish(manifest)
    return manifest


async def _kafka_part(settings: Settings) -> KafkaPart:
    cluster_id = await ensure_topics(settings)
    stream = await group_offsets(settings, settings.stream_group, settings.ticks_topic)
    sink = {
        role: await group_offsets(settings, settings.sink_group, topics.topic_name(settings, role))
        for role in topics.SINK_ROLES
    }
    return KafkaPart(cluster_id, await own_log(settings), {topics.TICKS: stream}, sink)


async def _records_of(settings: Settings, starts: dict[str, dict[int, int]]) -> int:
    total = 0
    for role in topics.ROLES:
        ends = await log_ends(settings, topics.topic_name(settings, role))
        total += sum(end - max(begin, starts.get(role, {}).get(p, begin)) for p, (begin, end) in ends.items())
    return total
