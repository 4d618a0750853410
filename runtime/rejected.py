"""Rejected records: how each is written to `ticks.rejected` or `candles.rejected`, and read again.

A rejected record holds the key and the value of the input as they came, and says the rest in headers:

| header | says |
| --- | --- |
| `reason` | why it was rejected, cut to 1,000 characters |
| `topic`, `partition`, `offset` | where it was; `http`, -1 and the number of the item for what came over HTTP |
| `absent` | `key`: the input had none, although an empty one is stored (Kafka's clients send no record without both) |
| `dropped` | `value`, or `key value`: what was not stored, because the record would outgrow the topic |
| `size` | bytes of the input's key and value, or of the item, when not all of them were stored |
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Final, NamedTuple, Self

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import BrokerResponseError
from prometheus_client import Counter

from marketdata.errors import (
    KafkaRefused,
    KafkaUnavailable,
    NotAuthorized,
    RecordTooLarge,
    TickpipeError,
    UnknownTopic,
)
from marketdata.runs import Record
from runtime.aiokafka_internals import discard_producer
from runtime.kafka import new_producer
from runtime.kafka_errors import KAFKA_ERRORS, NOT_AUTHORIZED, TOO_LARGE, kafka_errors
from runtime.settings import Settings
from runtime.telemetry import trace_id_of
from runtime.topics import ensure_topics

log = structlog.get_logger(__name__)

#: A reason is for people; a database can quote a megabyte (characters).
REASON_CHARACTERS: Final = 1_000

#: The header `topic` of what came over HTTP, and the header `offset` of a body without items.
HTTP: Final = "http"
WHOLE_BODY: Final = -1

#: Of a record that outgrows the topic only this much of the reason (characters) and of the key (bytes) is stored.
_BRIEF_REASON_CHARACTERS: Final = 200
_BRIEF_KEY_BYTES: Final = 200

#: aiokafka looks for a topic that does not exist until this is over; after the shorter wait it is created (seconds).
_REQUEST_TIMEOUT_SECONDS: Final = 10.0
_TOPIC_TIMEOUT_SECONDS: Final = 1.0

#: One in a process, whoever writes; each service registers it with its metrics.
REJECTS_LOST: Final = Counter(
    "tickpipe_rejects_lost", "Rejected records that Kafka refused to store as well.", registry=None
)

#: Records that are sent together, and the batch that they fill (bytes): aiokafka wakes everybody who waits for a batch
#: whenever one was sent, so 5,000 at once in its batches of 16 KB take 6.8 s.
_RECORDS_AT_ONCE: Final = 500
_BATCH_BYTES: Final = 256 * 1024

#: Causes of a refusal that trying again does not change.
_WORD_OF_A_BROKER: Final = (BrokerResponseError, *TOO_LARGE, *NOT_AUTHORIZED)


class Which(StrEnum):
    """A topic of rejected records, by the name of what was rejected."""

    TICKS = "ticks"
    CANDLES = "candles"

    def topic(self, settings: Settings) -> str:
        """Its name in Kafka."""
        return settings.ticks_rejected_topic if self is Which.TICKS else settings.candles_rejected_topic


class Rejected(NamedTuple):
    """A record that cannot be used, where it is, and why."""

    topic: str
    partition: int
    record: Record
    reason: str

    @property
    def size_bytes(self) -> int:
        """Bytes of its key and value."""
        return len(self.record.key or b"") + len(self.record.value or b"")


class Stored(NamedTuple):
    """A record as it is stored."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    #: UTC epoch milliseconds; None for now.
    timestamp_ms: int | None = None


def headers_of(reason: str, topic: str, partition: int, offset: int) -> list[tuple[str, bytes]]:
    """The headers that every rejected record has."""
    # A reason may quote half a surrogate pair, which UTF-8 cannot say.
    cut = reason if len(reason) <= REASON_CHARACTERS else f"{reason[: REASON_CHARACTERS - 1]}…"
    return [
        ("reason", cut.encode("utf-8", "replace")),
        ("topic", topic.encode()),
        ("partition", str(partition).encode()),
        ("offset", str(offset).encode()),
    ]


def size_header(size_bytes: int) -> tuple[str, bytes]:
    """The header of a record that was not stored whole."""
    return "size", str(size_bytes).encode()


def whole(rejected: Rejected) -> Stored:
    """The record as it came."""
    key, value = rejected.record.key, rejected.record.value
    headers = headers_of(rejected.reason, rejected.topic, rejected.partition, rejected.record.offset)
    if key is None and value is None:
        return Stored(b"", None, [*headers, ("absent", b"key")])
    return Stored(key, value, headers)


def brief(rejected: Rejected) -> Stored:
    """Its place and size, for a record that outgrows the topic; the log that it came from has the rest."""
    key = rejected.record.key
    reason = rejected.reason[:_BRIEF_REASON_CHARACTERS]
    headers = headers_of(reason, rejected.topic, rejected.partition, rejected.record.offset)
    headers.append(size_header(rejected.size_bytes))
    if key is None:
        return Stored(b"", None, [*headers, ("absent", b"key"), ("dropped", b"value")])
    if len(key) > _BRIEF_KEY_BYTES:
        return Stored(b"", None, [*headers, ("dropped", b"key value")])
    return Stored(key, None, [*headers, ("dropped", b"value")])


def without_value(item: Stored) -> Stored:
    """Its headers and size, for an item that outgrows the topic."""
    return item._replace(
        value=None, headers=[*item.headers, size_header(len(item.value or b"")), ("dropped", b"value")]
    )


class _ProducerFailed(KafkaUnavailable):
    """The producer has failed, not the record; the next call has a new one."""


class RejectedWriter:
    """Writes to one topic of rejected records, connected at the first use; `async with RejectedWriter(…) as writer`.

    Its producer is its own: what a rejected record meets there holds up nothing but rejected records.
    """

    def __init__(self, settings: Settings, which: Which) -> None:
        self._settings = settings
        self._topic = which.topic(settings)
        self._producer: AIOKafkaProducer | None = None
        self._writing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Disconnect; what is not confirmed was never reported as stored."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(*KAFKA_ERRORS):
                await discard_producer(producer)

    async def write(self, rejected: Sequence[Rejected]) -> None:
        """Return when each record is confirmed, or refused for good, which is logged with its place and size.

        A record that outgrows the topic is stored without its value. A topic that does not exist is created.

        Raises:
            KafkaUnavailable, UnknownTopic: when at least one can be stored later only; all may be handed over again,
                which at worst stores some of them twice.
        """
        await self._write([(whole(one), brief(one)) for one in rejected])

    async def write_items(self, items: Sequence[Stored]) -> None:
        """Like `write`, for items of HTTP bodies, which are in no log: see `headers_of`."""
        await self._write([(item, without_value(item)) for item in items])

    async def _write(self, forms: Sequence[tuple[Stored, Stored]]) -> None:
        if not forms:
            return
        async with self._writing:
            await self._connect()
            if (refusal := await self._refusal_of_topic()) is not None:
                for stored, _ in forms:
                    _log_loss(stored, refusal)
                return
            for start in range(0, len(forms), _RECORDS_AT_ONCE):
                await self._write_together(forms[start : start + _RECORDS_AT_ONCE])

    async def _write_together(self, forms: Sequence[tuple[Stored, Stored]]) -> None:
        # They fill batches; a batch that is too large takes others with it, so each goes alone then.
        outcomes = await asyncio.gather(*(self._send(stored) for stored, _ in forms), return_exceptions=True)
        failure: TickpipeError | None = None
        for one, outcome in zip(forms, outcomes, strict=True):
            error = await self._write_alone(one) if isinstance(outcome, RecordTooLarge) else outcome
            if isinstance(error, TickpipeError) and error.retriable:
                failure = error
            elif isinstance(error, KafkaRefused) and isinstance(error.__cause__, _WORD_OF_A_BROKER):
                _log_loss(one[0], error)
            elif isinstance(error, KafkaRefused):
                failure = _ProducerFailed(str(error))
            elif error is not None:
                raise error
        if isinstance(failure, _ProducerFailed):
            await self.stop()
        if failure is not None:
            raise failure

    async def _write_alone(self, forms: tuple[Stored, Stored]) -> TickpipeError | None:
        """The error because of which it was not stored, whole or brief."""
        refusal: TickpipeError | None = None
        for form in forms:
            try:
                await self._send(form)
            except RecordTooLarge as exc:
                refusal = exc
            except TickpipeError as exc:
                return exc
            else:
                return None
        return refusal

    async def _send(self, stored: Stored) -> None:
        assert self._producer is not None  # noqa: S101 - `_write` connects
        with kafka_errors(self._settings, topic=self._topic, right="WRITE"):
            await self._producer.send_and_wait(
                self._topic, stored.value, key=stored.key, timestamp_ms=stored.timestamp_ms, headers=stored.headers
            )

    async def _refusal_of_topic(self) -> KafkaRefused | None:
        """Why the topic can be neither found nor created, None when it is there."""
        assert self._producer is not None  # noqa: S101 - `_write` connects
        try:
            async with asyncio.timeout(_TOPIC_TIMEOUT_SECONDS):
                with kafka_errors(self._settings, topic=self._topic, right="WRITE"):
                    await self._producer.partitions_for(self._topic)
        except NotAuthorized as exc:
            return exc
        except TimeoutError:
            try:
                await ensure_topics(self._settings, begins_log=False)
            except UnknownTopic:
                raise
            except KafkaRefused as exc:
                return exc
        return None

    async def _connect(self) -> None:
        if self._producer is not None:
            return
        # A failed batch of an idempotent producer blocks its partition for good; a record stored twice harms nobody.
        producer = new_producer(
            self._settings,
            enable_idempotence=False,
            request_timeout_ms=int(_REQUEST_TIMEOUT_SECONDS * 1000),
            compression_type="lz4",
            max_batch_size=_BATCH_BYTES,
        )
        try:
            with kafka_errors(self._settings):
                await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer


def _log_loss(stored: Stored, exc: TickpipeError) -> None:
    REJECTS_LOST.inc()
    said = {name: value.decode("utf-8", "replace") for name, value in stored.headers}
    log.error(
        "A rejected record cannot be stored. What came from a topic is still there, as long as that topic retains it.",
        action="reject_lost", error=str(exc), reason=said["reason"], topic=said["topic"], partition=said["partition"],
        offset=said["offset"], size_bytes=len(stored.key or b"") + len(stored.value or b""),
        trace_id=trace_id_of(stored.headers),
    )  # fmt: skip


@dataclass(frozen=True)
class RejectedRecord:
    """A record of a topic of rejected records, as it is read."""

    which: Which
    partition: int
    offset: int
    #: When it was rejected, or received (UTC epoch milliseconds).
    timestamp: int
    #: The input's own; None when it had none, or when it was not stored: see `dropped`.
    key: bytes | None
    value: bytes | None
    headers: dict[str, str]

    @classmethod
    def of(cls, which: Which, partition: int, record: Record) -> Self:
        """From the record that was read."""
        headers = {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}
        absent = {*headers.get("absent", "").split(), *headers.get("dropped", "").split()}
        key = None if "key" in absent else record.key
        return cls(which, partition, record.offset, record.timestamp, key, record.value, headers)

    @property
    def name(self) -> str:
        """What the user calls it."""
        return f"{self.which} {self.partition} {self.offset}"

    @property
    def reason(self) -> str:
        """Why it was rejected."""
        return self.headers.get("reason", "")

    @property
    def is_whole(self) -> bool:
        """Whether all of the input was stored."""
        return "size" not in self.headers

    @property
    def size_bytes(self) -> int:
        """Bytes of the input's key and value, or of the item, stored or not."""
        text = self.headers.get("size", "")
        if text.isdecimal():
            return int(text)
        # The key of an item is the source that it was sent for.
        return len(self.value or b"") + (0 if self.is_from_http else len(self.key or b""))

    @property
    def is_from_http(self) -> bool:
        """Whether it is an item, or a whole body, that the producer was sent."""
        return self.headers.get("topic") == HTTP

    @property
    def index(self) -> int:
        """Of an item: its number in the body, from 0; -1 is the whole body."""
        text = self.headers.get("offset", "")
        return int(text) if text.lstrip("-").isdecimal() else WHOLE_BODY

    @property
    def source(self) -> str:
        """The source that an item was sent for; empty for others."""
        return self.headers.get("source", "")

    @property
    def origin(self) -> str:
        """Where it came from, in words."""
        if self.is_from_http:
            return f"{'body' if self.index == WHOLE_BODY else f'item {self.index}'} from {self.source or 'unknown'}"
        return "{}-{}@{}".format(*(self.headers.get(name, "?") for name in ("topic", "partition", "offset")))
