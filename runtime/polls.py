"""Records as a consumer's polls hand them out: bare, whole batches at a time, and in pieces to work on.

This reaches into aiokafka 0.14.0, which pyproject.toml pins. It hands out records one by one, through three Python
calls each, and copies each into a `ConsumerRecord`: that takes more time than reading and parsing them.
"""

import inspect
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords


class Record(Protocol):
    """One record as a consumer hands it out, bare or not."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def timestamp_type(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


#: Many more bytes than this, once decoded, do not stay in the processor's cache until they are folded: 1,000 single
#: ticks at a time take half the time of 5,000.
_PIECE_BYTES = 192 * 1024


def in_pieces(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """A poll in pieces to decode and fold one after the other."""
    total_bytes = sum(len(record.value) for record in records if record.value is not None)
    step = max(1, _PIECE_BYTES * len(records) // max(1, total_bytes))
    return (records[begin : begin + step] for begin in range(0, len(records), step))


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
    stretches = result._partition_records
    while max_records is None or len(found) < max_records:
        stretches.wanted.count = None if max_records is None else max_records - len(found)
        stretch = next(stretches, None)
        if stretch is None:
            result._update_position()
            result._partition_records = None
            # It refers to the result that it belongs to.
            del result.getall
            return found
        found += stretch.records
    result._update_position()
    return found


class _Stretch:
    """Records of one batch that follow each other; aiokafka takes them for the last of them."""

    __slots__ = ("offset", "records")

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.offset = records[-1].offset


class _Wanted:
    """How many records the next stretch may have at most; None for all of its batch."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count: int | None = None


class _BareRecords(PartitionRecords):  # type: ignore[misc]  # aiokafka ships no types
    """Iterates over stretches of records."""

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

    def _consumer_record(self, _tp: TopicPartition, stretch: _Stretch) -> _Stretch:
        if stretch.records[0].offset < self.next_fetch_offset:
            stretch.records = [record for record in stretch.records if record.offset >= self.next_fetch_offset]
        return stretch


class _Batches:
    """Fetched batches, each as an iterator over stretches."""

    def __init__(self, batches: Any, wanted: _Wanted) -> None:
        self._batches = batches
        self._wanted = wanted

    def has_next(self) -> bool:
        return bool(self._batches.has_next())

    def next_batch(self) -> "_Batch":
        return _Batch(self._batches.next_batch(), self._wanted)


class _Batch:
    """One batch; what is asked of it but its records, the batch itself answers."""

    def __init__(self, batch: Any, wanted: _Wanted) -> None:
        self._batch = batch
        self._wanted = wanted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[_Stretch]:
        # A batch that is asked for its iterator again, as `islice` would, begins anew.
        once = chain(self._batch)
        while records := list(islice(once, self._wanted.count)):
            yield _Stretch(records)
