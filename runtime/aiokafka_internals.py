"""Every use of aiokafka's private names, with its reason. Written for aiokafka 0.14.0, which pyproject.toml pins; the
tests marked `contract` hold it to what is relied on here, and `make test-newest` runs them on the newest release.

| what | private names | public alternative that was tried | when a name goes |
| --- | --- | --- | --- |
| `end_fetches` | `_fetcher`, its tasks | `AIOKafkaConsumer.stop()`: ends in `CancelledError`, half done, while the broker is away | `AttributeError` in every `stop` |
| `hand_out_bare_records` | `_fetcher`, `FetchResult`, `PartitionRecords` | `getmany()`: three Python calls and a copy for each record, more than reading and parsing it takes | `AttributeError` when a consumer starts; leave the call out, records come as `ConsumerRecord` |
| `bracket_fetches` | `_fetcher`, `_records` | `fetch_min_bytes` and `fetch_max_wait_ms`: an idle consumer would ask all the time | `AttributeError` when a consumer starts; leave the call out, fetches are sent at once |
| `partitions_of` | `_client` | `partitions_for_topic()`: None until the topic is assigned, never refreshed for a reader that assigns by hand; an admin client needs connections of its own | `AttributeError` at the first read |
| `send_request` | `AIOKafkaAdminClient._send_request` | `describe_topics()`: knows no version of the request that tells a topic's id | `AttributeError` when a service starts |
| `group_error` | `_coordinator` | asking the consumer for it: Faust never does | `AttributeError` in the worker's watch |
| `rejoin_group` | `_coordinator`, `_client` | `unsubscribe()` and `subscribe()`: forgets positions, and Faust's own subscription with them | `AttributeError` in the group watch |
| `discard_producer` | `_closed`, `_sender` | `AIOKafkaProducer.stop()`: waits until everything is confirmed, without end while the broker is away | `AttributeError` when a connection is given up |
"""  # noqa: E501  # a table

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAuthorizationFailedError

from marketdata.runs import Record

#: An answer that is under way gets this long, then its connection is cut (seconds).
_DISCARD_TIMEOUT_SECONDS: Final = 1.0


async def end_fetches(consumer: AIOKafkaConsumer) -> None:
    """Cancel a consumer's fetches; call it before `AIOKafkaConsumer.stop()`.

    aiokafka cancels its fetches in `stop()`, and one that rests there after a failure, so whenever the broker is away,
    ends `stop()` half done with `CancelledError`, as if the caller were cancelled.
    """
    if (fetcher := consumer._fetcher) is not None:
        tasks = [fetcher._fetch_task, *fetcher._pending_tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        fetcher._pending_tasks.clear()


async def partitions_of(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    """The partitions of a topic as the broker tells them now; empty when there is no such topic.

    From then on the consumer knows who leads them, so that questions about their offsets are sent at once.

    Raises:
        KafkaError: when no broker answers, or the topic may not be seen.
    """
    try:
        cluster = await consumer._client.fetch_all_metadata()
    except KafkaError as exc:
        # Raised when none of the brokers that the client knows answers.
        raise KafkaConnectionError(str(exc)) from exc
    if topic in cluster.unauthorized_topics:
        raise TopicAuthorizationFailedError(topic)
    found = set(cluster.partitions_for_topic(topic) or ())
    # Only of a topic that exists: a broker may create what is asked for by name. Without it the first question about an
    # offset fails for want of a leader, and is repeated after a tenth of a second.
    if found and consumer._client.cluster.partitions_for_topic(topic) is None:
        await consumer._client.add_topic(topic)
    return found


async def send_request(client: AIOKafkaAdminClient, request: Any, node: int | None = None) -> Any:
    """The answer of a broker, any without `node`, to a request that aiokafka itself does not know."""
    return await client._send_request(request, node)


def group_error(consumer: AIOKafkaConsumer) -> Exception | None:
    """The error that keeps a consumer out of its group; None while it is a member, or may become one by itself."""
    coordinator = consumer._coordinator
    return None if coordinator is None else coordinator._pending_exception


async def rejoin_group(consumer: AIOKafkaConsumer) -> None:
    """Make a consumer rejoin its group with fresh metadata; await it in the event loop that the consumer runs in."""
    if (coordinator := consumer._coordinator) is not None:
        await consumer._client.force_metadata_update()
        coordinator.request_rejoin()


async def discard_producer(producer: AIOKafkaProducer) -> None:
    """Close the connections and drop what is not confirmed; futures that wait for it stay pending.

    Raises:
        KafkaError, OSError: when a connection did not close; the producer is discarded all the same.
    """
    # Or it complains of being left open when it is collected.
    producer._closed = True
    sender = producer._sender.sender_task
    if sender is None:
        await producer.client.close()
        return
    sender.cancel()
    await asyncio.wait([sender], timeout=_DISCARD_TIMEOUT_SECONDS)
    try:
        await producer.client.close()
    finally:
        if not sender.done():
            # It waits for an answer, or for metadata that nobody fetches any more.
            sender.cancel()
            await asyncio.wait([sender], timeout=_DISCARD_TIMEOUT_SECONDS)
        if sender.done() and not sender.cancelled():
            sender.exception()  # looked at, so that asyncio does not report it


def hand_out_bare_records(consumer: AIOKafkaConsumer) -> None:
    """Have `getmany` of a started consumer hand out records as they were parsed, with no topic and partition in each.

    What was fetched before the call comes as `ConsumerRecord`, which serves as well. `getone` is not to be used.
    """
    fetcher = consumer._fetcher
    process = fetcher._proc_fetch_request

    async def process_barely(*args: Any) -> Any:
        outcome = await process(*args)
        for result in fetcher._records.values():
            if isinstance(result, FetchResult):
                _make_bare(result)
        return outcome

    fetcher._proc_fetch_request = process_barely


def bracket_fetches(
    consumer: AIOKafkaConsumer, before: Callable[[], Awaitable[None]], with_records: Callable[[], None]
) -> None:
    """Have a started consumer await `before` each fetch, and call `with_records` when one has brought some."""
    fetcher = consumer._fetcher
    process = fetcher._proc_fetch_request

    async def process_bracketed(*args: Any) -> Any:
        try:
            await before()
        except asyncio.CancelledError:
            return False  # as aiokafka answers for a fetch that was sent
        outcome = await process(*args)
        if fetcher._records:
            with_records()
        return outcome

    fetcher._proc_fetch_request = process_bracketed


def _make_bare(result: FetchResult) -> None:
    records = result._partition_records
    if not isinstance(records, _BareRecords) and records is not None and _is_untouched(records):
        result._partition_records = _BareRecords(records)
        result.getall = partial(_getall, result)


def _is_untouched(records: PartitionRecords) -> bool:
    return inspect.getgeneratorstate(records._records_iterator) == inspect.GEN_CREATED


def _getall(result: FetchResult, max_records: int | None = None) -> list[Record]:
    """What `FetchResult.getall` does, with the records of a batch at once."""
    found: list[Record] = []
    if not result.check_assignment(result._topic_partition) or not result.has_more():
        return found
    runs = result._partition_records
    while max_records is None or len(found) < max_records:
        runs.wanted.count = None if max_records is None else max_records - len(found)
        run = next(runs, None)
        if run is None:
            result._update_position()
            result._partition_records = None
            # It refers to the result that it belongs to.
            del result.getall
            return found
        found += run.records
    result._update_position()
    return found


class _Run:
    """Consecutive records of one batch; aiokafka takes them for the last of them."""

    __slots__ = ("offset", "records")

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.offset = records[-1].offset


class _Wanted:
    """How many records the next run may have at most; None for all of its batch."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count: int | None = None


class _BareRecords(PartitionRecords):  # type: ignore[misc]  # aiokafka ships no types
    """Iterates over runs of records."""

    def __init__(self, plain: PartitionRecords) -> None:
        super().__init__(
            plain._tp, plain._records, plain._aborted_transactions, plain.next_fetch_offset, None, None,
            plain._check_crcs, plain._isolation_level,
        )  # fmt: skip
        # Shared, since a reference back to this object would keep what was fetched until garbage is collected.
        self.wanted = _Wanted()
        self._records = _Batches(plain._records, self.wanted)
        # The same goes for an iterator that was never used up.
        plain._records_iterator = None

    def _consumer_record(self, _tp: TopicPartition, run: _Run) -> _Run:
        if run.records[0].offset < self.next_fetch_offset:
            run.records = [record for record in run.records if record.offset >= self.next_fetch_offset]
        return run


class _Batches:
    """Fetched batches, each as an iterator over runs."""

    def __init__(self, batches: Any, wanted: _Wanted) -> None:
        self._batches = batches
        self._wanted = wanted

    def has_next(self) -> bool:
        return bool(self._batches.has_next())

    def next_batch(self) -> "_Batch":
        return _Batch(self._batches.next_batch(), self._wanted)


class _Batch:
    """One batch; everything but its records is delegated to aiokafka's own."""

    def __init__(self, batch: Any, wanted: _Wanted) -> None:
        self._batch = batch
        self._wanted = wanted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[_Run]:
        # A batch that is asked for its iterator again, as `islice` would, starts over.
        once = chain(self._batch)
        while records := list(islice(once, self._wanted.count)):
            yield _Run(records)
