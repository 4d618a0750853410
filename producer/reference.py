"""Counts what each sender sent and remembers how its instruments are quoted, and writes both to the topic `reference`.

It is written over a connection of its own: whatever fails there does no harm to ticks.
"""

import asyncio
import secrets
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer

from marketdata.contract.http import Sender
from marketdata.errors import TickpipeError
from marketdata.reference import Instrument, Reference, SenderCount
from marketdata.wire import encode, reference_key
from producer.connection import discard_producer
from producer.records import Origin
from runtime import clock
from runtime.kafka import new_producer
from runtime.kafka_errors import kafka_errors
from runtime.settings import Settings

#: A sender, and an instrument, is written at most this often (milliseconds).
_PAUSE_MS: Final = 10_000

#: Senders that are counted at once: whoever has a key may invent names (entries).
_MAX_SENDERS: Final = 1_000

#: Instruments whose point is remembered (entries).
_MAX_INSTRUMENTS: Final = 50_000


class _Count:
    """The count of one sender."""

    __slots__ = ("bars", "counter", "due_ms", "first_ms", "is_changed", "last_ms", "late_ticks", "ticks")

    def __init__(self, first_ms: int) -> None:
        #: Unlike that of any other count, so that the database can add them up.
        self.counter: Final = secrets.token_hex(8)
        self.first_ms: Final = first_ms
        self.last_ms = first_ms
        self.ticks = 0
        self.bars = 0
        self.late_ticks = 0
        #: Whether there is more than Kafka has confirmed, and from when on it is written (UTC epoch milliseconds).
        self.is_changed = True
        self.due_ms = 0


_Key = tuple[str, Sender, str]


class ReferenceData:
    """What one producer knows of its senders and their instruments."""

    def __init__(self) -> None:
        #: By source, sender and address.
        self._counts: dict[_Key, _Count] = {}
        self._points: dict[tuple[str, str], float] = {}
        #: Instruments that are not confirmed by Kafka yet.
        self._unwritten: dict[tuple[str, str], Instrument] = {}

    def count(self, origin: Origin, ticks: int, bars: int, late_ticks: int = 0) -> None:
        """Count what a request brought; `late_ticks` are among its ticks."""
        key = (origin.source, origin.sender, origin.address)
        count = self._counts.get(key)
        if count is None:
            if len(self._counts) >= _MAX_SENDERS:
                # What the one that has been silent for longest brought since it was written last is lost.
                del self._counts[min(self._counts, key=lambda known: self._counts[known].last_ms)]
            count = self._counts[key] = _Count(origin.received_ms)
        count.last_ms = origin.received_ms
        count.ticks += ticks
        count.bars += bars
        count.late_ticks += late_ticks
        count.is_changed = True

    def quoted(self, source: str, symbol: str, point: float, received_ms: int) -> None:
        """Note the size of a point that a sender says."""
        key = (source, symbol)
        known = self._points.get(key)
        if known == point or (known is None and len(self._points) >= _MAX_INSTRUMENTS):
            return
        self._points[key] = point
        self._unwritten[key] = Instrument(source=source, symbol=symbol, point=point, received=received_ms)

    def changed(self, now_ms: int | None = None) -> list[Reference]:
        """What is due at `now_ms` (UTC epoch milliseconds); without it, everything that is not written yet."""
        return [
            *(
                _record(key, count)
                for key, count in self._counts.items()
                if count.is_changed and (now_ms is None or now_ms >= count.due_ms)
            ),
            *self._unwritten.values(),
        ]

    def confirmed(self, records: Iterable[Reference], now_ms: int) -> None:
        """Kafka has these records of `changed`."""
        for record in records:
            if isinstance(record, Instrument):
                instrument = (record.source, record.symbol)
                if self._unwritten.get(instrument) is record:
                    del self._unwritten[instrument]
                continue
            sender = Sender(record.server, record.account, record.build, record.ea, record.version)
            key = (record.source, sender, record.address)
            count = self._counts.get(key)
            if count is not None and count.counter == record.counter:
                count.is_changed = _record(key, count) != record
                count.due_ms = now_ms + _PAUSE_MS


def _record(key: _Key, count: _Count) -> SenderCount:
    source, sender, address = key
    return SenderCount(
        source=source, **sender._asdict(), address=address, counter=count.counter,
        first_seen=count.first_ms, last_seen=count.last_ms, ticks=count.ticks, bars=count.bars,
        late_ticks=count.late_ticks,
    )  # fmt: skip


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
