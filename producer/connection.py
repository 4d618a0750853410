"""One connection to Kafka for publishing: opened and given up as a whole, and written to by group commit.

aiokafka 0.14 cannot be brought back after a failure. An idempotent producer counts its records, and a batch that it
gives up leaves a gap in the count, after which the broker refuses the partition for ever (OutOfOrderSequenceNumber).
A batch that is not given up is sent again without end, holds its memory meanwhile, and `stop()` waits for it. So a
producer that failed once is thrown away with what it holds: those requests are answered 503 and come again, and the
fold counts a tick that came twice once.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import structlog
from aiokafka import AIOKafkaProducer

from runtime import aiokafka_internals
from runtime.batches import BatchWriter, Record
from runtime.kafka import new_producer
from runtime.kafka_errors import KAFKA_ERRORS, kafka_errors
from runtime.known_log import KnownLog
from runtime.logreader import own_log
from runtime.rights import Service
from runtime.settings import Settings
from runtime.topics import prepare_topics

log = structlog.get_logger(__name__)

#: Small batches would wait for each other: aiokafka has one in flight for each partition. Below Kafka's default
#: limit of a batch, which `candles.broker` has; a larger record goes alone (bytes).
_BATCH_BYTES = 900_000

#: Topics, first metadata, producer id: seconds on a broker that just started; a broker that hangs must not hold us.
_OPEN_TIMEOUT_SECONDS = 15.0

#: At the end of the process everything is confirmed already, unless the broker is gone (seconds).
_FLUSH_TIMEOUT_SECONDS = 5.0


async def open_producer(settings: Settings, known: KnownLog) -> AIOKafkaProducer:
    """A producer that knows the partitions of every topic it writes to; topics that are missing are created.

    Raises:
        LogLost: when the log that is `known` is gone.
        KafkaUnavailable, KafkaRefused: when the broker does not answer or refuses.
    """
    with kafka_errors(settings):
        async with asyncio.timeout(_OPEN_TIMEOUT_SECONDS):
            return await _open(settings, known)


async def _open(settings: Settings, known: KnownLog) -> AIOKafkaProducer:
    await prepare_topics(settings, Service.PRODUCER, known=known)
    producer = new_producer(
        settings,
        request_timeout_ms=max(1000, int(settings.confirm_timeout_seconds * 1000)),
    )
    try:
        await producer.start()
        for topic in (settings.ticks_topic, settings.broker_candles_topic):
            await producer.partitions_for(topic)
        known.remember(await own_log(settings))
    except BaseException:
        await discard_producer(producer)
        raise
    return producer


async def close_producer(producer: AIOKafkaProducer) -> None:
    """Close in an orderly way; never takes longer than a few seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_FLUSH_TIMEOUT_SECONDS):
            await producer.flush()
    await discard_producer(producer)


async def discard_producer(producer: AIOKafkaProducer) -> None:
    """Cut the connection and forget what is not confirmed; futures that wait for it stay pending."""
    try:
        await aiokafka_internals.discard_producer(producer)
    except KAFKA_ERRORS as exc:
        # It is thrown away anyhow, and the next one does not depend on it.
        log.debug("A connection to Kafka did not close.", action="kafka_close_failed", error=str(exc))


class _Call(NamedTuple):
    records: Sequence[Record]
    done: asyncio.Future[None]
    #: By the loop's clock (seconds).
    deadline: float


class GroupCommit:
    """Sends through one producer, in the order of the calls; belongs to it and ends with it.

    A write has one timer, for the call in it that has waited longest: one for each call would cost as much as all the
    rest of this (measured).
    """

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._writer = BatchWriter(producer, _BATCH_BYTES)
        self._waiting: list[_Call] = []
        self._under_way: list[_Call] = []
        self._writing: asyncio.Task[None] | None = None

    async def send(self, records: Sequence[Record], patience_seconds: float) -> None:
        """Return when every record is confirmed.

        Raises:
            KAFKA_ERRORS: when Kafka refused one of them, or one of another request of the same write; TimeoutError when
                a call of the write has waited for longer than its patience, or the connection was given up.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append(_Call(records, done, loop.time() + patience_seconds))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await done

    def abandon(self) -> None:
        """Stop sending; the calls that wait fail."""
        calls = [*self._under_way, *self._waiting]
        self._waiting.clear()
        if self._writing is not None:
            self._writing.cancel()
        _end(calls, TimeoutError())

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = [call for call in self._waiting if not call.done.done()], []
                self._under_way = group
                if not group:
                    continue
                error: Exception | None = None
                try:
                    async with asyncio.timeout_at(min(call.deadline for call in group)):
                        await self._writer.write([record for call in group for record in call.records])
                except Exception as exc:  # every caller must hear of it, whatever it is
                    error = exc
                _end(group, error)
        finally:
            self._writing = None


def _end(calls: Sequence[_Call], error: Exception | None) -> None:
    for call in calls:
        if call.done.done():
            continue
        if error is None:
            call.done.set_result(None)
        else:
            call.done.set_exception(_copy(error))


def _copy(exc: Exception) -> Exception:
    # One exception in many futures would gather all their tracebacks.
    return type(exc)(*exc.args) if isinstance(exc, KAFKA_ERRORS) else exc
