"""Reads the topics of rejected records and decides how a record can be sent again."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from marketdata.contract.fields import is_bar
from marketdata.contract.tick import read_tick
from marketdata.contract.times import Clock
from marketdata.errors import InvalidFrame, InvalidItem, TickpipeError
from marketdata.tick import DAY_MS
from marketdata.wire import bar_key, candle_key, decode_frame, frame_key, reference_key
from runtime import clock
from runtime.kafka import admin_client, new_producer
from runtime.kafka_errors import kafka_errors
from runtime.logreader import LogReader
from runtime.rejected import WHOLE_BODY, Rejected, RejectedRecord, Which
from runtime.settings import Settings
from sink.batch import Incoming, incoming_bars, incoming_candles, incoming_reference, incoming_reports


class NoSuchRecord(TickpipeError):
    """The topic of rejected records has no such partition or offset; `tickpipe rejected list` shows what is there."""


def payload_text(value: bytes | None) -> str:
    """A value as readable text: JSON indented, text as it is, anything else as Python writes bytes."""
    if value is None:
        return "(no value)"
    try:
        return json.dumps(json.loads(value), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        pass
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return repr(value)[2:-1]
    # Control sequences in what somebody posted must not reach the terminal.
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


class RejectedTopics:
    """Both topics, opened for reading; use it as `async with RejectedTopics(settings) as topics`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reader = LogReader(settings)

    async def __aenter__(self) -> Self:
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._reader.__aexit__(*exc_info)

    async def newest(self, which: Sequence[Which], limit: int) -> list[RejectedRecord]:
        """The newest records of all these topics, oldest first.

        Raises:
            KafkaUnavailable: when no broker answers.
        """
        found: list[RejectedRecord] = []
        for one in which:
            for partition, (first, end) in (await self._ends(one)).items():
                found += [r async for r in self._read(one, partition, max(first, end - limit), end)]
                found = sorted(found, key=lambda r: (r.timestamp, r.which, r.partition, r.offset))[-limit:]
        return found

    async def all(self, which: Sequence[Which]) -> AsyncIterator[RejectedRecord]:
        """Every record that is stored now, partition by partition.

        Raises:
            KafkaUnavailable: when no broker answers.
        """
        ends = {one: await self._ends(one) for one in which}
        for one, partitions in ends.items():
            for partition, (first, end) in partitions.items():
                async for record in self._read(one, partition, first, end):
                    yield record

    async def one(self, which: Which, partition: int, offset: int) -> RejectedRecord:
        """The record at that offset.

        Raises:
            NoSuchRecord: when there is none.
            KafkaUnavailable: when no broker answers.
        """
        first, end = (await self._ends(which)).get(partition, (0, 0))
        if first <= offset < end:
            async for record in self._read(which, partition, offset, offset + 1):
                return record
        raise NoSuchRecord(
            f"{which.topic(self._settings)} has no record at offset {offset} of partition {partition}"
            f" ({f'it has {first} to {end - 1}' if end > first else 'which is empty'}); see `tickpipe rejected list`"
        )

    async def delete(self, which: Which, ends: Mapping[int, int]) -> int:
        """Delete every record before the offset in `ends` of its partition; return how many offsets that were.

        Raises:
            KafkaUnavailable, KafkaRefused: when they are not all deleted; the call can be repeated.
        """
        topic, present = which.topic(self._settings), await self._ends(which)
        until = {
            TopicPartition(topic, partition): RecordsToDelete(before_offset=end)
            for partition, end in ends.items()
            if present[partition][0] < end
        }
        if until:
            async with admin_client(self._settings) as client:
                with kafka_errors(self._settings, topic=topic, right="DELETE"):
                    await client.delete_records(until)
        return sum(records.before_offset - present[tp.partition][0] for tp, records in until.items())

    async def ends(self, which: Which) -> dict[int, int]:
        """The next offset of each partition.

        Raises:
            KafkaUnavailable: when no broker answers.
        """
        return {partition: end for partition, (_, end) in (await self._ends(which)).items()}

    async def _ends(self, which: Which) -> dict[int, tuple[int, int]]:
        topic = which.topic(self._settings)
        return {
            partition: await self._reader.ends(topic, partition) for partition in await self._reader.partitions(topic)
        }

    async def _read(self, which: Which, partition: int, first: int, end: int) -> AsyncIterator[RejectedRecord]:
        async for records in self._reader.read(which.topic(self._settings), partition, first, end - 1):
            for record in records:
                yield RejectedRecord.of(which, partition, record)


@dataclass(frozen=True)
class Post:
    """The record is posted to the producer again, as a request of its own."""

    path: str
    body: bytes
    source: str


@dataclass(frozen=True)
class Produce:
    """The record is written to its topic again, unchanged."""

    topic: str
    key: bytes
    value: bytes
    #: UTC epoch milliseconds; None is the time of sending.
    timestamp: int | None = None


@dataclass(frozen=True)
class Unusable:
    """The record would only be rejected again, for the reason `why`."""

    why: str


_Reader = Callable[[TopicPartition, Sequence[Any]], tuple[list[Incoming], list[Rejected]]]


def resend_of(record: RejectedRecord, settings: Settings, *, now_ms: int | None = None) -> Post | Produce | Unusable:
    """How the record can be sent again; what this version finds decides, not the old reason."""
    now_ms = clock.now_ms() if now_ms is None else now_ms
    if record.value is None:
        lost = "it has no value" if record.is_whole else f"none of its {record.size_bytes:,} bytes were stored"
        return Unusable(f"{lost}; the original is {record.origin}")
    if record.is_from_http:
        return _post_of(record, record.value, now_ms)
    topic = record.headers.get("topic", "")
    if topic == settings.ticks_topic:
        return _frame_of(record.value, topic, now_ms)
    readers: dict[str, tuple[_Reader, Callable[[Any], bytes]]] = {
        settings.candles_topic: (incoming_candles, candle_key),
        settings.broker_candles_topic: (incoming_bars, bar_key),
        settings.reference_topic: (incoming_reference, reference_key),
        settings.fills_topic: (incoming_reports, lambda report: frame_key(report.source, report.symbol)),
    }
    if topic in readers:
        read, key_of = readers[topic]
        # The partition does not matter here, and foreign headers may not name it.
        good, bad = read(TopicPartition(topic, 0), [record])
        return Unusable(bad[0].reason) if bad else Produce(topic, key_of(good[0].value), record.value)
    return Unusable(f"it came from {topic!r}, which is no topic of this pipeline")


def _post_of(record: RejectedRecord, value: bytes, now_ms: int) -> Post | Unusable:
    if not record.is_whole:
        return Unusable(f"only its first {len(value) // 1024} KB were stored; let its sender send it again")
    try:
        item = json.loads(value)
    except (ValueError, RecursionError) as exc:
        return Unusable(f"it is no JSON: {exc}")
    if record.index == WHOLE_BODY:
        return Post("/ingest/tick", value, record.source)
    if is_bar(item):
        return Post("/ingest", b'{"items":[' + value + b"]}", record.source)
    try:
        # The producer knows the zone of the source and decides; a day of tolerance covers every zone.
        Clock(None, now_ms + DAY_MS).utc_ms(read_tick(item).time)
    except InvalidItem as exc:
        return Unusable(f"{exc.field}: {exc.message}" if exc.field else exc.message)
    return Post("/ingest/tick", b'{"ticks":[' + value + b"]}", record.source)


def _frame_of(value: bytes, topic: str, now_ms: int) -> Produce | Unusable:
    try:
        frame = decode_frame(value)
    except InvalidFrame as exc:
        return Unusable(str(exc))
    # By the frame's own key, whatever the sender's was: one source and symbol lives in one partition. The timestamp is
    # the producer's: the first tick's time, never ahead.
    key = frame_key(frame.source, frame.symbol)
    return Produce(topic, key, value, min(frame.ticks[0].time_msc, now_ms))


class Resender:
    """Writes records to their topics again; use it as `async with Resender(settings) as resender`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer = new_producer(settings)

    async def __aenter__(self) -> Self:
        try:
            with kafka_errors(self._settings):
                await self._producer.start()
        except BaseException:
            await self._producer.stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._producer.stop()

    async def produce(self, one: Produce) -> None:
        """Return when Kafka has confirmed the record.

        Raises:
            KafkaUnavailable, KafkaRefused: when it did not; sending it again is harmless.
        """
        with kafka_errors(self._settings, topic=one.topic, right="WRITE"):
            await self._producer.send_and_wait(one.topic, one.value, key=one.key, timestamp_ms=one.timestamp)
