"""The loop of the sink: poll, store, commit; and what it does when Kafka or the database is away."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from prometheus_client import CollectorRegistry

from marketdata.errors import TickpipeError
from runtime.aiokafka_internals import hand_out_bare_records
from runtime.kafka import new_consumer
from runtime.log_identity import wait_for_log
from runtime.polls import Record
from runtime.rejected import Rejected
from runtime.settings import Settings
from runtime.telemetry import start_telemetry
from sink.comparing import Comparer
from sink.database import Connection, Database, is_outage
from sink.edition import edition
from sink.keeping import Keeper
from sink.logends import LogEnds
from sink.metrics import Metrics
from sink.migrations import migrate
from sink.records import Incoming, incoming_bars, incoming_candles
from sink.refolds import Refolder
from sink.rejects import Rejects
from sink.retention import Retainer, retention_of
from sink.staging import Staging
from sink.storage import set_compression
from sink.store import Batch, Store
from sink.trail import Trail
from sink.web import StatusServer
from sink.writer import Writer

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

#: Offsets that follow on what was read of each partition.
Offsets = dict[TopicPartition, int]

#: Records of one batch: a transaction of some 80 ms. More makes a repeated batch dearer and takes memory (20,000: 45 MB
#: more for 2 % more candles a second), fewer costs commits (5,000: 5 to 8 % fewer candles a second).
_BATCH_RECORDS: Final = 10_000

#: Records that are taken from what was fetched, and decoded, in one go: half a millisecond. The database answers half a
#: dozen times while it stores a batch, and every answer waits for the end of that (250: 13 % fewer candles a second).
_POLL_RECORDS: Final = 125

#: How long a poll waits for the first record; it bounds how late SIGTERM is noticed (milliseconds).
_POLL_TIMEOUT_MS: Final = 200

#: A sink that was killed keeps its partitions this long (milliseconds).
_SESSION_TIMEOUT_MS: Final = 10_000

#: While the database is away nothing is polled, and the partitions must stay: aiokafka's heartbeats prove that the
#: process lives, and the database's timeouts that it does not hang (milliseconds: a day).
_MAX_POLL_INTERVAL_MS: Final = 86_400_000

#: Kafka answers a commit in milliseconds; later means that it is away, and the next commit covers this one (seconds).
_COMMIT_TIMEOUT_SECONDS: Final = 10.0

#: How often the lag is measured (seconds).
_LAG_INTERVAL_SECONDS: Final = 5.0


class Sink:
    """The service. `await Sink(settings).run()` returns after `stop()` and raises what it cannot repair."""

    def __init__(self, settings: Settings, *, registry: CollectorRegistry | None = None, use_copy: bool = True) -> None:
        self._settings = settings
        self._use_copy = use_copy
        self._metrics = Metrics(registry or CollectorRegistry())
        self._trail = Trail(self._metrics, start_telemetry(settings, "sink"))
        self._stopping = asyncio.Event()
        self._kafka_up = False
        self._database_up = False
        # Offsets that are stored in the database but not yet committed to Kafka.
        self._uncommitted: Offsets = {}

    def stop(self) -> None:
        """Finish the batch, commit, leave the group."""
        self._stopping.set()

    @property
    def metrics(self) -> Metrics:
        """What is counted."""
        return self._metrics

    def readiness(self) -> dict[str, bool]:
        """Whether the group was joined and the database answers."""
        return {"kafka": self._kafka_up, "database": self._database_up}

    async def run(self) -> None:
        """Work until `stop()`; waits for Kafka and for the database as long as it takes.

        Raises:
            OSError: when the address of `/health`, `/ready` and `/metrics` cannot be bound.
            Exception: whatever nobody foresaw, before the offsets of the batch are committed.
        """
        settings = self._settings
        status = StatusServer(settings.sink_host, settings.sink_port, self._metrics.registry, self.readiness)
        status.start()
        databases = [self._new_database() for _ in range(5)]
        try:
            await self._work(*databases)
        except Exception as exc:
            # Being told to stop while something is away ends the waiting with its error; the offsets stay.
            if not (self._stopping.is_set() and _may_pass(exc)):
                raise
        finally:
            self._kafka_up = False
            for database in databases:
                await database.close()
            # shutdown() waits for the thread's next look, half a second.
            await asyncio.to_thread(status.close)

    def _new_database(self) -> Database:
        url = self._settings.database_url.get_secret_value()
        return Database(url, self._stopping, self._set_database_up)

    def _set_database_up(self, up: bool) -> None:
        if up and not self._database_up:
            log.info("The database answers.", action="database_up")
        self._database_up = up
        self._metrics.database_up.set(up)

    async def _work(
        self, live: Database, refolds: Database, keeping: Database, comparing: Database, retaining: Database
    ) -> None:
        log_name = await self._unless_stopped(wait_for_log(self._settings))
        if log_name is None:
            return
        await live.run(self._migrate)
        log_ends = LogEnds(self._settings, log_name)
        writer = Writer(log_ends, self._metrics, Staging(use_copy=self._use_copy))
        refolder = Refolder(self._settings, log_ends, refolds, writer, self._metrics)
        keeper = Keeper(keeping, self._metrics)
        comparer = Comparer(comparing, self._metrics)
        retainer = Retainer(retaining, retention_of(self._settings))
        async with Rejects(self._settings, self._metrics, self._stopping) as rejects:
            consumer = await self._unless_stopped(self._join_group())
            if consumer is None:
                return
            try:
                self._kafka_up = True
                log.info("The sink is running.", action="sink_running", group=self._settings.sink_group)
                store = Store(live, writer, rejects)
                await self._until_first_ends(
                    self._flow(consumer, store),
                    refolder.run(self._stopping),
                    keeper.run(self._stopping),
                    comparer.run(self._stopping),
                    retainer.run(self._stopping),
                    self._measure_lag(consumer),
                )
            finally:
                await _leave(consumer)
        log.info("The sink has stopped.", action="sink_stopped")

    async def _migrate(self, connection: Connection) -> None:
        await migrate(self._settings.database_url.get_secret_value())
        log.info("Found a database.", action="database_edition", edition=await edition(connection))
        await set_compression(connection, self._settings.compress_after_days)

    def _new_consumer(self) -> AIOKafkaConsumer:
        settings = self._settings
        consumer = new_consumer(
            settings,
            group_id=settings.sink_group,
            group_instance_id=settings.sink_instance or None,
            auto_offset_reset="earliest",
            session_timeout_ms=_SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=_SESSION_TIMEOUT_MS // 3,
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
        )
        topics = [settings.candles_topic, settings.broker_candles_topic]
        consumer.subscribe(topics, listener=_Revocations(self._uncommitted, self._metrics))
        return consumer

    async def _join_group(self) -> AIOKafkaConsumer:
        while True:
            consumer = self._new_consumer()
            try:
                await consumer.start()
                hand_out_bare_records(consumer)
                return consumer
            except BaseException as exc:
                await _leave(consumer)
                if not (isinstance(exc, KafkaError) and exc.retriable):
                    raise
                log.warning("The group cannot be joined yet.", action="kafka_wait", error=str(exc))
            await asyncio.sleep(1)

    async def _unless_stopped(self, work: Awaitable[Result]) -> Result | None:
        task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            await _cancel(task, stopped)

    async def _until_first_ends(self, *work: Awaitable[None]) -> None:
        # All of them end when told to stop; one that ends earlier does so with an error, which ends the others.
        tasks = [asyncio.ensure_future(each) for each in work]
        try:
            await asyncio.gather(*tasks)
        finally:
            await _cancel(*tasks)

    async def _flow(self, consumer: AIOKafkaConsumer, store: Store) -> None:
        # While the database stores one batch, the next is polled, decoded and packed: neither waits for the other.
        storing: asyncio.Task[None] | None = None
        try:
            while not self._stopping.is_set():
                batch, offsets = await self._next_batch(consumer, store)
                if storing is not None:
                    await storing
                storing = asyncio.create_task(self._store(consumer, store, batch, offsets))
            if storing is not None:
                await storing
        finally:
            if storing is not None:
                await _cancel(storing)

    async def _next_batch(self, consumer: AIOKafkaConsumer, store: Store) -> tuple[Batch, Offsets]:
        """What has been fetched, up to the size of a batch, and the offsets that follow on it."""
        good: list[Incoming] = []
        bad: list[Rejected] = []
        offsets: Offsets = {}
        while len(good) + len(bad) < _BATCH_RECORDS:
            polled = await self._poll(consumer, 0 if offsets else _POLL_TIMEOUT_MS)
            if not polled:
                break
            for tp, records in polled.items():
                decode = incoming_bars if tp.topic == self._settings.broker_candles_topic else incoming_candles
                usable, unusable = decode(tp, records)
                good += usable
                bad += unusable
                offsets[tp] = records[-1].offset + 1
            await asyncio.sleep(0)
        return await store.prepare(good, bad), offsets

    async def _poll(self, consumer: AIOKafkaConsumer, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        try:
            polled: dict[TopicPartition, list[Record]] = await consumer.getmany(
                timeout_ms=timeout_ms, max_records=_POLL_RECORDS
            )
        except KafkaError as exc:
            if not exc.retriable:
                raise
            log.warning("Kafka does not answer; it is asked again.", action="kafka_wait", error=str(exc))
            await asyncio.sleep(1)
            return {}
        return polled

    async def _store(self, consumer: AIOKafkaConsumer, store: Store, batch: Batch, offsets: Offsets) -> None:
        if offsets:
            began_ms = time.time_ns() // 1_000_000
            with self._metrics.batch_seconds.time():
                await store.store(batch)
            self._trail.stored(batch.good, began_ms)
            self._uncommitted |= offsets
        if self._uncommitted:
            await self._commit(consumer)

    async def _commit(self, consumer: AIOKafkaConsumer) -> None:
        # A partition that was lost meanwhile is the next owner's: it reads the batch again, which changes nothing.
        mine = consumer.assignment()
        offsets = {tp: offset for tp, offset in self._uncommitted.items() if tp in mine}
        try:
            if offsets:
                await asyncio.wait_for(consumer.commit(offsets), _COMMIT_TIMEOUT_SECONDS)
        except (CommitFailedError, IllegalStateError) as exc:
            log.info("Partitions were lost before the commit.", action="commit_lost", error=str(exc))
        except (KafkaError, TimeoutError) as exc:
            if not getattr(exc, "retriable", True):
                raise
            log.warning("Kafka did not confirm a commit; the next one covers it.", action="commit_wait", error=str(exc))
            return
        self._uncommitted.clear()

    async def _measure_lag(self, consumer: AIOKafkaConsumer) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _LAG_INTERVAL_SECONDS)
            try:
                mine = sorted(consumer.assignment())
                ends = await asyncio.wait_for(consumer.end_offsets(mine), _LAG_INTERVAL_SECONDS)
                for tp in mine:
                    position = await asyncio.wait_for(consumer.position(tp), _LAG_INTERVAL_SECONDS)
                    self._metrics.lag.labels(tp.topic, tp.partition).set(max(0, ends[tp] - position))
                self._kafka_up = True
            except IllegalStateError:
                continue  # the partition went elsewhere meanwhile
            except (KafkaError, TimeoutError):
                self._kafka_up = False


class _Revocations(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Forgets what was not committed of partitions that went elsewhere."""

    def __init__(self, uncommitted: dict[TopicPartition, int], metrics: Metrics) -> None:
        self._uncommitted = uncommitted
        self._metrics = metrics

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        for tp in revoked:
            self._uncommitted.pop(tp, None)
        self._metrics.lag.clear()

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        log.info("Partitions were assigned.", action="partitions_assigned", partitions=len(assigned))


async def _leave(consumer: AIOKafkaConsumer) -> None:
    # Leaving the group needs the broker; without one the session runs out by itself.
    with contextlib.suppress(TimeoutError, KafkaError):
        await asyncio.wait_for(consumer.stop(), _COMMIT_TIMEOUT_SECONDS)


async def _cancel(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _may_pass(exc: BaseException) -> bool:
    return is_outage(exc) or (isinstance(exc, TickpipeError) and exc.retriable)
