"""Reads ranges of offsets of any topic without a consumer group, and names the log that offsets belong to.

A topic that is deleted and re-created under its name has a new id (Kafka 3.1 and later tell it), which is part of the
name of the log, so the offsets of the old one are never taken for offsets of the new.
"""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, Self

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import OffsetOutOfRangeError, TopicAuthorizationFailedError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, stop_never, wait_fixed
from tenacity.stop import stop_base

from marketdata.errors import KafkaUnavailable, LogTruncated, UnknownTopic
from marketdata.runs import Record
from runtime.aiokafka_internals import hand_out_bare_records, partitions_of, send_request
from runtime.kafka import SharedAdmin, admin_client, log_ends, new_consumer, why_missing
from runtime.kafka_errors import kafka_errors
from runtime.kafka_protocol import NO_ID, NOT_SUPPORTED, MetadataRequest
from runtime.rights import Service
from runtime.settings import Settings
from runtime.topics import wait_for_kafka


async def wait_for_log(
    settings: Settings,
    *,
    service: Service | None = None,
    begins_log: bool = True,
    timeout_seconds: float | None = None,
) -> str:
    """Wait until a broker answers and every topic exists; the name of the log, see `own_log`.

    For a service, and without `begins_log`, no topic is created while that of the ticks is missing.

    Raises:
        NotAuthorized: when the user lacks a right that `service` cannot work without.
        KafkaUnavailable: after `timeout_seconds`; without it the wait has no end.
    """
    stop: stop_base = stop_never if timeout_seconds is None else stop_after_delay(timeout_seconds)
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(KafkaUnavailable), wait=wait_fixed(1), stop=stop, reraise=True
    ):
        with attempt:
            begins_log = begins_log and service is None
            await wait_for_kafka(settings, service=service, begins_log=begins_log, timeout_seconds=timeout_seconds)
            return await own_log(settings)
    raise AssertionError("unreachable: tenacity returns or raises")


async def own_log(settings: Settings, shared: AIOKafkaAdminClient | None = None) -> str:
    """The name of the log of ticks, as candles carry it; see `log_name`.

    Raises:
        KafkaUnavailable: when no broker answers, or the topic is not there at the moment.
    """
    return await log_name(settings, settings.ticks_topic, shared)


async def log_name(settings: Settings, topic: str, shared: AIOKafkaAdminClient | None = None) -> str:
    """`<cluster id>/<topic>/<topic id>`; the id is written as Kafka's tools do. Asked over `shared`, if it is given.

    A broker that gives topics no ids leaves the last part out.

    Raises:
        KafkaUnavailable: when no broker answers, or the topic is not there at the moment.
    """
    async with admin_client(settings, shared) as client:
        with kafka_errors(settings, topic=topic, right="DESCRIBE"):
            try:
                answer = await send_request(client, MetadataRequest([topic]))
            except NOT_SUPPORTED:
                return f"{(await client.describe_cluster())['cluster_id']}/{topic}"
    [(error_code, _, topic_id, *_)] = answer.topics
    if error_code:
        raise KafkaUnavailable(f"the topic {topic} is not there (error {error_code}); is it being re-created?")
    if topic_id == NO_ID:
        return f"{answer.cluster_id}/{topic}"
    return f"{answer.cluster_id}/{topic}/{base64.urlsafe_b64encode(topic_id).decode().rstrip('=')}"


async def changed_records(
    settings: Settings, client: AIOKafkaAdminClient, topic: str, known: Mapping[int, Record]
) -> list[int]:
    """The partitions whose log no longer has the known record at its offset; one deleted from the beginning counts not.

    Raises:
        KafkaUnavailable: when no broker answers.
        UnknownTopic: when there is no such topic at the moment.
    """
    if not known:
        return []
    ends = await log_ends(settings, topic, client)
    changed = []
    with kafka_errors(settings, topic=topic, right="READ"):
        (described,) = await client.describe_topics([topic])
        leaders = {each["partition"]: each["leader"] for each in described["partitions"]}
        for partition, record in sorted(known.items()):
            first, end = ends.get(partition, (0, 0))
            if record.offset >= end or (
                record.offset >= first
                and not await _holds(client, leaders[partition], TopicPartition(topic, partition), record)
            ):
                changed.append(partition)
    return changed


async def _holds(client: AIOKafkaAdminClient, leader: int, tp: TopicPartition, record: Record) -> bool:
    # However few bytes are asked for, the broker sends the first batch, and that whole.
    request = FetchRequest(_FETCH_WAIT_MS, 1, 1, 0, [(tp.topic, [(tp.partition, record.offset, 1)])])
    ((_, ((_, code, *_, batches),)),) = (await send_request(client, request, leader)).topics
    error = for_code(code)
    if error is OffsetOutOfRangeError:
        return True  # its beginning has moved since; if it is the end, the next look tells
    if code:
        raise error(tp.topic) if error is TopicAuthorizationFailedError else error()
    found = MemoryRecords(batches or b"")
    while found.has_next():
        for each in found.next_batch():
            if each.offset == record.offset:
                return bool(each.value == record.value)
    return False


#: Records that are in the log arrive in far less; longer means that the broker is gone (seconds).
STALL_SECONDS: Final = 30.0

#: Records of one poll: more does not read faster, and this many frames of 200 ticks take some 100 MB.
_POLL_RECORDS: Final = 2_000

#: Records of the first poll of a range: somebody may wait for the first of them, and these are 5,000 ticks already.
_FIRST_RECORDS: Final = 50

#: A broker hears of a new topic or partition a moment after it was created (seconds).
_NEWS_SECONDS: Final = 1.0

#: What is read is there already. The consumer fetches ahead, and at the end of the log the broker holds such a request
#: back, half a second by default, before the next range can be asked for.
_FETCH_WAIT_MS: Final = 10

#: Markers of transactions move the position and are no records: a poll that waited longer for a record would hide it.
_POLL_MS: Final = 500


class LogReader:
    """Reads one range after another; use it as `async with LogReader(settings) as reader`.

    Each method raises `KafkaUnavailable` when nothing arrives for `stall_seconds`, `UnknownTopic` when the topic or the
    partition does not exist, and what `runtime.kafka_errors.kafka_errors` raises besides. All may be called again.
    """

    def __init__(self, settings: Settings, *, stall_seconds: float = STALL_SECONDS) -> None:
        self._settings = settings
        self._stall_seconds = stall_seconds
        # An offset that is gone is an error: by default the consumer would go on at the end, as if nothing were there.
        self._consumer = new_consumer(
            settings, max_poll_records=_POLL_RECORDS, auto_offset_reset="none", fetch_max_wait_ms=_FETCH_WAIT_MS
        )
        self._known: set[TopicPartition] = set()
        #: How many ranges were begun; the number of a range tells whether it is still the newest.
        self._ranges = 0

    async def __aenter__(self) -> Self:
        try:
            with kafka_errors(self._settings):
                await self._consumer.start()
        except BaseException:
            await self._consumer.stop()
            raise
        hand_out_bare_records(self._consumer)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._consumer.stop()

    def forget_partitions(self) -> None:
        """Ask the broker again which partitions there are: since the last use a topic may have been created again."""
        self._known.clear()

    async def partitions(self, topic: str) -> Sequence[int]:
        """The partitions of the topic as the broker tells them now, in order."""
        return sorted(await self._learn_partitions(topic))

    async def ends(self, topic: str, partition: int) -> tuple[int, int]:
        """First and next offset of the partition."""
        tp = await self._existing(topic, partition)
        with kafka_errors(self._settings, topic=topic, right="READ"):
            async with asyncio.timeout(self._stall_seconds):
                first, end = await asyncio.gather(
                    self._consumer.beginning_offsets([tp]), self._consumer.end_offsets([tp])
                )
        return first[tp], end[tp]

    async def offsets_at(self, topic: str, partitions: Collection[int], time_ms: int) -> dict[int, int]:
        """By partition the first offset whose timestamp is not before `time_ms`; without one it is missing."""
        tps = [await self._existing(topic, partition) for partition in partitions]
        with kafka_errors(self._settings, topic=topic, right="READ"):
            async with asyncio.timeout(self._stall_seconds):
                found = await self._consumer.offsets_for_times(dict.fromkeys(tps, time_ms))
        return {tp.partition: found[tp].offset for tp in tps if found.get(tp) is not None}

    async def read(
        self, topic: str, partition: int, first: int, last: int, *, max_records: int | None = None
    ) -> AsyncIterator[Sequence[Record]]:
        """The records from offset `first` to `last`, poll by poll, none of them empty; offsets may be missing.

        One range at a time: a range that is read to its end or given up before the next begins.

        Raises:
            LogTruncated: when the log begins after the next offset to read.
        """
        if first > last:
            return
        tp, consumer = await self._existing(topic, partition), self._consumer
        if consumer.assignment() != {tp}:
            consumer.assign([tp])
        consumer.seek(tp, first)
        consumer.resume(tp)
        self._ranges = number = self._ranges + 1
        try:
            async for records in self._poll_to(tp, first, last, max_records):
                yield records
        finally:
            # Or the consumer goes on asking for what comes behind, a hundred times a second. A range that was given up
            # may be closed only when the next one is being read.
            if number == self._ranges and tp in consumer.assignment():
                consumer.pause(tp)

    async def _poll_to(
        self, tp: TopicPartition, position: int, last: int, max_records: int | None
    ) -> AsyncIterator[Sequence[Record]]:
        consumer, moved_at, most = self._consumer, time.monotonic(), _FIRST_RECORDS
        while position <= last:
            with kafka_errors(self._settings, topic=tp.topic, right="READ"):
                polled = await consumer.getmany(tp, timeout_ms=_POLL_MS, max_records=max_records or most)
                most = _POLL_RECORDS
                reached = await consumer.position(tp)
            if reached > last:
                # At once: while the last records are dealt with, those behind them would be fetched in vain.
                consumer.pause(tp)
            if reached > position:
                position, moved_at = reached, time.monotonic()
            elif time.monotonic() - moved_at > self._stall_seconds:
                raise KafkaUnavailable(
                    f"offset {position} of {tp.topic}-{tp.partition} did not arrive in {self._stall_seconds:g} s; is "
                    f"Kafka on {self._settings.kafka_bootstrap} well?"
                )
            records: Sequence[Record] = polled.get(tp, ())
            if records and records[-1].offset > last:
                records = [record for record in records if record.offset <= last]
            if records:
                yield records
                moved_at = time.monotonic()

    async def holds_records(self, topic: str, partition: int, first: int, last: int) -> bool:
        """Whether the partition has any record from offset `first` to `last`."""
        begin, end = await self.ends(topic, partition)
        first, last = max(first, begin), min(last, end - 1)
        try:
            async for _ in self.read(topic, partition, first, last, max_records=1):
                return True
        except LogTruncated:
            return await self.holds_records(topic, partition, first, last)
        return False

    async def _existing(self, topic: str, partition: int) -> TopicPartition:
        # Asked of a partition that does not exist, aiokafka looks for it until it gives up, as if no broker answered.
        tp = TopicPartition(topic, partition)
        if tp not in self._known:
            await self._learn_partitions(topic, until=tp)
        return tp

    async def _learn_partitions(self, topic: str, *, until: TopicPartition | None = None) -> set[int]:
        deadline = time.monotonic() + _NEWS_SECONDS
        while True:
            with kafka_errors(self._settings, topic=topic, right="READ"):
                async with asyncio.timeout(self._stall_seconds):
                    found = await partitions_of(self._consumer, topic)
            self._known |= {TopicPartition(topic, partition) for partition in found}
            if found and (until is None or until in self._known):
                return found
            if time.monotonic() > deadline:
                if found and until is not None:
                    raise UnknownTopic(topic, until.partition)
                raise await why_missing(self._settings, topic)
            await asyncio.sleep(_NEWS_SECONDS / 10)


class LogClients:
    """The Kafka clients of whoever reads the log for one question after another: they stay connected in between.

    To connect, and to ask who leads what, takes longer than to read a page.
    """

    def __init__(self, settings: Settings) -> None:
        self.admin = SharedAdmin(settings)
        self._settings = settings
        self._idle: list[LogReader] = []

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[LogReader]:
        """A reader for this block alone; after an error it is closed. One that is cancelled is sound.

        Raises:
            KafkaUnavailable: when no broker answers.
        """
        if self._idle:
            reader = self._idle.pop()
            reader.forget_partitions()
        else:
            reader = await LogReader(self._settings).__aenter__()
        has_failed = False
        try:
            yield reader
        except Exception:
            has_failed = True
            raise
        finally:
            if has_failed:
                await reader.__aexit__()
            else:
                self._idle.append(reader)

    async def aclose(self) -> None:
        """Disconnect those that are not in use; the next use connects again."""
        while self._idle:
            await self._idle.pop().__aexit__()
        await self.admin.aclose()
