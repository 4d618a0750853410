"""One connection to Kafka for publishing, opened and given up as a whole.

aiokafka 0.14 cannot be brought back after a failure. An idempotent producer counts its records, and a batch that it
gives up leaves a gap in the count, after which the broker refuses the partition for ever (OutOfOrderSequenceNumber).
A batch that is not given up is sent again without end, holds its memory meanwhile, and `stop()` waits for it. So a
producer that failed once is thrown away with what it holds: those requests are answered 503 and come again, and the
fold counts a tick that came twice once.
"""

import asyncio
from contextlib import suppress

import structlog
from aiokafka import AIOKafkaProducer

from runtime import aiokafka_internals
from runtime.kafka import ensure_topics, new_producer
from runtime.kafka_errors import KAFKA_ERRORS, kafka_errors
from runtime.settings import Settings

log = structlog.get_logger(__name__)

#: Small batches would wait for each other: aiokafka has one in flight for each partition. Below Kafka's default
#: limit of a batch, which `candles.broker` has; a larger record goes alone (bytes).
_BATCH_BYTES = 900_000

#: Topics, first metadata, producer id: seconds on a broker that just started; a broker that hangs must not hold us.
_OPEN_TIMEOUT_SECONDS = 15.0

#: At the end of the process everything is confirmed already, unless the broker is gone (seconds).
_FLUSH_TIMEOUT_SECONDS = 5.0


async def open_producer(settings: Settings) -> AIOKafkaProducer:
    """A producer that knows the partitions of every topic it writes to; topics that are missing are created.

    Raises:
        KafkaUnavailable, KafkaRefused: when the broker does not answer or refuses.
    """
    with kafka_errors(settings):
        async with asyncio.timeout(_OPEN_TIMEOUT_SECONDS):
            return await _open(settings)


async def _open(settings: Settings) -> AIOKafkaProducer:
    await ensure_topics(settings)
    producer = new_producer(
        settings,
        max_batch_size=_BATCH_BYTES,
        # The log is kept for ever: in requests of 200 ticks each takes 10 bytes of it, plain it would be 43.
        compression_type="lz4",
        request_timeout_ms=max(1000, int(settings.confirm_timeout_seconds * 1000)),
    )
    try:
        await producer.start()
        for topic in (settings.ticks_topic, settings.broker_candles_topic):
            await producer.partitions_for(topic)
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
