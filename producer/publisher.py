"""The gateway to Kafka: records go in, and the caller goes on when every one of them is confirmed.

While Kafka is away, callers are turned away at once, and one background task tries to reach it. So a long outage costs
neither memory nor time.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Protocol

import structlog
from aiokafka import AIOKafkaProducer

from marketdata.contract.http import Refusal, TooLarge
from marketdata.errors import KafkaUnavailable, LogLost, RecordTooLarge, TickpipeError, UnknownTopic
from producer.connection import GroupCommit, close_producer, discard_producer, open_producer
from producer.metrics import Metrics
from runtime.batches import Record
from runtime.kafka import MAX_RECORD_BYTES
from runtime.kafka_errors import KAFKA_ERRORS, kafka_errors, mapped, unavailable
from runtime.known_log import KnownLog
from runtime.rejected import RejectedWriter, Stored, Which
from runtime.settings import Settings

log = structlog.get_logger(__name__)

#: Pause between two tries to reach Kafka (seconds): how late, at most, it is noticed that it is back.
_RETRY_SECONDS: Final = 1.0

#: How often an idle connection is tried, so that /ready knows (seconds).
_PROBE_SECONDS: Final = 2.0

#: Bodies of all requests that wait for Kafka; one that is larger passes alone (bytes).
_MAX_PENDING_BYTES: Final = 64 * 1024 * 1024

#: A broker that is busy confirms as much as this; what waits gets that much more time.
_LEAST_BYTES_PER_SECOND: Final = 1024 * 1024

#: Key, headers and the batch around a value take less than the rest (bytes).
_MAX_VALUE_BYTES: Final = MAX_RECORD_BYTES - 4096

#: A failure that lasts is repeated in the log this often (seconds).
_REMIND_SECONDS: Final = 60.0


class Gateway(Protocol):
    """Where accepted ticks go: Kafka, or a list in tests."""

    @property
    def is_open(self) -> bool:
        """Whether Kafka answered lately."""

    async def publish(self, records: Sequence[Record]) -> None:
        """Return when every record is in the log.

        When it raises, nothing is claimed: all, some or none of the records may be in the log.

        Raises:
            KafkaUnavailable: when they were not confirmed in time; sending them again later may succeed.
            Refusal: 503 when too much waits already, 413 when a record is larger than Kafka takes.
        """

    async def run(self) -> None:
        """Hold the connection until cancelled; then close it."""


class Publisher:
    """The gateway to a real Kafka."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._commit: GroupCommit | None = None
        self._failed = asyncio.Event()
        self._probe_ok = True
        self._pending_bytes = 0
        self._rejected_topic = settings.ticks_rejected_topic
        self._rejected = RejectedWriter(settings, Which.TICKS)
        self._known_log = KnownLog(settings.known_log_file)

    @property
    def is_open(self) -> bool:
        """Whether Kafka answered lately."""
        return self._commit is not None and self._probe_ok

    async def publish(self, records: Sequence[Record]) -> None:
        """See `Gateway.publish`."""
        commit = self._commit
        if commit is None:
            raise unavailable(self._settings)
        size_bytes, has_rejects = 0, False
        for record in records:
            size_bytes += len(record.value)
            if len(record.value) > _MAX_VALUE_BYTES:
                raise TooLarge("more ticks of one symbol than a Kafka record holds; split the body")
            if record.topic == self._rejected_topic:
                has_rejects = True
        if not records:
            return
        if self._pending_bytes and self._pending_bytes + size_bytes > _MAX_PENDING_BYTES:
            raise Refusal(503, "BACK_PRESSURE", "too much waits for Kafka", retry_after_seconds=1)
        self._pending_bytes += size_bytes
        started = time.perf_counter()
        try:
            if has_rejects:
                await self._publish_with_rejects(commit, records)
            else:
                await self._confirm(commit, records)
        finally:
            self._pending_bytes -= size_bytes
        self._metrics.publish_seconds.observe(time.perf_counter() - started)

    def _patience_seconds(self) -> float:
        # A large body that is refused for its size comes again as large. Those that wait behind it share its time, for
        # whoever runs out of time ends the connection; a broker that is away is noticed by `_watch`.
        return self._settings.confirm_timeout_seconds + self._pending_bytes / _LEAST_BYTES_PER_SECOND

    async def _publish_with_rejects(self, commit: GroupCommit, records: Sequence[Record]) -> None:
        if usable := [record for record in records if record.topic != self._rejected_topic]:
            await self._confirm(commit, usable)
        await self._store_rejected([record for record in records if record.topic == self._rejected_topic])

    async def _confirm(self, commit: GroupCommit, records: Sequence[Record]) -> None:
        try:
            await commit.send(records, self._patience_seconds())
        # Not `kafka_errors`: each request comes here, and a context manager costs more than all the rest of this.
        except KAFKA_ERRORS as exc:
            error = mapped(exc, self._settings, right="WRITE")
            self._give_up(commit, error)
            if isinstance(error, RecordTooLarge):  # the topic's own limit was lowered
                raise TooLarge("more ticks of one symbol than the topic takes; split the body") from exc
            raise KafkaUnavailable("Kafka did not confirm the records; send them again") from exc

    async def _store_rejected(self, rejects: Sequence[Record]) -> None:
        # What goes wrong here is no reason to give up the connection of the ticks.
        items = [Stored(record.key, record.value, record.headers, record.timestamp_ms) for record in rejects]
        try:
            with kafka_errors(self._settings, topic=self._rejected_topic, right="WRITE"):
                async with asyncio.timeout(self._patience_seconds()):
                    await self._rejected.write_items(items)
        except TickpipeError as exc:
            log.warning("Rejected items are not stored yet.", action="rejected_wait", error=str(exc))
            raise KafkaUnavailable("Kafka did not confirm the rejected items; send the body again") from exc

    async def run(self) -> None:
        """See `Gateway.run`."""
        try:
            await self._stay_connected()
        finally:
            await self._rejected.stop()

    async def _stay_connected(self) -> None:
        while True:
            producer = await self._connect()
            self._failed.clear()
            self._commit = commit = GroupCommit(producer)
            self._probe_ok = True
            self._metrics.kafka_up.set(1)
            log.info("Kafka is there; ticks are accepted.", action="kafka_up")
            try:
                await self._watch(producer, commit)
            except asyncio.CancelledError:
                self._close()
                await close_producer(producer)
                raise
            await discard_producer(producer)

    async def _connect(self) -> AIOKafkaProducer:
        reminded = -_REMIND_SECONDS
        while True:
            try:
                return await open_producer(self._settings, self._known_log)
            except Exception as exc:  # whatever it is, the process answers 503 and tries again
                if time.monotonic() - reminded >= _REMIND_SECONDS:
                    reminded = time.monotonic()
                    expected = isinstance(exc, TickpipeError)
                    if isinstance(exc, LogLost):
                        log.error("The log is lost; requests are answered 503.", action="log_lost", error=str(exc))
                    else:
                        log.warning(
                            "Kafka cannot be reached; requests are answered 503 meanwhile.",
                            action="kafka_down", error=str(exc) or type(exc).__name__, exc_info=not expected,
                        )  # fmt: skip
            await asyncio.sleep(_RETRY_SECONDS)

    async def _watch(self, producer: AIOKafkaProducer, commit: GroupCommit) -> None:
        """Return when the producer has failed; an idle one fails when the broker is silent for long enough."""
        answered = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    await self._failed.wait()
                return
            except TimeoutError:
                pass
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    present = (await producer.client.fetch_all_metadata()).topics()
            except Exception as exc:  # this task must outlive whatever a broken connection makes aiokafka raise
                self._probe_ok = False
                self._metrics.kafka_up.set(0)
                if time.monotonic() - answered > self._settings.confirm_timeout_seconds:
                    self._give_up(commit, exc)
            else:
                answered = time.monotonic()
                self._probe_ok = True
                if self._commit is not commit:
                    continue
                self._metrics.kafka_up.set(1)
                if self._settings.ticks_topic not in present:
                    self._give_up(commit, UnknownTopic(self._settings.ticks_topic))

    def _give_up(self, commit: GroupCommit, exc: BaseException) -> None:
        if self._commit is not commit:
            return
        log.warning(
            "Kafka failed; requests are answered 503 until it is back.",
            action="kafka_failed", error=str(exc) or type(exc).__name__,
        )  # fmt: skip
        self._close()
        commit.abandon()
        self._failed.set()

    def _close(self) -> None:
        self._commit = None
        self._metrics.kafka_up.set(0)
