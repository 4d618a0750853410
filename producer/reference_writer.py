"""Writes reference data to its topic, over a connection of its own: whatever fails here does no harm to ticks."""

import asyncio
from contextlib import suppress
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer

from marketdata.errors import TickpipeError
from marketdata.wire import encode, reference_key
from producer.connection import discard_producer
from producer.reference import ReferenceData
from runtime import clock
from runtime.kafka import new_producer
from runtime.kafka_errors import kafka_errors
from runtime.settings import Settings

log = structlog.get_logger(__name__)

#: A sender that was never seen before shows within about so long (seconds).
_LOOK_SECONDS: Final = 1.0

#: Kafka confirms in milliseconds; what it does not confirm in time is written again (seconds).
_CONFIRM_SECONDS: Final = 5.0

#: The pause while Kafka is away, and after any other failure (seconds).
_RETRY_SECONDS: Final = 10.0
_FAILED_SECONDS: Final = 60.0

#: What was counted last is written at the end of the process, unless Kafka is away (seconds).
_LAST_WRITE_SECONDS: Final = 2.0


class ReferenceWriter:
    """Writes what changed, every second, until cancelled."""

    def __init__(self, settings: Settings, data: ReferenceData) -> None:
        self._settings = settings
        self._data = data
        self._producer: AIOKafkaProducer | None = None

    async def run(self) -> None:
        """Write until cancelled; then write once more, and close the connection."""
        try:
            while True:
                pause_seconds = _LOOK_SECONDS
                try:
                    await self._write(clock.now_ms(), _CONFIRM_SECONDS)
                except Exception as exc:  # whatever it is, the producer can do its work without
                    pause_seconds = _pause_after(exc)
                await asyncio.sleep(pause_seconds)
        finally:
            with suppress(Exception):
                await self._write(None, _LAST_WRITE_SECONDS)
            await self._disconnect()

    async def _write(self, due_ms: int | None, timeout_seconds: float) -> None:
        records = self._data.changed(due_ms)
        if not records:
            return
        topic = self._settings.reference_topic
        try:
            with kafka_errors(self._settings, topic=topic, right="WRITE"):
                async with asyncio.timeout(timeout_seconds):
                    producer = await self._connected()
                    sending = (
                        producer.send_and_wait(topic, encode(record), key=reference_key(record)) for record in records
                    )
                    # All of them end before the connection is given up: what waits on it then waits for ever.
                    for outcome in await asyncio.gather(*sending, return_exceptions=True):
                        if isinstance(outcome, BaseException):
                            raise outcome
        except BaseException:
            await self._disconnect()
            raise
        self._data.confirmed(records, clock.now_ms())

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            # A failed batch of an idempotent producer blocks its partition for good; a record may be written twice.
            self._producer = new_producer(
                self._settings, enable_idempotence=False, request_timeout_ms=int(_CONFIRM_SECONDS * 1000)
            )
            await self._producer.start()
        return self._producer

    async def _disconnect(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await discard_producer(producer)


def _pause_after(exc: Exception) -> float:
    """Log the failure; how long to wait before the next try (seconds)."""
    if isinstance(exc, TickpipeError) and exc.retriable:
        # While Kafka is away the publisher says so.
        log.debug("Reference data is not written yet.", action="reference_wait", error=str(exc))
        return _RETRY_SECONDS
    log.warning(
        "Who sends cannot be written; ticks are taken all the same.",
        action="reference_failed", error=str(exc) or type(exc).__name__, exc_info=not isinstance(exc, TickpipeError),
    )  # fmt: skip
    return _FAILED_SECONDS
