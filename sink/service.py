"""The main loop of the sink: poll, store, commit; and what happens while Kafka or the database is away."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry

from marketdata.errors import ProgressLost, TickpipeError
from marketdata.runs import Record
from runtime import clock
from runtime.aiokafka_internals import hand_out_bare_records, rejoin_group
from runtime.health import Guard, Health, StatusServer
from runtime.kafka import SharedAdmin, new_consumer
from runtime.kafka_errors import KAFKA_ERRORS, kafka_errors
from runtime.kafka_groups import GroupWatch
from runtime.logreader import wait_for_log
from runtime.rejected import Rejected
from runtime.rights import Service
from runtime.service import PeriodicTask, cancel, unless_set, until_first_ends
from runtime.settings import Settings
from runtime.telemetry import start_telemetry
from runtime.topics import sink_topics
from sink.batch import (
    BATCH_RECORDS,
    Batch,
    Incoming,
    Observer,
    Rejects,
    Store,
    incoming_bars,
    incoming_candles,
    incoming_reference,
    incoming_reports,
)
from sink.commits import COMMIT_TIMEOUT_SECONDS, Commits, Offsets, Revocations
from sink.completeness import Checker
from sink.db.connection import Connection, Database, Trouble, trouble_of
from sink.db.schema import edition, migrate, set_compression
from sink.db.session import SQL, database_conninfo
from sink.ledger import LedgerKeeper
from sink.maintenance import Closer, Comparer, Materialiser, Retainer, retention_of
from sink.metrics import Metrics
from sink.progress import LagMeter, Positions, Span, with_sink_group
from sink.refolds import Refolder
from sink.shortened import LogWatch
from sink.stored_until import StoredUntil
from sink.writer import LogEnds, Writer

log = structlog.get_logger(__name__)

#: Records that are polled and decoded in one go, some half a millisecond. The database answers half a dozen times
#: while it stores a batch, and each answer waits until that is done (250: 13 % fewer candles a second).
_POLL_RECORDS: Final = 125

#: How long a poll waits for the first record, and so at most until SIGTERM is noticed (milliseconds). An idle sink
#: spends a third of its time on polls of 200 ms.
_POLL_TIMEOUT_MS: Final = 500

#: A killed sink retains its partitions this long (milliseconds).
_SESSION_TIMEOUT_MS: Final = 10_000

#: While the database is away nothing is polled, yet the partitions must stay assigned: aiokafka's heartbeats prove that
#: the process lives, and the database's timeouts that it does not hang (milliseconds: a day).
_MAX_POLL_INTERVAL_MS: Final = 86_400_000

#: How often an idle sink checks whether the database answers, and still has what it stored (seconds).
_PING_SECONDS: Final = 2.0


class Sink:
    """The service. `await Sink(settings).run()` returns after `stop()`, and raises what it cannot recover from."""

    def __init__(self, settings: Settings, *, registry: CollectorRegistry | None = None) -> None:
        self._settings = settings
        self._metrics = Metrics(registry or CollectorRegistry())
        self._observer = Observer(self._metrics, start_telemetry(settings, "sink"))
        self._stopping = asyncio.Event()
        #: Set while no record waits to be stored.
        self._idle = asyncio.Event()
        self.health = Health("kafka", "database", "log")
        self._guard = Guard(self.health)
        self._asked_database_at = time.monotonic()
        self._decode = {
            settings.candles_topic: incoming_candles,
            settings.broker_candles_topic: incoming_bars,
            settings.reference_topic: incoming_reference,
            settings.fills_topic: incoming_reports,
        }
        self._keeper: LedgerKeeper | None = None
        #: Set once the name of the group is known, which the database decides.
        self._positions: Positions
        self._commits: Commits

    def stop(self) -> None:
        """Finish the batch, commit, leave the group."""
        self._stopping.set()

    @property
    def metrics(self) -> Metrics:
        """The metrics of this sink."""
        return self._metrics

    @property
    def exit_code(self) -> int:
        """The exit code of the process after `run` has returned."""
        return self._guard.exit_code

    async def run(self) -> None:
        """Work until `stop()`; waits for Kafka and for the database as long as it takes.

        Raises:
            SettingsError: when the address of `/health`, `/ready` and `/metrics` cannot be listened on.
            Exception: anything unforeseen, before the offsets of the batch are committed.
        """
        settings = self._settings
        status = StatusServer(settings.sink_host, settings.sink_port, self._metrics.registry, self.health, self._guard)
        status.start()
        url = database_conninfo(settings)
        # One connection each: on a shared one, tasks would wait for each other's locks as well.
        live, *others = databases = [
            Database(
                url, self._stopping, name=name, on_trouble=self._count_trouble,
                on_state=self._set_database_up if name == "live" else lambda _: None,
            )
            for name in (
                "live", Refolder.name, Materialiser.name, Comparer.name, Retainer.name, Closer.name, Checker.name,
                LogWatch.name, LedgerKeeper.name,
            )
        ]  # fmt: skip
        try:
            await self._work(live, others)
        except Exception as exc:
            # When told to stop while something is away, waiting ends with its error, and no offset is committed.
            if not (self._stopping.is_set() and _may_pass(exc)):
                self.health.fail("flow", repr(exc))
                raise
        finally:
            self.health.set("kafka", False)
            for database in databases:
                await database.close()
            # shutdown() waits for the thread's next check, half a second.
            await asyncio.to_thread(status.close)

    def _set_database_up(self, up: bool) -> None:
        self._asked_database_at = time.monotonic()
        if up and not self.health.passes("database"):
            log.info("The database answers.", action="database_up")
        self.health.set("database", up)
        self._metrics.database_up.set(up)

    def _count_trouble(self, task: str, kind: Trouble) -> None:
        self._metrics.database_trouble.labels(task, str(kind)).inc()

    async def _work(self, live: Database, others: Sequence[Database]) -> None:
        log_name = await unless_set(self._stopping, wait_for_log(self._settings, service=Service.SINK))
        if log_name is None:
            return
        await live.run_patiently(self._migrate)
        self._positions = Positions(self._settings, self._metrics, self._stopping)
        self._commits = Commits(self._settings)
        log_ends = LogEnds(self._settings, log_name)
        writer = Writer(log_ends, self._metrics)
        async with (
            Rejects(self._settings, self._metrics, self._stopping) as rejects,
            contextlib.aclosing(SharedAdmin(self._settings)) as admin,
        ):
            consumer = await unless_set(self._stopping, self._join_group())
            if consumer is None:
                return
            try:
                self.health.set("kafka", True)
                log.info("The sink is running.", action="sink_running", group=self._settings.sink_group)
                refolding, materialising, comparing, retaining, closing, checking, watching, ledger = others
                background: list[PeriodicTask[Any]] = [
                    Refolder(self._settings, log_ends, refolding, writer, self._metrics),
                    Materialiser(materialising, self._metrics),
                    Comparer(comparing, self._metrics),
                    Retainer(retaining, retention_of(self._settings)),
                    Closer(self._settings, admin, closing, self._metrics),
                    LogWatch(self._settings, admin, watching, self.health, self._positions.forget),
                    LagMeter(self._settings, consumer, self._metrics, self.health),
                    GroupWatch(
                        self._settings,
                        admin,
                        self._settings.sink_group,
                        sink_topics(self._settings),
                        partial(rejoin_group, consumer),
                    ),
                ]
                if self._settings.check_days:
                    mine = consumer.assignment
                    background.append(
                        Checker(self._settings, checking, writer, self._metrics, idle=self._idle, assignment=mine)
                    )
                if self._settings.ledger_days:
                    mine = consumer.assignment
                    self._keeper = LedgerKeeper(
                        self._settings, ledger, self._metrics, StoredUntil(self._settings, admin), assignment=mine
                    )
                    background.append(self._keeper)
                await until_first_ends(
                    self._flow(consumer, live, Store(live, writer, rejects)),
                    *(task.run(self._stopping, self._metrics.tasks) for task in background),
                )
            finally:
                await _leave(consumer)
        log.info("The sink has stopped.", action="sink_stopped")

    async def _migrate(self, connection: Connection) -> None:
        await migrate(database_conninfo(self._settings))
        log.info("Found a database.", action="database_edition", edition=await edition(connection))
        await set_compression(connection, self._settings.compress_after_days)
        self._settings = await with_sink_group(self._settings)

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
        consumer.subscribe(
            sink_topics(settings), listener=Revocations(self._commits.pending, self._positions, self._metrics)
        )
        return consumer

    async def _join_group(self) -> AIOKafkaConsumer:
        while True:
            consumer = self._new_consumer()
            try:
                with self._kafka_errors():
                    await consumer.start()
                hand_out_bare_records(consumer)
                return consumer
            except BaseException as exc:
                await _leave(consumer)
                if not (isinstance(exc, TickpipeError) and exc.retriable):
                    raise
                log.warning("The group cannot be joined yet.", action="kafka_wait", error=str(exc))
            await asyncio.sleep(1)

    async def _flow(self, consumer: AIOKafkaConsumer, live: Database, store: Store) -> None:
        # While the database stores one batch, the next is polled, decoded and packed: neither waits for the other.
        storing: asyncio.Task[None] | None = None
        try:
            while not self._stopping.is_set():
                if self._positions.unknown(consumer):
                    await self._finish(storing)
                    storing = None
                    await self._commits.settle()
                    await self._commits.stored(consumer, await self._positions.begin(consumer, live))
                batch, offsets = await self._next_batch(consumer, store)
                if not await self._finish(storing):
                    storing = None
                    continue
                storing = asyncio.create_task(self._store(consumer, live, store, batch, offsets))
            if await self._finish(storing):
                await self._commits.finish(consumer)
        finally:
            if storing is not None:
                await cancel(storing)
            await self._commits.cancel()

    async def _finish(self, storing: "asyncio.Task[None] | None") -> bool:
        """Wait for the batch; returns False when the database has lost progress, and reading has to begin again."""
        try:
            if storing is not None:
                await storing
        except ProgressLost as exc:
            log.warning("Reading begins again where the database ends.", action="progress_lost", error=str(exc))
            self._positions.forget()
            self._commits.pending.clear()
            return False
        return True

    async def _next_batch(self, consumer: AIOKafkaConsumer, store: Store) -> tuple[Batch, Offsets]:
        """The fetched records, up to the size of a batch, and the offsets that follow them."""
        spans: dict[TopicPartition, Span] = {}
        good: list[Incoming] = []
        bad: list[Rejected] = []
        while len(good) + len(bad) < BATCH_RECORDS and not self._positions.unknown(consumer):
            polled = await self._poll(consumer, 0 if spans else _POLL_TIMEOUT_MS)
            if not polled:
                break
            self._idle.clear()
            for tp, records in polled.items():
                if (span := await self._positions.take(tp, records)) is None:
                    continue
                spans[tp] = spans.get(tp, span)._replace(next=span.next)
                usable, unusable = self._decode[tp.topic](tp, records)
                good += usable
                bad += unusable
            await asyncio.sleep(0)
        offsets = {tp: span.next for tp, span in spans.items()}
        return await store.prepare(good, bad, list(spans.values())), offsets

    def _kafka_errors(self) -> contextlib.AbstractContextManager[None]:
        return kafka_errors(self._settings, group=self._settings.sink_group, right="READ")

    async def _poll(self, consumer: AIOKafkaConsumer, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        try:
            with self._kafka_errors():
                polled: dict[TopicPartition, list[Record]] = await consumer.getmany(
                    timeout_ms=timeout_ms, max_records=_POLL_RECORDS
                )
        except TickpipeError as exc:
            if not exc.retriable:
                raise
            log.warning("Kafka does not answer; it is asked again.", action="kafka_wait", error=str(exc))
            await asyncio.sleep(1)
            return {}
        return polled

    async def _store(
        self, consumer: AIOKafkaConsumer, live: Database, store: Store, batch: Batch, offsets: Offsets
    ) -> None:
        if offsets:
            self._idle.clear()
            began_ms = clock.now_ms()
            with self._metrics.batch_seconds.time():
                await store.store(batch)
            self._positions.stored(batch.spans)
            self._observer.stored(batch.good, began_ms)
            if self._keeper is not None and batch.prepared.reports:
                self._keeper.reported()
        await self._commits.stored(consumer, offsets)
        if time.monotonic() - self._asked_database_at > _PING_SECONDS:
            await live.run_patiently(ping)
            await live.run_patiently(self._positions.check)
        self._idle.set()


async def _leave(consumer: AIOKafkaConsumer) -> None:
    # Leaving the group needs the broker; without one the session runs out by itself.
    with contextlib.suppress(*KAFKA_ERRORS):
        await asyncio.wait_for(consumer.stop(), COMMIT_TIMEOUT_SECONDS)


async def ping(connection: Connection) -> None:
    """Check that the database takes writes; raises as any work on it does."""
    await connection.execute(SQL["ping_write"])


def _may_pass(exc: BaseException) -> bool:
    return trouble_of(exc) is not None or (isinstance(exc, TickpipeError) and exc.retriable)
