"""Sends candles and rejected records to Kafka and waits until they are confirmed."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer

from marketdata.candle import Candle
from marketdata.wire import candle_key, encode
from runtime.kafka import new_producer
from runtime.kafka_errors import kafka_errors
from runtime.metrics import Headers
from runtime.rejected import Rejected, RejectedWriter, Which
from runtime.settings import Settings
from runtime.telemetry import Span

#: A round that takes longer is tried again; a restarted broker needs some seconds (seconds).
CONFIRM_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Outgoing:
    """A candle, and the headers of its record."""

    candle: Candle
    headers: Headers = ()
    #: When its newest ticks were received (UTC epoch milliseconds); None when it is not to be timed.
    received_ms: int | None = None
    #: To be ended when the broker has confirmed it.
    span: Span | None = None


class Emitter:
    """Sends to the candles topic and to `ticks.rejected`.

    Not idempotent on purpose: a candle sent twice, or after a newer one, changes nothing downstream, and a producer
    without sequence numbers has no state that a broker's failure could spoil.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._rejected = RejectedWriter(settings, Which.TICKS)

    async def start(self) -> None:
        """Connect; the broker is known to be there."""
        self._producer = new_producer(
            self._settings, enable_idempotence=False, compression_type="lz4", max_batch_size=128 * 1024
        )
        await self._producer.start()

    async def stop(self) -> None:
        """Disconnect, after what is on its way was sent or has failed."""
        await self._rejected.stop()
        if self._producer is not None:
            await self._producer.stop()

    async def emit(self, candles: Sequence[Outgoing]) -> None:
        """Send all of them and wait until the broker has confirmed every one.

        Raises:
            KafkaUnavailable, KafkaRefused: when it did not; all must then be sent again.
        """
        if self._producer is None:
            raise RuntimeError("the emitter was not started")
        producer, topic = self._producer, self._settings.candles_topic
        with kafka_errors(self._settings, topic=topic):
            async with asyncio.timeout(CONFIRM_TIMEOUT_SECONDS):
                futures = [
                    await producer.send(
                        topic,
                        encode(outgoing.candle),
                        key=candle_key(outgoing.candle),
                        timestamp_ms=outgoing.candle.emitted,
                        headers=outgoing.headers,
                    )
                    for outgoing in candles
                ]
                await asyncio.gather(*futures)

    async def keep(self, rejected: Sequence[Rejected]) -> None:
        """Write to `ticks.rejected`; see `RejectedWriter.keep`."""
        await self._rejected.keep(rejected)
