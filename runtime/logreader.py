"""Reads ranges of offsets of any topic, and refolds candles from those of the ticks, without a consumer group."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from aiokafka import TopicPartition

from marketdata.errors import InvalidFrame, KafkaUnavailable, LogTruncated, UnknownTopic
from marketdata.fold import CandleFold
from marketdata.offsets import clip, position
from marketdata.refold import NewFold, Proof, Refold, TooManyTicks
from marketdata.runs import Chunk, Record, in_pieces
from marketdata.tick import Frame
from marketdata.wire import decode_frame, decode_frames
from runtime.aiokafka_internals import hand_out_bare_records, partitions_of
from runtime.kafka import new_consumer, why_missing
from runtime.kafka_errors import kafka_errors
from runtime.settings import Settings

#: Records that are in the log arrive in far less; longer means that the broker is gone (seconds).
STALL_SECONDS: Final = 30.0

#: Records of one poll: more does not read faster, and this many frames of 200 ticks take some 100 MB.
_POLL_RECORDS: Final = 2_000

#: A broker hears of a new topic or partition a moment after it was created (seconds).
_NEWS_SECONDS: Final = 1.0

#: A frame that begins long before a moment and still reaches it is looked for in so many records before the place that
#: the time index names; where one is found, in as many before that one. Reading them takes some 50 ms.
SCAN_RECORDS: Final = 2_000

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

    async def partitions(self, topic: str) -> Sequence[int]:
        """The partitions of the topic as the broker tells them now, in order."""
        return sorted(await self._learn_partitions(topic))

    async def ends(self, topic: str, partition: int) -> tuple[int, int]:
        """First and next offset of the partition."""
        tp = await self._existing(topic, partition)
        with kafka_errors(self._settings, topic=topic, right="READ"):
            async with asyncio.timeout(self._stall_seconds):
                first = await self._consumer.beginning_offsets([tp])
                end = await self._consumer.end_offsets([tp])
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
        position, moved_at = first, time.monotonic()
        while position <= last:
            with kafka_errors(self._settings, topic=topic, right="READ"):
                polled = await consumer.getmany(tp, timeout_ms=_POLL_MS, max_records=max_records)
                reached = await consumer.position(tp)
            if reached > position:
                position, moved_at = reached, time.monotonic()
            elif time.monotonic() - moved_at > self._stall_seconds:
                raise KafkaUnavailable(
                    f"offset {position} of {topic}-{partition} did not arrive in {self._stall_seconds:g} s; is Kafka "
                    f"on {self._settings.kafka_bootstrap} well?"
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


#: Maximum number of ticks that a pass over the log holds while it folds, some 100 MB.
HELD_TICKS: Final = 2_000_000

#: Called with the number of records read since the last call.
Progress = Callable[[int], None]


@dataclass
class Refolded:
    """The result of a refold: the folds, and the proofs that the log can no longer answer."""

    folds: dict[Proof, CandleFold] = field(default_factory=dict)
    #: Proofs with offsets that retention deleted, or that lie beyond the end of their partition (the log was
    #: re-created), or of a partition that the topic does not have.
    unprovable: set[Proof] = field(default_factory=set)


class TickLog:
    """The ticks topic, opened for reading outside of any consumer group.

    Use it as `async with TickLog(settings) as tick_log`.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.ticks_topic
        self._reader = LogReader(settings)

    async def __aenter__(self) -> Self:
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._reader.__aexit__(*exc_info)

    async def refold(
        self, proofs: Iterable[Proof], *, max_ticks: int = HELD_TICKS, on_progress: Progress | None = None
    ) -> Refolded:
        """Fold every proof again, as `refold_parts` does; once a part is finished its folds hold no ticks."""
        outcome = Refolded()
        async for part in self.refold_parts(proofs, max_ticks=max_ticks, on_progress=on_progress):
            outcome.folds |= part.folds
            outcome.unprovable |= part.unprovable
        return outcome

    async def refold_parts(
        self,
        proofs: Iterable[Proof],
        *,
        new_fold: NewFold = CandleFold,
        max_ticks: int = HELD_TICKS,
        on_progress: Progress | None = None,
    ) -> AsyncIterator[Refolded]:
        """Fold every proof again, in as few passes as hold no more than `max_ticks`, in the order of the proofs.

        How many ticks a fold holds, the volume of its candle does not tell: of a symbol charted by last that counts
        only deals, and nowhere resends. A single candle is folded however many ticks it has.

        Raises: as `_refold`.
        """
        waiting = [list(dict.fromkeys(proofs))]
        while waiting:
            part = waiting.pop()
            try:
                yield await self._refold(part, new_fold, max_ticks if len(part) > 1 else None, on_progress)
            except TooManyTicks:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]

    async def _refold(
        self, proofs: Iterable[Proof], new_fold: NewFold, max_ticks: int | None, on_progress: Progress | None
    ) -> Refolded:
        """Fold every proof again, in one pass over the parts of the log that they name; `new_fold` makes each fold.

        Records that are no frames are skipped, as the stream app does. Of a partition that the topic does not have
        every proof is unprovable.

        Raises:
            KafkaUnavailable: when the broker does not answer; the call can be repeated.
            UnknownTopic: when the topic does not exist at the moment; the call can be repeated.
            TooManyTicks: when the folds would hold more than `max_ticks`.
        """
        proofs = set(proofs)
        ends = {p: await self._bounds(p) for p in {partition for proof in proofs for partition, _, _ in proof.ranges}}
        provable = {proof for proof in proofs if proof.ranges and clip(proof.ranges, ends) == proof.ranges}
        outcome = Refolded(unprovable=proofs - provable)
        refold = Refold(provable, new_fold, max_ticks)
        try:
            for partition, first, last in refold.to_read():
                async for chunk in self.read(partition, first, last, on_progress=on_progress):
                    refold.feed(chunk)
                    # A server that reads the log for one request goes on serving the others.
                    await asyncio.sleep(0)
        except LogTruncated:
            # Retention was faster than the reading: what it took is unprovable by now.
            again = await self._refold(provable, new_fold, max_ticks, on_progress)
            return Refolded(again.folds, again.unprovable | outcome.unprovable)
        outcome.folds = refold.results()
        return outcome

    async def holds_records(self, partition: int, first: int, last: int) -> bool:
        """Whether the log has any record from offset `first` to `last`.

        Raises:
            KafkaUnavailable: when the broker does not answer; the call can be repeated.
        """
        return await self._reader.holds_records(self._topic, partition, first, last)

    async def first_reaching(self, partition: int, ends: tuple[int, int], time_ms: int, *, margin_ms: int) -> int:
        """The offset, within `ends`, from which frames may hold ticks at or after `time_ms` (epoch milliseconds).

        The time index is asked for the first record of `margin_ms` before, because a record's timestamp is the time of
        its first tick only, or of its arrival when that was earlier: one frame holds as many hours as its sender put
        into one request, and the clock of a source may be hours ahead. So frames are read backwards from there as long
        as `SCAN_RECORDS` in a row have one that reaches the time.

        Raises:
            KafkaUnavailable: when the broker does not answer; the call can be repeated.
        """
        first, end = ends
        found = await self._reader.offsets_at(self._topic, [partition], max(0, time_ms - margin_ms))
        offset = found.get(partition, end)
        while offset > first:
            touching = None
            async for chunk in self.read(partition, max(first, offset - SCAN_RECORDS), offset - 1):
                for place, frame in chunk:
                    if touching is None and any(tick.time_msc >= time_ms for tick in frame.ticks):
                        touching = place - position(partition, 0)
            if touching is None:
                break
            offset = touching
        return offset

    async def _bounds(self, partition: int) -> tuple[int, int]:
        try:
            return await self._reader.ends(self._topic, partition)
        except UnknownTopic as exc:
            if exc.partition is None:
                raise
            # The topic was re-created with fewer partitions, or somebody made the candle up.
            return 0, 0

    async def read(
        self, partition: int, first: int, last: int, *, on_progress: Progress | None = None
    ) -> AsyncIterator[Chunk]:
        """The frames from offset `first` to `last`, which the log must hold, with their positions.

        Raises:
            KafkaUnavailable: when the broker does not answer; the call can be repeated.
            LogTruncated: when the log begins after the next offset to read.
        """
        begin = position(partition, 0)
        async for records in self._reader.read(self._topic, partition, first, last):
            for piece in in_pieces(records):
                yield frames_of([(begin + record.offset, record.value) for record in piece])
            if on_progress is not None:
                on_progress(len(records))


def frames_of(records: list[tuple[int, bytes | None]]) -> list[tuple[int, Frame]]:
    """The numbers that records were given, and the frames, of those that are frames."""
    frames = decode_frames([value for _, value in records])
    if frames is not None:
        return [(offset, frame) for (offset, _), frame in zip(records, frames, strict=True)]
    found = []
    for offset, value in records:
        try:
            found.append((offset, decode_frame(value)))
        except InvalidFrame:
            continue
    return found
