"""Taking a backup while everything runs, and restoring it.

The order makes a backup consistent: what the groups have committed is read first, then the snapshot of the database is
taken, then the ends of the topics are read. So the candles that are stored name only offsets that are in the topics,
and nothing that was committed is missing; what happened in between is folded again after a restore, which changes
nothing.

A restore brings back the topics first, then the database in one transaction, then where the groups go on. Candles
prove themselves by offsets of a log, so records come back to the offsets they had. Only the log's name changes when the
cluster is a new one; it is changed in what is restored as well. This order makes a restore
repeatable: interrupted among the topics, it continues when it is run again; interrupted before the groups are set, the
stream folds everything again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import msgspec
from aiokafka import TopicPartition

from marketdata.errors import KafkaUnavailable, TickpipeError
from runtime import clock
from runtime.kafka import log_ends
from runtime.kafka_groups import group_offsets
from runtime.logreader import own_log
from runtime.settings import Settings
from runtime.topics import ensure_topics
from sink.db.schema import migrate
from sink.db.session import database_conninfo, open_session
from sink.progress import with_sink_group
from tickpipe.backup import database, topics
from tickpipe.backup.archive import (
    FORMAT,
    ArchiveReader,
    KafkaPart,
    Manifest,
    Topic,
    new_archive,
    partition_member,
)  # fmt: skip
from tickpipe.backup.completeness import require_complete
from tickpipe.backup.topics import LogRecord, read_records
from tickpipe.replay.engine import set_offsets


class Progress(Protocol):
    """Shows how much of the work is done (`tickpipe.console.Bar`)."""

    def begin(self, description: str, total: float | None) -> None:
        """Start again for the next part of the work."""

    def update(self, completed: float, detail: str = "") -> None:
        """Show how much of this part is done."""


@dataclass
class Count:
    """Adds up what is done and shows the sum."""

    progress: Progress
    text: Callable[[int], str]
    done: int = 0

    def add(self, more: int) -> None:
        """Add what was done since the last call."""
        before, self.done = self.done, self.done + more
        # Updating the bar for every record costs more than the record.
        if more > 10_000 or before // 10_000 != self.done // 10_000:
            self.progress.update(self.done, self.text(self.done))


def records_text(done: int) -> str:
    """Progress through topics in words."""
    return f"{done:,} records"


def bytes_text(done: int) -> str:
    """Progress through bytes in words."""
    return f"{done / 1e6:,.0f} MB"


async def take_backup(settings: Settings, path: Path, progress: Progress, *, with_topics: bool) -> Manifest:
    """Write the backup to `path`, which exists only when it is complete; returns the manifest.

    Without the topics it also works while no broker answers; then a restore does not know where the groups stood.

    Raises:
        FileExistsError: when `path` is there already.
        KafkaUnavailable: when the topics are wanted and no broker answers.
    """
    settings = await with_sink_group(settings)
    with new_archive(path) as archive:
        try:
            kafka = await _kafka_part(settings)
        except KafkaUnavailable:
            if with_topics:
                raise
            kafka = None
        async with await open_session(database_conninfo(settings), "tickpipe backup") as connection:
            await database.begin_snapshot(connection)
            progress.begin("database", await database.dump_bytes(connection) or None)
            part = await database.dump(connection, archive, Count(progress, bytes_text).add)
        if kafka is not None and with_topics:
            progress.begin("topics", await _records_of(settings, kafka.sink_offsets))
            dumped = await topics.dump(settings, archive, kafka.sink_offsets, Count(progress, records_text).add)
            kafka = KafkaPart(
                kafka.cluster_id, kafka.log, kafka.stream_offsets, kafka.sink_offsets, tuple(dumped)
            )  # fmt: skip
        manifest = Manifest(FORMAT, version("tickpipe"), datetime.now(UTC), part, kafka, archive.members)
        archive.finish(manifest)
    return manifest


async def _kafka_part(settings: Settings) -> KafkaPart:
    cluster_id = await ensure_topics(settings, begins_log=False)
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


class LogState(StrEnum):
    """The state of the log that the restored candles name."""

    RESTORED = "restored"
    #: The log is here, with all that the backup knows of it.
    PRESENT = "present"
    #: The topics are neither in the backup nor here.
    MISSING = "missing"
    UNTOUCHED = "untouched"


class PartitionsDiffer(TickpipeError):
    """The ticks topic has another number of partitions than the backup, so offsets cannot be the same."""

    is_wrong_use = True


@dataclass(frozen=True)
class Restored:
    """The result of a restore."""

    candles: int
    #: Records of topics that were compared or written.
    records: int
    log: LogState


class Restore:
    """One restore of an archive that `check_archive` found whole; call `prepare`, then `run`."""

    def __init__(self, settings: Settings, archive: ArchiveReader, *, database_only: bool) -> None:
        self._archive = archive
        self._kafka: KafkaPart | None = None if database_only else archive.manifest.kafka
        self._database_only = database_only
        self._settings = settings
        if self._kafka is not None and self._kafka.topics:
            # Topics that are missing are created with as many partitions as they had.
            count = len(_topic(self._kafka, topics.TICKS).partitions)
            self._settings = settings.model_copy(update={"kafka_partitions": count})
        self._records = 0
        #: Roles of the topics in which the sink has to begin at the first record.
        self._starts_over: set[str] = set()

    async def prepare(self, *, replace: bool) -> None:
        """Check whether the restore is possible; changes nothing, except that a missing schema is created.

        Raises:
            ArchiveDamaged: when a table, a topic or a member is missing.
            DatabaseNotEmpty: when the database holds candles, unless they are to be replaced.
            ArchiveTooNew: when this version has no place for what is in the backup.
            PartitionsDiffer: when offsets could not be the same here.
            KafkaUnavailable, psycopg.OperationalError: when a server does not answer.
        """
        require_complete(self._archive)
        url = database_conninfo(self._settings)
        await migrate(url)
        async with await open_session(url, "tickpipe restore") as connection:
            await database.check_schema(connection, self._archive.manifest.database)
            if not replace:
                await database.require_empty(connection)
        if self._kafka is not None and self._kafka.topics:
            await ensure_topics(self._settings)
            ours = len(await log_ends(self._settings, self._settings.ticks_topic))
            theirs = len(_topic(self._kafka, topics.TICKS).partitions)
            if ours != theirs:
                raise PartitionsDiffer(
                    f"{self._settings.ticks_topic} has {ours} partitions here and {theirs} in the backup; restore into "
                    f"a Kafka without these topics, with TICKPIPE_KAFKA_PARTITIONS={theirs}, or pass --database-only"
                )

    async def run(self, progress: Progress) -> Restored:
        """Restore everything. Producers, stream workers and sinks must be stopped.

        Raises:
            TopicsDiffer: when the topics hold other records than the backup.
            GroupActive: when a service has rejoined its group.
        """
        self._progress = progress
        state, logs = LogState.UNTOUCHED, None
        if not self._database_only:
            here = await self._log_here()
            if self._kafka is None or here is None:
                state = LogState.MISSING
            elif self._kafka.topics:
                logs = (self._kafka.log, here)
                state = await self._restore_topics(self._kafka, logs)
            else:
                state = LogState.PRESENT if here == self._kafka.log else LogState.MISSING
        await self._restore_database(logs if logs is not None and logs[0] != logs[1] else None)
        if self._kafka is not None and state in (LogState.RESTORED, LogState.PRESENT):
            await self._set_groups(self._kafka)
        rows = {table.name: table.rows for table in self._archive.manifest.database.tables}
        return Restored(rows["market_data"], self._records, state)

    async def _log_here(self) -> str | None:
        try:
            return await own_log(self._settings)
        except KafkaUnavailable:
            # A backup without topics may be restored where no Kafka is.
            if self._kafka is not None and self._kafka.topics:
                raise
            return None

    async def _restore_topics(self, kafka: KafkaPart, logs: tuple[str, str]) -> LogState:
        self._progress.begin("topics", sum(p.end - p.first for topic in kafka.topics for p in topic.partitions))
        wrote = await self._restore_topic(_topic(kafka, topics.TICKS), logs)
        for topic in kafka.topics:
            if topic.role == topics.TICKS:
                continue
            if logs[0] == logs[1]:
                is_here = await self._reaches(topic)
            else:
                # When a restore has brought all ticks back before, services have gone on in the other topics.
                is_here = not wrote
            if not is_here:
                await self._restore_topic(topic, logs)
                self._starts_over.add(topic.role)
        if logs[0] != logs[1]:
            self._starts_over.update(topics.SINK_ROLES)
        return LogState.RESTORED if wrote else LogState.PRESENT

    async def _reaches(self, topic: Topic) -> bool:
        ends = await log_ends(self._settings, topics.topic_name(self._settings, topic.role))
        return all(ends.get(part.partition, (0, 0))[1] >= part.end for part in topic.partitions)

    async def _restore_topic(self, topic: Topic, logs: tuple[str, str]) -> bool:
        same_offsets = topic.role == topics.TICKS
        wrote = False
        count = Count(self._progress, records_text, self._records)
        async with topics.restoring_producer(self._settings) as producer:
            restore = topics.TopicRestore(self._settings, producer, topic.role, count.add)
            for part in topic.partitions:
                records = self._records_of(topic, part.partition, logs)
                expected = topics.expected_log(part, records, same_offsets=same_offsets)
                wrote |= await restore.partition(part, expected, same_offsets=same_offsets)
        self._records = count.done
        return wrote

    def _records_of(self, topic: Topic, partition: int, logs: tuple[str, str]) -> Iterator[LogRecord]:
        records = read_records(self._archive.pieces(partition_member(topic.role, partition)))
        if topic.role in topics.CANDLE_ROLES:
            records = (topics.of_log(record, logs) for record in records)
        if topic.role == topics.CANDLES:
            # The time of emission. Kafka deletes it after thirty days, and the backup may be older than that.
            now_ms = clock.now_ms()
            records = (msgspec.structs.replace(record, timestamp=now_ms) for record in records)
        return records

    async def _restore_database(self, logs: tuple[str, str] | None) -> None:
        part = self._archive.manifest.database
        members = self._archive.manifest.members
        self._progress.begin(
            "database", sum(size.bytes for name, size in members.items() if name.startswith("database/"))
        )
        url = database_conninfo(self._settings)
        async with await open_session(url, "tickpipe restore") as connection:
            on_progress = Count(self._progress, bytes_text).add
            await database.load(connection, part, self._archive.pieces, on_progress, logs=logs)

    async def _set_groups(self, kafka: KafkaPart) -> None:
        # The stream goes on behind what it had folded, the sink behind what the snapshot holds.
        # Since the backup a topic of candles may have been deleted, or made again with fewer partitions.
        await ensure_topics(self._settings, begins_log=False)
        settings = await with_sink_group(self._settings)
        groups = ((settings.stream_group, kafka.stream_offsets), (settings.sink_group, kafka.sink_offsets))
        for group, committed in groups:
            offsets = {}
            for role, of_partitions in committed.items():
                name = topics.topic_name(self._settings, role)
                ends = await log_ends(self._settings, name)
                for partition, offset in of_partitions.items():
                    if partition not in ends:
                        continue
                    begin, end = ends[partition]
                    # The first record of a topic that was created again is one that was not stored yet.
                    wanted = begin if role in self._starts_over else offset
                    offsets[TopicPartition(name, partition)] = min(end, max(begin, wanted))
            if offsets:
                await set_offsets(self._settings, group, offsets)


def _topic(kafka: KafkaPart, role: str) -> Topic:
    return next(topic for topic in kafka.topics if topic.role == role)
