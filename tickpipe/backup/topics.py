"""Dumps the topics into an archive and restores them at the offsets that candles name as their proof."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from marketdata.errors import InvalidCandle, TickpipeError
from marketdata.wire import decode_candle, encode
from runtime.kafka import admin_client, log_ends, new_producer
from runtime.kafka_errors import kafka_errors
from runtime.logreader import LogReader
from runtime.settings import Settings
from tickpipe.backup.archive import ArchiveDamaged, ArchiveWriter, OnProgress, Partition, Topic, partition_member

#: A block is closed at so many records or bytes, whichever comes first.
_BLOCK_RECORDS: Final = 1_000
_BLOCK_BYTES: Final = 1 << 20

#: The longest block that is read: it may be full but for one byte when the largest record comes, and headers count
#: extra (bytes).
_MOST_BLOCK_BYTES: Final = 64 << 20


class LogRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record of a topic."""

    offset: int
    #: UTC epoch milliseconds.
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    @classmethod
    def of(cls, record: Any) -> Self:
        """The same record of aiokafka."""
        return cls(record.offset, record.timestamp, record.key, record.value, tuple(map(tuple, record.headers)))


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[LogRecord])


class BlockWriter:
    """Packs records into blocks; `close` writes the last one."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.records = 0
        self._write = write
        self._block: list[LogRecord] = []
        self._bytes = 0

    def add(self, record: LogRecord) -> None:
        """Append a record to the block."""
        self.records += 1
        self._block.append(record)
        self._bytes += len(record.value or b"")
        if len(self._block) == _BLOCK_RECORDS or self._bytes >= _BLOCK_BYTES:
            self.close()

    def close(self) -> None:
        """Write the open block."""
        if self._block:
            packed = _encoder.encode(self._block)
            self._write(len(packed).to_bytes(4, "big") + packed)
            self._block, self._bytes = [], 0


def read_records(pieces: Iterable[bytes]) -> Iterator[LogRecord]:
    """The records of a member that is handed over in pieces.

    Raises:
        ArchiveDamaged: when the bytes cannot be decoded as blocks.
    """
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) >= 4 and len(waiting) >= (end := 4 + _block_bytes(waiting)):
            try:
                yield from _decoder.decode(bytes(waiting[4:end]))
            except msgspec.MsgspecError as exc:
                raise ArchiveDamaged(f"a block of records cannot be read: {exc}") from exc
            del waiting[:end]
    if waiting:
        raise ArchiveDamaged("the last block of records is cut off")


def _block_bytes(waiting: bytearray) -> int:
    length = int.from_bytes(waiting[:4], "big")
    if length > _MOST_BLOCK_BYTES:
        raise ArchiveDamaged(f"a block of records claims {length:,} bytes; take an earlier backup")
    return length


#: Settings that name the topics, in the order of the flow.
TICKS: Final = "ticks_topic"
CANDLES: Final = "candles_topic"
ROLES: Final = (
    TICKS, CANDLES, "broker_candles_topic", "reference_topic", "fills_topic", "ticks_rejected_topic",
    "candles_rejected_topic",
)  # fmt: skip

#: What the sink reads. Only what it has not stored yet is backed up: the rest is in the database.
SINK_ROLES: Final = (CANDLES, "broker_candles_topic", "reference_topic", "fills_topic")

#: Topics whose records are candles that name their log.
CANDLE_ROLES: Final = frozenset({CANDLES, "candles_rejected_topic"})

#: Records on their way to the broker: enough to fill batches, and some tens of MB (records).
_IN_FLIGHT: Final = 10_000

#: A batch of the restore (bytes).
_BATCH_BYTES: Final = 512 * 1024

#: aiokafka does not send a record that has neither key nor value.
_NO_KEY: Final = b""


class TopicsDiffer(TickpipeError):
    """The topics hold other records than the backup; restore into a Kafka of its own, nothing is ever deleted."""

    is_wrong_use = True


def topic_name(settings: Settings, role: str) -> str:
    """The name of the topic with this role in the settings."""
    return str(getattr(settings, role))


async def dump(
    settings: Settings, archive: ArchiveWriter, starts: dict[str, dict[int, int]], on_progress: OnProgress
) -> list[Topic]:
    """Write the topics into the archive as they are now; of the roles in `starts` only from those offsets on."""
    dumped = []
    async with LogReader(settings) as reader:
        for role in ROLES:
            name = topic_name(settings, role)
            partitions = []
            for partition, (begin, end) in (await log_ends(settings, name)).items():
                first = min(end, max(begin, starts.get(role, {}).get(partition, begin)))
                with archive.member(partition_member(role, partition)) as write:
                    blocks = BlockWriter(write)
                    async for record in records_between(reader, TopicPartition(name, partition), first, end):
                        blocks.add(record)
                        on_progress(1)
                    blocks.close()
                partitions.append(Partition(partition, first, end, blocks.records))
            dumped.append(Topic(role, name, tuple(partitions)))
    return dumped


def expected_log(part: Partition, records: Iterable[LogRecord], *, same_offsets: bool) -> Iterator[LogRecord]:
    """What a partition of a new topic has to hold from offset 0 on.

    With `same_offsets` every record has its old offset. What was before the first, and between two (the markers of a
    transaction), is filled with empty records; they hold no tick. Otherwise the records follow one another.
    """
    offset, timestamp = 0, 0
    for record in records:
        while same_offsets and offset < record.offset:
            yield LogRecord(offset, timestamp, _NO_KEY, None)
            offset += 1
        key = _NO_KEY if record.key is None and record.value is None else record.key
        yield msgspec.structs.replace(record, offset=offset, key=key)
        offset, timestamp = offset + 1, record.timestamp
    while same_offsets and offset < part.end:
        yield LogRecord(offset, timestamp, _NO_KEY, None)
        offset += 1


def of_log(record: LogRecord, logs: tuple[str, str]) -> LogRecord:
    """The record, with the second name of the log where it is a candle of the first."""
    try:
        candle = decode_candle(record.value)
    except InvalidCandle:
        return record
    if candle.log != logs[0]:
        return record
    return msgspec.structs.replace(record, value=encode(msgspec.structs.replace(candle, log=logs[1])))


class TopicRestore:
    """Writes the expected records to a topic; after an interrupted restore it continues behind what is there."""

    def __init__(self, settings: Settings, producer: AIOKafkaProducer, role: str, on_progress: OnProgress) -> None:
        self._settings, self._producer, self._on_progress = settings, producer, on_progress
        self._topic = topic_name(settings, role)
        self._ends: dict[int, tuple[int, int]] = {}

    async def partition(self, part: Partition, expected: Iterator[LogRecord], *, same_offsets: bool) -> bool:
        """Restore a partition; False when it held everything already, and perhaps more.

        Raises:
            TopicsDiffer: when the partition holds something else.
        """
        tp = TopicPartition(self._topic, part.partition)
        self._ends = self._ends or await log_ends(self._settings, self._topic)
        if part.partition not in self._ends:
            raise TopicsDiffer(
                f"{self._topic} has {len(self._ends)} partitions and the backup has more; restore with "
                f"TICKPIPE_KAFKA_PARTITIONS set to their number, into a Kafka without these topics"
            )
        begin, end = self._ends[part.partition]
        await self._compare(tp, begin, end, expected)
        written = await self._write(tp, end, expected)
        if same_offsets and part.first > begin:
            await self._delete_before(tp, part.first)
        return written

    async def _compare(self, tp: TopicPartition, begin: int, end: int, expected: Iterator[LogRecord]) -> None:
        if end == 0:
            return
        async with LogReader(self._settings) as reader:
            found = records_between(reader, tp, begin, end)
            record = await anext(found, None)
            offset = 0
            # A partition whose records were deleted still has its end offset.
            while offset < end:
                wanted = next(expected, None)
                if wanted is None:
                    return  # records were added since
                if record is not None and record.offset == wanted.offset:
                    if (record.key, record.value) != (wanted.key, wanted.value):
                        raise TopicsDiffer(
                            f"offset {wanted.offset} of {tp.topic}-{tp.partition} holds another record than the "
                            "backup; restore into a Kafka of its own, nothing is ever deleted"
                        )
                    record = await anext(found, None)
                elif offset >= begin and wanted.value is not None:
                    raise TopicsDiffer(f"{tp.topic}-{tp.partition} lacks offset {wanted.offset} of the backup")
                self._on_progress(1)
                offset += 1

    async def _write(self, tp: TopicPartition, offset: int, expected: Iterator[LogRecord]) -> bool:
        sent: deque[tuple[int, asyncio.Future[object]]] = deque()
        wrote = False
        for record in expected:
            wrote = True
            if len(sent) == _IN_FLIGHT:
                await self._confirm(tp, sent)
            with kafka_errors(self._settings, topic=tp.topic, right="WRITE"):
                future = await self._producer.send(
                    tp.topic, record.value, key=record.key, partition=tp.partition, timestamp_ms=record.timestamp,
                    headers=list(record.headers),
                )  # fmt: skip
            sent.append((offset, future))
            offset += 1
            self._on_progress(1)
        while sent:
            await self._confirm(tp, sent)
        return wrote

    async def _delete_before(self, tp: TopicPartition, first: int) -> None:
        async with admin_client(self._settings) as client:
            with kafka_errors(self._settings, topic=tp.topic, right="DELETE"):
                await client.delete_records({tp: RecordsToDelete(before_offset=first)})

    async def _confirm(self, tp: TopicPartition, sent: "deque[tuple[int, asyncio.Future[object]]]") -> None:
        offset, future = sent.popleft()
        with kafka_errors(self._settings, topic=tp.topic, right="WRITE"):
            stored_at = getattr(await future, "offset", None)
        if stored_at != offset:
            raise TopicsDiffer(
                f"a record came to offset {stored_at} of {tp.topic}-{tp.partition} instead of {offset}: somebody else "
                "wrote there meanwhile; stop every producer and restore into a new Kafka"
            )


@asynccontextmanager
async def restoring_producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """An idempotent producer: it preserves the order and writes nothing twice."""
    producer = new_producer(settings, linger_ms=20, max_batch_size=_BATCH_BYTES, compression_type="zstd")
    try:
        with kafka_errors(settings):
            await producer.start()
        yield producer
    finally:
        await producer.stop()


async def records_between(reader: LogReader, tp: TopicPartition, first: int, end: int) -> AsyncIterator[LogRecord]:
    """The records from offset `first` up to, not including, `end`."""
    async for records in reader.read(tp.topic, tp.partition, first, end - 1):
        for record in records:
            yield LogRecord.of(record)
