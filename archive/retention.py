"""Deletes from Kafka what is old, folded, archived, and equal in the archive when both are read back."""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import structlog
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from archive.metrics import Metrics
from archive.writer import Writer
from marketdata.errors import ArchiveDamaged, LogTruncated
from marketdata.tick import DAY_MS, Frame, content
from marketdata.wire import numbered_frames
from runtime.archive.manifest import Catalogue
from runtime.archive.reader import ArchiveReader
from runtime.clock import now_ms
from runtime.kafka import admin_client
from runtime.kafka_errors import kafka_errors
from runtime.kafka_groups import group_offsets
from runtime.logreader import LogReader
from runtime.settings import Settings

log = structlog.get_logger(__name__)

#: Offsets that are compared at once: a hundred megabytes of frames of 200 ticks.
_COMPARED_RECORDS: Final = 5_000

#: A step ends after this, and archiving goes on (seconds).
_STEP_SECONDS: Final = 20.0


class LocalRetention:
    """One step: compares on from where the last one ended, and deletes from Kafka up to there."""

    def __init__(self, settings: Settings, catalogue: Catalogue, writer: Writer, metrics: Metrics) -> None:
        self._settings = settings
        self._topic = settings.ticks_topic
        self._catalogue = catalogue
        self._writer = writer
        self._metrics = metrics
        self._until = time.monotonic() + _STEP_SECONDS

    async def step(self, stopping: asyncio.Event) -> None:
        """Compare and delete as much as there is time for.

        Raises:
            ArchiveDamaged: when the archive does not hold what Kafka holds; nothing is deleted from there on.
        """
        async with LogReader(self._settings) as reader:
            for partition, goal in (await self._goals(reader)).items():
                first, _ = await reader.ends(self._topic, partition)
                compared = max(first, self._catalogue.progress(partition).compared)
                while compared < goal and time.monotonic() < self._until and not stopping.is_set():
                    end = min(goal, compared + _COMPARED_RECORDS)
                    await self._compare(reader, partition, compared, end - 1)
                    await asyncio.to_thread(self._writer.note_compared, partition, end)
                    self._metrics.compared.inc(end - compared)
                    compared = end
                if first < (until := min(compared, goal)):
                    await self._delete(partition, first, until)

    async def _goals(self, reader: LogReader) -> dict[int, int]:
        """By partition the offset before which records may go: old enough, archived, and folded by the workers."""
        partitions = self._catalogue.partitions()
        oldest_ms = now_ms() - self._settings.ticks_local_retention_days * DAY_MS
        young = await reader.offsets_at(self._topic, partitions, oldest_ms)
        folded = await group_offsets(self._settings, self._settings.stream_group, self._topic)
        goals = {}
        for partition in partitions:
            archived = self._catalogue.progress(partition).next
            goals[partition] = min(archived, folded.get(partition, 0), young.get(partition, archived))
        return goals

    async def _compare(self, reader: LogReader, partition: int, first: int, last: int) -> None:
        ours: dict[int, Frame] = {}
        try:
            async for records in reader.read(self._topic, partition, first, last):
                ours |= numbered_frames([(record.offset, record.value) for record in records])
        except LogTruncated:
            return  # somebody else deleted them
        archived = ArchiveReader(self._catalogue).read(partition, first, last)
        theirs = await asyncio.to_thread(lambda: dict(one for chunk in archived for one in chunk))
        if differing := ours.keys() ^ theirs.keys() or _differing(ours, theirs):
            raise ArchiveDamaged(
                f"the archive does not hold offset {min(differing)} of partition {partition} as Kafka does; nothing is "
                "deleted from Kafka. `tickpipe archive check` names damaged files"
            )

    async def _delete(self, partition: int, first: int, until: int) -> None:
        # By offset: Kafka's own retention goes by segments and times, and knows nothing of the archive.
        async with admin_client(self._settings) as client:
            with kafka_errors(self._settings, topic=self._topic, right="DELETE"):
                await client.delete_records({TopicPartition(self._topic, partition): RecordsToDelete(until)})
        self._metrics.deleted.inc(until - first)
        log.info(
            "Deleted archived ticks from Kafka.",
            action="local_retention", partition=partition, first=first, last=until - 1,
        )  # fmt: skip


def _differing(ours: Mapping[int, Frame], theirs: Mapping[int, Frame]) -> set[int]:
    # The archive does not keep the version of a record.
    return {offset for offset, frame in ours.items() if content(frame) != content(theirs[offset])}
