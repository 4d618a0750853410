"""The archiver's loop: read what is new, write it, merge small files, delete from Kafka what may go."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Final

import structlog
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from archive.metrics import Metrics
from archive.retention import LocalRetention
from archive.writer import Writer
from marketdata.errors import (
    ArchiveBehind,
    ArchiveDamaged,
    ArchiveFenced,
    LogShortened,
    LogTruncated,
    NotAuthorized,
    TickpipeError,
)
from marketdata.pieces import in_pieces
from marketdata.tick import DAY_MS
from marketdata.wire import numbered_frames
from runtime.archive.files import ArchiveFiles, open_files
from runtime.archive.manifest import Catalogue, Day, Progress, date_of
from runtime.clock import now_ms
from runtime.health import Guard, Health, StatusServer
from runtime.kafka_groups import commit_offsets, group_offsets
from runtime.logreader import LogReader, own_log, wait_for_log
from runtime.rights import Service
from runtime.service import sleep_unless, unless_set
from runtime.settings import Settings

log = structlog.get_logger(__name__)

#: From the end of one look at the log to the next (seconds).
_POLL_SECONDS: Final = 1.0

#: From one failed attempt to the next (seconds).
_RETRY_SECONDS: Final = 2.0

#: How often small files are looked for, and records that may be deleted from Kafka (seconds).
_CARE_SECONDS: Final = 60.0

#: Files of one source, symbol and day that are merged while the day lasts. Of a day that is over two are merged, once
#: no tick of it came for as long as flushes are apart.
_MERGED_FILES: Final = 16

#: Files of a day that its manifest lists before they are merged earlier: every flush has the whole manifest in memory
#: (1.4 KB a file while it is read or written).
_LISTED_FILES: Final = 40_000

_offset_and_value: Final = attrgetter("offset", "value")


def merged_files(series: int) -> int:
    """How many files of one of so many sources and symbols are merged while the day lasts."""
    return max(2, min(_MERGED_FILES, _LISTED_FILES // max(1, series)))


class Archiver:
    """The service. `await Archiver(settings).run()` returns after `stop()`, and raises what it cannot recover from."""

    def __init__(self, settings: Settings, *, registry: CollectorRegistry | None = None) -> None:
        self._settings = settings
        self.metrics = Metrics(registry or CollectorRegistry())
        self.health = Health("kafka", "archive")
        self._guard = Guard(self.health)
        self._stopping = asyncio.Event()
        #: When ticks of a day and partition were last written (monotonic seconds).
        self._touched: dict[tuple[int, str], float] = {}
        self._cared_at = time.monotonic()

    def stop(self) -> None:
        """Write what is held, and end."""
        self._stopping.set()

    @property
    def exit_code(self) -> int:
        """The exit code of the process after `run` has returned."""
        return self._guard.exit_code

    async def run(self) -> None:
        """Work until `stop()`; waits for Kafka and for the archive as long as it takes.

        Raises:
            OSError: when the address of `/health`, `/ready` and `/metrics` cannot be bound.
            TickpipeError: when the archive is damaged, or Kafka refuses for good.
        """
        settings = self._settings
        status = StatusServer(
            settings.archive_host, settings.archive_port, self.metrics.registry, self.health, self._guard
        )
        status.start()
        try:
            if not settings.has_archive:
                log.info("TICKPIPE_ARCHIVE=off: ticks are not archived.", action="archive_off")
                self.health.set("kafka", True)
                self.health.set("archive", True)
                await self._stopping.wait()
                return
            files = open_files(settings.archive)
            async with self._alone(files) as is_alone:
                while is_alone and not self._stopping.is_set():
                    try:
                        await self._archive_log(files)
                    except TickpipeError as exc:
                        if not (exc.retriable or isinstance(exc, ArchiveFenced | LogShortened)):
                            raise
                        await self._wait_after(exc)
        except Exception as exc:
            self.health.fail("flow", repr(exc))
            raise
        finally:
            await asyncio.to_thread(status.close)

    @asynccontextmanager
    async def _alone(self, files: ArchiveFiles) -> AsyncIterator[bool]:
        """Wait until no other archiver writes there; whether it came to that before `stop()`."""
        said = False
        while not self._stopping.is_set():
            with files.lock() as is_alone:
                if is_alone:
                    yield True
                    return
            if not said:
                log.warning(
                    "Another archiver writes to this archive; this one waits.",
                    action="archive_locked", archive=files.full(""),
                )  # fmt: skip
                said = True
            await sleep_unless(self._stopping, _POLL_SECONDS)
        yield False

    async def _wait_after(self, exc: TickpipeError) -> None:
        self.metrics.failures.inc()
        self.health.set("kafka", False)
        self.health.set("archive", False)
        log.warning("Archiving failed; it is tried again.", action="archive_wait", error=str(exc))
        await sleep_unless(self._stopping, _RETRY_SECONDS)

    async def _archive_log(self, files: ArchiveFiles) -> None:
        """Archive the log until `stop()`.

        Raises:
            LogShortened: when the topic was created again.
        """
        log_name = await unless_set(self._stopping, wait_for_log(self._settings, service=Service.ARCHIVE))
        if log_name is None:
            return
        catalogue = Catalogue(files, log_name)
        flow = _Flow(self._settings, catalogue, self.metrics)
        async with LogReader(self._settings) as reader:
            await flow.resume(reader)
            self.health.set("kafka", True)
            self.health.set("archive", True)
            log.info("The archiver is running.", action="archiver_running", archive=files.full(catalogue.folder))
            while True:
                await flow.read_new(reader, self._stopping)
                await self._flush(flow, all_of_it=self._stopping.is_set())
                if self._stopping.is_set():
                    return
                if time.monotonic() - self._cared_at >= min(_CARE_SECONDS, self._settings.archive_flush_seconds):
                    await self._care(flow)
                await sleep_unless(self._stopping, _POLL_SECONDS)

    async def _flush(self, flow: "_Flow", *, all_of_it: bool) -> None:
        for progress in await flow.flush(0.0 if all_of_it else self._settings.archive_flush_seconds):
            for date, day in progress.days.items():
                if day.last >= flow.flushed_from[progress.partition]:
                    self._touched[progress.partition, date] = time.monotonic()

    async def _care(self, flow: "_Flow") -> None:
        """Merge small files, and delete from Kafka what may go.

        Damage is shown and looked at again, and nothing is deleted from Kafka meanwhile; it is no reason to archive
        nothing new, or to leave other days unmerged.
        """
        damage: list[str] = []
        for partition in flow.partitions:
            for date, day in flow.catalogue.progress(partition).days.items():
                try:
                    await self._merge(flow, partition, date, day)
                except ArchiveDamaged as exc:
                    damage.append(str(exc))
        if self._settings.ticks_local_retention_days and not damage:
            try:
                await LocalRetention(self._settings, flow.catalogue, flow.writer, self.metrics).step(self._stopping)
            except ArchiveDamaged as exc:
                damage.append(str(exc))
        self.metrics.damaged.set(bool(damage))
        for error in damage:
            log.error("The archive is damaged.", action="archive_damaged", error=error)
        self._cared_at = time.monotonic()

    async def _merge(self, flow: "_Flow", partition: int, date: str, day: Day) -> None:
        """Merge the small files of a day, when there are enough of them."""
        now = time.monotonic()
        quiet = now - self._touched.get((partition, date), -now) > self._settings.archive_flush_seconds
        at_least = 2 if date < date_of(now_ms() // DAY_MS) and quiet else merged_files(day.series)
        if day.files >= day.series + at_least - 1:
            self.metrics.merged.inc(await asyncio.to_thread(flow.writer.merge, partition, date, at_least=at_least))


class _Flow:
    """Reads one log partition by partition, and writes what was read."""

    def __init__(self, settings: Settings, catalogue: Catalogue, metrics: Metrics) -> None:
        self.catalogue = catalogue
        self.writer = Writer(catalogue)
        metrics.held.set_function(lambda: self.writer.ticks)
        self._settings = settings
        self._metrics = metrics
        self._next: dict[int, int] = {}
        #: The first offset of the newest flush of each partition.
        self.flushed_from: dict[int, int] = {}

    @property
    def partitions(self) -> list[int]:
        """Those that are read."""
        return list(self._next)

    async def resume(self, reader: LogReader) -> None:
        """Begin where the archive ends.

        Raises:
            ArchiveBehind: when it ends before where it did, and Kafka no longer has what it lacks, or soon may not.
        """
        doubtful: list[int] = []
        for partition in await reader.partitions(self._settings.ticks_topic):
            await self.begin_again(partition)
            begin, _ = await reader.ends(self._settings.ticks_topic, partition)
            # What Kafka holds whole and nobody deletes may go into another archive.
            if begin > self._next[partition] or self._settings.ticks_local_retention_days:
                doubtful.append(partition)
        if doubtful:
            await self._require_whole(doubtful)

    async def begin_again(self, partition: int) -> None:
        """Read the partition again from where the archive ends."""
        self._next[partition] = await asyncio.to_thread(self.writer.resume, partition)

    async def read_new(self, reader: LogReader, stopping: asyncio.Event) -> None:
        """Read every partition to its present end, and write whenever too much is held."""
        lag = 0
        for partition in await reader.partitions(self._settings.ticks_topic):
            if partition not in self._next:
                await self.begin_again(partition)
            begin, end = await reader.ends(self._settings.ticks_topic, partition)
            if end < self._next[partition]:
                raise LogShortened(f"partition {partition} ends at offset {end}, before what was read of it")
            await self._skip_lost(partition, begin)
            try:
                await self._read_to(reader, partition, end, stopping)
            except LogTruncated:
                continue  # the next round knows where the log begins
            lag += end - self.writer.archived(partition)
        self._metrics.lag.set(max(0, lag))

    async def _read_to(self, reader: LogReader, partition: int, end: int, stopping: asyncio.Event) -> None:
        async for records in reader.read(self._settings.ticks_topic, partition, self._next[partition], end - 1):
            before = self.writer.ticks
            for piece in in_pieces(records):
                last = piece[-1].offset
                # Not held by a name: the memory of its frames is used for the next one's, still in the cache.
                self.writer.add(
                    partition, self._next[partition], last, numbered_frames(list(map(_offset_and_value, piece)))
                )
                self._next[partition] = last + 1
            self._metrics.ticks.inc(self.writer.ticks - before)
            await self.flush(float("inf"))
            if stopping.is_set():
                return
        if self._next[partition] < end:
            # Nothing but holes up to the end: markers of transactions.
            self.writer.add(partition, self._next[partition], end - 1, [])
            self._next[partition] = end

    async def _skip_lost(self, partition: int, begin: int) -> None:
        if begin <= self._next[partition]:
            return
        await self.flush(0.0)
        await self._require_whole([partition])
        first = self._next[partition]
        if first:
            self._metrics.lost.inc(begin - first)
            log.error(
                "Kafka has deleted ticks before they were archived.",
                action="ticks_lost", partition=partition, first=first, last=begin - 1,
            )  # fmt: skip
        self._next[partition] = begin

    async def _require_whole(self, partitions: Iterable[int]) -> None:
        """Check that the archive ends where it did, before it goes on behind a gap.

        Otherwise what is archived from here on and deleted from Kafka would not be in the archive that comes back.

        Raises:
            ArchiveBehind: when it ends before what the group of the archiver has committed.
        """
        try:
            committed = await group_offsets(self._settings, self._settings.archive_group, self._settings.ticks_topic)
        except NotAuthorized:
            return  # said at the start; without this right nothing was committed either
        for partition in partitions:
            archived = self.writer.archived(partition)
            if (known := committed.get(partition, 0)) > archived:
                raise ArchiveBehind(
                    f"{self.catalogue.files.full(self.catalogue.folder)} ends at offset {archived} of partition "
                    f"{partition}; records up to {known} were archived. Is the volume mounted, is "
                    "TICKPIPE_ARCHIVE what it was, or was an older copy put back? Nothing is archived or "
                    "deleted until it is whole again; `tickpipe archive forget` goes on without them"
                )

    async def flush(self, max_age_seconds: float) -> list[Progress]:
        """Write what is held for so long, or everything when it is too much; how far each partition is archived."""
        flushed: dict[int, Progress] = {}
        due = self.writer.due(max_age_seconds)
        if due and await own_log(self._settings) != self.catalogue.log:
            raise LogShortened("the ticks topic was created again; what was read of the old one is not archived")
        for partition in due:
            self.flushed_from[partition] = self.writer.archived(partition)
            with self._metrics.flush_seconds.time():
                flushed[partition] = await asyncio.to_thread(self.writer.flush, partition)
        if flushed:
            await self._commit(flushed)
        return list(flushed.values())

    async def _commit(self, flushed: dict[int, Progress]) -> None:
        """Show the progress in Kafka; what counts is that of the archive."""
        topic = self._settings.ticks_topic
        offsets = {TopicPartition(topic, partition): progress.next for partition, progress in flushed.items()}
        try:
            await commit_offsets(self._settings, self._settings.archive_group, offsets)
        except TickpipeError as exc:
            log.warning("The archiver's progress does not show in Kafka.", action="commit_wait", error=str(exc))
