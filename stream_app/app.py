"""The Faust application: transport, agent, timers, web pages and the watchdog around the worker."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, cast

import faust
import structlog
from aiokafka.admin import AIOKafkaAdminClient
from faust.types import TP
from faust.types.auth import CredentialsT
from prometheus_client import CONTENT_TYPE_LATEST

from marketdata.errors import KafkaRefused, KafkaUnavailable, LogShortened, UnknownTopic
from marketdata.runs import Record
from runtime.addresses import asyncio_host, url_of
from runtime.health import Guard, Health
from runtime.kafka import METADATA_MAX_AGE_MS, SharedAdmin
from runtime.kafka_access import client_options
from runtime.kafka_groups import GroupWatch
from runtime.logreader import own_log
from runtime.process import EXIT_FAILED
from runtime.settings import Settings
from runtime.telemetry import start_telemetry
from runtime.topics import restore_topics
from stream_app.emitter import Emitter, Metrics
from stream_app.gate import FetchGate
from stream_app.transport import BatchConsumer, install
from stream_app.watchdog import Restlessness, Watchdog
from stream_app.worker import Worker

log = structlog.get_logger(__name__)

#: The partitions of a killed worker are idle this long; with only a few seconds a busy machine loses its own (seconds).
SESSION_TIMEOUT_SECONDS = 10.0
HEARTBEAT_SECONDS = 3.0

#: How often released offsets are committed, and so how much is read again after a crash (seconds).
COMMIT_INTERVAL_SECONDS = 1.0

#: Records of one poll and partition: folding so many single ticks takes some 50 ms, in which nothing else runs, and
#: holds a run of each of a thousand symbols. Of larger records a poll has fewer, for a fetch is a megabyte.
POLL_RECORDS = 20_000

#: Maximum number of polls that wait for the agent; each holds some 4 MB of single ticks.
BUFFERED_POLLS = 4

WATCHDOG_INTERVAL_SECONDS = 5.0

#: Candles that wait longer for the broker's confirmation make the worker not ready (seconds): a broker that is
#: restarted takes some. What is not confirmed is sent again, and nothing is committed meanwhile.
UNCONFIRMED_SECONDS = 5.0

#: A stop that takes longer hangs, as Faust's does after some failures of the broker (seconds).
STOP_TIMEOUT_SECONDS = 20.0


class StreamApp(faust.App):
    """A Faust app that starts the emitter before the first poll, and checks its membership before it has one."""

    emitter: Emitter
    settings: Settings
    guard: Guard

    async def on_first_start(self) -> None:
        await super().on_first_start()
        await self.emitter.start()
        # Not a Faust task: those wait for the first assignment, which a refused worker never gets.
        self.add_future(_guarded(self.guard, "group watch", self._watch_group))

    async def _watch_group(self) -> None:
        while not self.should_stop:
            await asyncio.sleep(WATCHDOG_INTERVAL_SECONDS)
            if (error := cast(BatchConsumer, self.consumer).group_error()) is not None:
                log.error(
                    "The group does not take the worker any more; it ends to join afresh.",
                    action="group_lost", group=self.settings.stream_group, error=str(error),
                )  # fmt: skip
                _ask_for_the_name(self.settings)
                os._exit(EXIT_FAILED)

    def _create_directories(self) -> None:
        """Do nothing: the directories are for tables, and there are none."""

    async def on_stop(self) -> None:
        hard_end = threading.Timer(STOP_TIMEOUT_SECONDS, os._exit, [EXIT_FAILED])
        hard_end.daemon = True
        hard_end.start()
        await super().on_stop()


def create_app(settings: Settings, log_name: str) -> StreamApp:
    """The Faust app for one worker, which is run by `faust.Worker`; `log_name` as `own_log` gives it."""
    app = StreamApp(
        settings.stream_group,
        broker=[f"kafka://{server.strip()}" for server in settings.kafka_bootstrap.split(",")],
        broker_credentials=_credentials(settings),
        topic_allow_declare=False,
        topic_disable_leader=True,
        broker_session_timeout=SESSION_TIMEOUT_SECONDS,
        broker_heartbeat_interval=HEARTBEAT_SECONDS,
        broker_commit_interval=COMMIT_INTERVAL_SECONDS,
        broker_max_poll_records=POLL_RECORDS,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=settings.stream_instance or None,
        consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
        # No tables, so no standbys: with the default, Faust uses an assignor of its own.
        table_standby_replicas=0,
        # With the default, Faust waits at every rebalance until nothing is unacknowledged, which is never.
        stream_wait_empty=False,
        stream_buffer_maxsize=BUFFERED_POLLS,
        web_bind=asyncio_host(settings.stream_host),
        web_port=settings.stream_port,
        # Which Faust would make of the host as it is, without the brackets of IPv6.
        canonical_url=url_of(settings.stream_host, settings.stream_port),
    )
    install(app)
    metrics = Metrics()
    app.emitter, app.settings = Emitter(settings), settings
    worker = Worker(
        settings,
        app.emitter,
        metrics,
        _Offsets(app, settings.ticks_topic),
        log_name=log_name,
        telemetry=start_telemetry(settings, "stream"),
    )
    # Faust goes on after a failure of an agent, and hangs in a shutdown from inside one: the process ends on the spot.
    app.guard = Guard(Health("kafka", "candles", "log"), end=lambda: os._exit(EXIT_FAILED))
    app.guard.health.set("log", True)  # of what it has read, which is nothing yet, nothing is lost
    _consume(app, settings, worker)
    _follow_rebalances(app, settings, worker, metrics)
    _watch(app, settings, worker, metrics)
    _serve(app, worker, metrics)
    return app


def _credentials(settings: Settings) -> CredentialsT | None:
    """Faust's credentials for Kafka, equivalent to `client_options` for all other clients."""
    options = client_options(settings)
    context = options.get("ssl_context")
    if "sasl_oauth_token_provider" in options:
        return faust.OAuthCredentials(oauth_cb=options["sasl_oauth_token_provider"], ssl_context=context)
    if "sasl_mechanism" in options:
        return faust.SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"],
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)


class _Offsets:
    """The worker's view of Faust's consumer."""

    def __init__(self, app: StreamApp, topic: str) -> None:
        self._app = app
        self._topic = topic

    def committed(self, partition: int) -> int | None:
        return self._consumer.committed_offset(TP(self._topic, partition))

    def release(self, partition: int, offset: int) -> None:
        self._consumer.release(TP(self._topic, partition), offset)

    def end(self, partition: int) -> int:
        return self._consumer.highwater(TP(self._topic, partition)) or 0

    @property
    def gate(self) -> FetchGate:
        return self._consumer.gate

    @property
    def _consumer(self) -> BatchConsumer:
        return cast(BatchConsumer, self._app.consumer)


def _consume(app: Any, settings: Settings, worker: Worker) -> None:
    async def fold(stream: Any) -> AsyncIterable[None]:
        async for event in stream.noack().events():
            await _guarded(app.guard, "fold", fold_poll, event.message.partition, event.value)
            yield

    async def fold_poll(partition: int, records: Sequence[Record]) -> None:
        try:
            await worker.fold(partition, records)
        except LogShortened as exc:
            await _read_all_again(app, worker, exc)

    async def publish() -> None:
        while not app.should_stop:
            await _guarded(app.guard, "publish", worker.publish_next)

    async def write_rejected() -> None:
        while not app.should_stop:
            await asyncio.sleep(settings.emit_interval_seconds)
            await _guarded(app.guard, "write rejected", worker.write_rejected)

    async def drain(*_: Any, **__: Any) -> None:
        # Publishes and releases what was folded, so that Faust's last commit covers it.
        await worker.write_rejected()
        await worker.publish()
        await app.emitter.stop()

    topic = app.topic(settings.ticks_topic, key_serializer="raw", value_serializer="raw")
    app.agent(topic, name="fold", concurrency=1)(fold)
    app.task(publish)
    app.task(write_rejected)
    app.on_before_shutdown.connect(drain)


async def _check_log(app: StreamApp, worker: Worker, client: AIOKafkaAdminClient) -> None:
    try:
        await worker.check_log(client)
    except LogShortened as exc:
        await _read_all_again(app, worker, exc)
    else:
        app.guard.health.set("log", True)


async def _read_all_again(app: StreamApp, worker: Worker, exc: LogShortened) -> None:
    app.guard.health.set("log", False)
    log.error(
        "The log of ticks has lost its end: was an older copy of Kafka's disk put back? It is read from its beginning. "
        "Ticks that only the lost end had are in no log; send what you have once more (`tickpipe send`).",
        action="log_shortened", error=str(exc),
    )  # fmt: skip
    # It may be another log.
    if not worker.start_over(await own_log(app.settings)):
        worker.read_again()
    # What was read of the lost end may have been committed since.
    await cast(BatchConsumer, app.consumer).start_over()


async def _guarded(guard: Guard, part: str, step: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Run a step of a Faust task; if it fails, the process ends and the next one folds from the last commit."""
    try:
        await step(*args)
    except Exception as exc:
        guard.fail(part, exc)


def _follow_rebalances(app: Any, settings: Settings, worker: Worker, metrics: Metrics) -> None:
    restlessness = Restlessness()

    async def revoked(_app: Any, partitions: set[TP], **_: Any) -> None:
        worker.drop()
        metrics.partitions.set(0)

    async def assigned(_app: Any, partitions: set[TP], **_: Any) -> None:
        worker.drop()
        metrics.partitions.set(len(partitions))
        metrics.lag.clear()
        # A worker beyond the number of partitions stands by: it is ready as well.
        app.guard.health.set("kafka", True)
        log.info("Partitions are assigned.", action="assigned", partitions=sorted(tp.partition for tp in partitions))
        if restlessness.assigned(time.monotonic()):
            _ask_for_the_name(settings)

    app.on_partitions_revoked.connect(revoked)
    app.on_partitions_assigned.connect(assigned)


def _ask_for_the_name(settings: Settings) -> None:
    """Log the likely cause of an unstable membership: another worker with the same name."""
    if settings.stream_instance:
        log.error(
            "Does another worker live under the same name? They take the partitions from each other for ever. Give "
            "each its own TICKPIPE_STREAM_INSTANCE, or none.",
            action="same_name", instance=settings.stream_instance,
        )  # fmt: skip


#: Why a look at Kafka comes to nothing for now; the next one may tell.
_PASSING: Final = (KafkaUnavailable, KafkaRefused)


def _watch(app: Any, settings: Settings, worker: Worker, metrics: Metrics) -> None:
    watchdog = Watchdog(settings.watchdog_seconds)

    async def watch() -> None:
        async with contextlib.aclosing(SharedAdmin(settings)) as admin:
            await _guarded(app.guard, "watchdog", look, admin)

    async def restore(client: AIOKafkaAdminClient) -> None:
        # Emissions, and with them the commit, wait until the topic exists again.
        await restore_topics(settings, settings.candles_topic, settings.ticks_rejected_topic, shared=client)

    async def follow_log(client: AIOKafkaAdminClient) -> None:
        if worker.start_over(await own_log(settings, client)):
            # Kafka forgot the commits with the topic, but what was read since may have been committed.
            await app.consumer.start_over()

    async def look(admin: SharedAdmin) -> None:
        offsets: dict[int, tuple[int | None, int]] = {}
        group_watch = GroupWatch(
            settings, admin, settings.stream_group, [settings.ticks_topic], app.consumer.rejoin_group
        )
        asked_group_at = time.monotonic()
        while not app.should_stop:
            await asyncio.sleep(WATCHDOG_INTERVAL_SECONDS)
            consumer: BatchConsumer = app.consumer
            steps: list[Any] = [restore, follow_log, partial(_check_log, app, worker)]
            if time.monotonic() - asked_group_at >= group_watch.interval_seconds:
                asked_group_at = time.monotonic()
                steps.append(group_watch.look)
            for step in steps:
                # Each by itself, or the client would be used on after it has failed.
                with contextlib.suppress(*_PASSING):
                    async with admin.client() as client:
                        await step(client)
            before, offsets = offsets, {}
            for tp in consumer.assignment():
                committed, end = consumer.committed_offset(tp), consumer.highwater(tp) or 0
                offsets[tp.partition] = (committed, end)
                metrics.lag.labels(partition=tp.partition).set(max(0, end - (committed or 0)))
            for partition, (committed, end) in offsets.items():
                # Nothing moved since the last check, so there may be nothing to read.
                if before.get(partition) == (committed, end) and (committed or 0) < end:
                    with contextlib.suppress(KafkaUnavailable, UnknownTopic):
                        await worker.pass_hole(partition, end)
            stuck = watchdog.stuck(offsets, time.monotonic())
            if stuck is not None:
                log.error(
                    "The committed offset stands still although there is lag; the worker ends to start afresh.",
                    action="watchdog", partition=stuck, committed=offsets[stuck][0], end=offsets[stuck][1],
                )  # fmt: skip
                os._exit(EXIT_FAILED)

    app.task(watch)


def _serve(app: Any, worker: Worker, metrics: Metrics) -> None:
    health: Health = app.guard.health

    async def healthy(web: Any, request: Any) -> Any:
        status, body = health.health()
        return web.json(body, status=status)

    async def ready(web: Any, request: Any) -> Any:
        health.set("candles", worker.unconfirmed_seconds < UNCONFIRMED_SECONDS)
        status, body = health.ready()
        return web.json(body, status=status)

    async def exposition(web: Any, request: Any) -> Any:
        worker.observe()
        return web.bytes(metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.page("/health")(healthy)
    app.page("/ready")(ready)
    app.page("/metrics")(exposition)
