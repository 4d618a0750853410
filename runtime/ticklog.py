"""The log of the ticks as one: what Kafka holds, and what the archive holds of the records that Kafka no longer has.

Folds candles again from it, and disturbs no consumer group.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

from marketdata.backlog import Sorter, numbered_chunks, numbered_flows
from marketdata.coverage import Coverage, Touched
from marketdata.errors import LogTruncated, SettingsError, UnknownTopic, missing_extra
from marketdata.fold import CandleFold
from marketdata.offsets import MAX_PARTITION, Ranges, contains, intersection, normalized, position, union
from marketdata.refold import NewFold, Proof, Refold, TooManyTicks, completed
from marketdata.runs import Chunk, Flows, Record
from runtime.archive import awaited
from runtime.kafka import Ends
from runtime.logreader import LogReader, own_log
from runtime.settings import Settings

if TYPE_CHECKING:
    from runtime.archive.reader import ArchivedFlow, ArchiveReader

#: A frame that begins long before a moment and still reaches it is looked for in so many records before the place that
#: the time index names; where one is found, in as many before that one. Reading them takes some 50 ms.
SCAN_RECORDS: Final = 2_000

#: Maximum number of ticks that a pass over the log holds while it folds, some 100 MB.
HELD_TICKS: Final = 2_000_000

#: Behind every position.
_END: Final = position(MAX_PARTITION + 1, 0)

A = TypeVar("A")
B = TypeVar("B")

#: Called with the number of records read since the last call.
Progress = Callable[[int], None]


@dataclass
class Refolded:
    """The result of a refold: the folds, and the proofs that the log can no longer answer."""

    folds: dict[Proof, CandleFold] = field(default_factory=dict)
    #: Proofs with offsets that neither Kafka nor the archive holds, or that lie beyond the end of their partition (the
    #: log was re-created), or of a partition that the topic does not have.
    unprovable: set[Proof] = field(default_factory=set)


class TickLog:
    """The ticks topic, opened for reading outside of any consumer group; use it as `async with TickLog(settings)`.

    With a `reader` that is open already it need not be opened. `own` and `ends` are what its owner knows of the log.
    """

    def __init__(self, settings: Settings, reader: LogReader | None = None, own: str = "", ends: Ends | None = None):
        self._topic = settings.ticks_topic
        self._settings = settings
        self._reader = reader or LogReader(settings)
        self._own = own
        self._archive: ArchiveReader | None = None
        #: What Kafka has of each partition, as it said last; both ends may have moved on since.
        self._ends = dict(ends or {})

    async def __aenter__(self) -> Self:
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._reader.__aexit__(*exc_info)

    async def refold(
        self, proofs: Iterable[Proof], *, max_ticks: int = HELD_TICKS, on_progress: Progress | None = None
    ) -> Refolded:
        """Fold every proof again, as `refold_parts` does; once a part is finished its folds hold no ticks."""
        proofs, outcome = list(proofs), Refolded()
        if archived := await self._in_archive_alone(proofs):
            archive = await self._open_archive()
            assert archive is not None  # noqa: S101 - it has something
            async for records, folds in awaited.folds(archive, archived):
                outcome.folds |= folds
                if on_progress is not None:
                    on_progress(records)
        rest = [proof for proof in proofs if proof not in outcome.folds]
        async for part in self.refold_parts(rest, max_ticks=max_ticks, on_progress=on_progress):
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

    async def refold_in_turn(
        self, proofs: Sequence[Proof], *, new_fold: NewFold
    ) -> AsyncGenerator[tuple[Proof, CandleFold | None], None]:
        """Fold every proof again in one pass over the log, and give each out when it is complete, in their order.

        In place of a fold that the log cannot answer comes None. Where nothing comes late each is held for a moment.

        Raises: as `_refold`, except `TooManyTicks`.
        """
        left = deque(dict.fromkeys(proofs))
        while left:
            available = await self.available(proof.ranges for proof in left)
            provable = {proof for proof in left if proof.ranges and contains(available, proof.ranges)}
            refold = Refold((proof for proof in left if proof in provable), new_fold)
            series = {(proof.source, proof.symbol) for proof in left}
            with suppress(LogTruncated):  # Retention was faster than the reading: what it took is unprovable by now.
                for partition, first, last in refold.to_read():
                    async for reached, fed in self._read_flows(partition, first, last, series):
                        refold.feed_flows(fed)
                        for found in completed(left, provable, refold, reached):
                            yield found
                        await asyncio.sleep(0)
                for found in completed(left, provable, refold, _END):
                    yield found

    async def _refold(
        self, proofs: Iterable[Proof], new_fold: NewFold, max_ticks: int | None, on_progress: Progress | None
    ) -> Refolded:
        """Fold every proof again, in one pass over the parts of the log that they name; `new_fold` makes each fold.

        Records that are no frames are skipped, as the stream app does. Of a partition that the topic does not have
        every proof is unprovable.

        Raises:
            KafkaUnavailable: when the broker does not answer; the call can be repeated.
            UnknownTopic: when the topic does not exist at the moment; the call can be repeated.
            ArchiveUnavailable, ArchiveDamaged: when the archive is needed and cannot be read.
            TooManyTicks: when the folds would hold more than `max_ticks`.
        """
        proofs = set(proofs)
        available = await self.available(proof.ranges for proof in proofs)
        provable = {proof for proof in proofs if proof.ranges and contains(available, proof.ranges)}
        outcome = Refolded(unprovable=proofs - provable)
        refold = Refold(provable, new_fold, max_ticks)
        series = {(proof.source, proof.symbol) for proof in provable}
        try:
            for partition, first, last in refold.to_read():
                async for _, fed in self._read_flows(partition, first, last, series, on_progress):
                    refold.feed_flows(fed)
                    # A server that reads the log for one request goes on serving the others.
                    await asyncio.sleep(0)
        except LogTruncated:
            # Retention was faster than the reading: what it took is unprovable by now.
            again = await self._refold(provable, new_fold, max_ticks, on_progress)
            return Refolded(again.folds, again.unprovable | outcome.unprovable)
        outcome.folds = refold.results()
        return outcome

    async def available(self, wanted: Iterable[Ranges]) -> Ranges:
        """The offsets that can be read of the partitions that these ranges are in.

        Raises: as `refold`.
        """
        available: Ranges = ()
        lasts = {partition: last for partition, _, last in normalized(chain.from_iterable(wanted))}
        for partition, last in lasts.items():
            known = self._ends.get(partition)
            first, end = known if known is not None and last < known[1] else await self._bounds(partition)
            in_kafka: Ranges = ((partition, first, end - 1),) if first < end else ()
            # Beyond the end the archive can have nothing, unless brokers have lost records since.
            archived = intersection(await self._archived(partition), ((partition, 0, end - 1),)) if first else ()
            available = union(available, union(archived, in_kafka))
        return available

    async def archived_flow(self, source: str, symbol: str, ranges: Collection[Ranges]) -> "ArchivedFlow | None":
        """The archive's columns of the days of these ranges, none of which is empty.

        None unless all of them are in the archive and no longer in Kafka, and the days are plain forward flow.

        Raises: as `refold`.
        """
        if (archive := await self._open_archive()) is None or not all(ranges):
            return None
        whole = normalized(chain.from_iterable(ranges))
        archived: Ranges = ()
        for partition, _, last in whole:
            if await self._last_in_archive(partition, last, last) is None:
                return None
            archived = union(archived, await self._archived(partition))
        if not contains(archived, whole):
            return None
        return await asyncio.to_thread(archive.flow, (source, symbol), whole)

    async def extended(self, ends: Ends) -> Ends:
        """What Kafka holds of each partition, its beginning put back to that of the archive where this is earlier.

        Raises: as `refold`.
        """
        found = {}
        for partition, (first, end) in ends.items():
            archived = [begin for _, begin, _ in await self._archived(partition)]
            found[partition] = (min([first, *archived]), end)
        return found

    async def holds_records(self, partition: int, first: int, last: int) -> bool:
        """Whether Kafka has any record from offset `first` to `last`.

        Raises:
            KafkaUnavailable: when the broker does not answer; the call can be repeated.
        """
        return await self._reader.holds_records(self._topic, partition, first, last)

    async def first_reaching(self, partition: int, ends: tuple[int, int], time_ms: int, *, margin_ms: int) -> int:
        """The offset, within `ends`, from which frames may hold ticks at or after `time_ms` (epoch milliseconds).

        Kafka's time index is asked for the first record of `margin_ms` before, because a record's timestamp is the time
        of its first tick only, or of its arrival when that was earlier: one frame holds as many hours as its sender put
        into one request, and the clock of a source may be hours ahead. So frames are read backwards from there as long
        as `SCAN_RECORDS` in a row have one that reaches the time. The archive knows by days where their ticks begin.

        Raises: as `refold`.
        """
        first, end = ends
        kafka_first = max(first, (await self._bounds(partition))[0])
        found = await self._reader.offsets_at(self._topic, [partition], max(0, time_ms - margin_ms))
        offset = max(kafka_first, found.get(partition, end))
        while offset > kafka_first:
            touching = None
            async for chunk in self.read(partition, max(kafka_first, offset - SCAN_RECORDS), offset - 1):
                for place, frame in chunk:
                    if touching is None and any(tick.time_msc >= time_ms for tick in frame.ticks):
                        touching = place - position(partition, 0)
            if touching is None:
                break
            offset = touching
        if first < kafka_first and (archive := await self._open_archive()) is not None:
            archived = archive.progress(partition).first_since(time_ms)
            if archived is not None and archived < kafka_first:
                return max(first, archived)
        return offset

    async def _bounds(self, partition: int) -> tuple[int, int]:
        try:
            self._ends[partition] = ends = await self._reader.ends(self._topic, partition)
        except UnknownTopic as exc:
            if exc.partition is None:
                raise
            # The topic was re-created with fewer partitions, or somebody made the candle up.
            return 0, 0
        return ends

    async def _archived(self, partition: int) -> Ranges:
        archive = await self._open_archive()
        return () if archive is None else archive.progress(partition).ranges

    async def _in_archive_alone(self, proofs: Collection[Proof]) -> list[Proof]:
        """The proofs of one range whose records the archive has, and Kafka no longer."""
        whole = [proof for proof in proofs if len(proof.ranges) == 1] if self._settings.has_archive else []
        archived: dict[int, Ranges] = {}
        for partition in {proof.ranges[0][0] for proof in whole}:
            kafka_first, _ = self._ends.get(partition) or await self._bounds(partition)
            if kafka_first:
                before: Ranges = ((partition, 0, kafka_first - 1),)
                archived[partition] = intersection(await self._archived(partition), before)
        return [proof for proof in whole if contains(archived.get(proof.ranges[0][0], ()), proof.ranges)]

    async def _open_archive(self) -> "ArchiveReader | None":
        if self._archive is None and self._settings.has_archive:
            try:
                from runtime.archive.reader import open_archive  # noqa: PLC0415  # not everywhere is pyarrow
            except ImportError as exc:
                raise SettingsError(f"TICKPIPE_ARCHIVE is set, but {missing_extra('pyarrow', 'archive')}") from exc
            self._archive = open_archive(self._settings.archive, self._own or await own_log(self._settings))
        return self._archive

    async def read(
        self,
        partition: int,
        first: int,
        last: int,
        *,
        series: Collection[tuple[str, str]] | None = None,
        on_progress: Progress | None = None,
    ) -> AsyncIterator[Chunk]:
        """The frames from offset `first`, which must be held, to `last`, with their positions.

        What is lost between two held parts is left out. Frames of other sources and symbols than those of `series` are
        left out where that is faster.

        Raises:
            KafkaUnavailable: when the broker does not answer; the call can be repeated.
            LogTruncated: when the next offset to read is held no more.
            ArchiveUnavailable, ArchiveDamaged: when the archive is needed and cannot be read.
        """
        archived = partial(awaited.chunks, series=series)
        async for chunk in self._read(partition, first, last, archived, numbered_chunks, on_progress=on_progress):
            yield chunk

    async def cover(
        self, coverage: Coverage, partition: int, first: int, last: int, *, on_progress: Progress | None = None
    ) -> AsyncIterator[None]:
        """Feed it the same, some records after the other.

        Raises: as `read`.
        """
        archived = partial(awaited.touched, width_ms=coverage.width_ms)
        async for part in self._read(partition, first, last, archived, numbered_chunks, on_progress=on_progress):
            if isinstance(part, Touched):
                coverage.note(part)
            else:
                coverage.feed(part)
            yield

    async def _read_flows(
        self,
        partition: int,
        first: int,
        last: int,
        series: Collection[tuple[str, str]],
        on_progress: Progress | None = None,
    ) -> AsyncIterator[tuple[int, Flows]]:
        """The same by source and symbol, each part with the position up to which all are in it and those before it.

        Raises: as `read`.
        """
        archived, recorded = partial(awaited.flows, series=series), partial(numbered_flows, Sorter())
        async for part in self._read(partition, first, last, archived, recorded, on_progress=on_progress):
            yield part

    async def _read(
        self,
        partition: int,
        first: int,
        last: int,
        archived: "Callable[[ArchiveReader, int, int, int], AsyncIterator[tuple[int, A]]]",
        recorded: Callable[[int, Sequence[Record]], Iterable[B]],
        *,
        on_progress: Progress | None,
    ) -> AsyncIterator[A | B]:
        """What `archived` gives of the archive, with the number of records in each, and `recorded` of Kafka's polls."""
        while first <= last:
            in_archive = await self._last_in_archive(partition, first, last)
            archive = None if in_archive is None else await self._open_archive()
            if in_archive is not None and archive is not None:
                async for count, of_archive in archived(archive, partition, first, in_archive):
                    yield of_archive
                    if on_progress is not None:
                        on_progress(count)
                first = in_archive + 1
                continue
            try:
                async for records in self._reader.read(self._topic, partition, first, last):
                    for part in recorded(position(partition, 0), records):
                        yield part
                    first = records[-1].offset + 1
                    if on_progress is not None:
                        on_progress(len(records))
            except LogTruncated:
                # Deleted since, once it was archived.
                self._ends.pop(partition, None)
                if await self._last_in_archive(partition, first, last) is None:
                    raise
            else:
                return

    async def _last_in_archive(self, partition: int, first: int, last: int) -> int | None:
        """Up to where the archive is to be read from `first` on; None where Kafka is to be asked."""
        if not self._settings.has_archive:
            return None
        kafka_first, _ = self._ends.get(partition) or await self._bounds(partition)
        if first >= kafka_first or not intersection(await self._archived(partition), ((partition, first, first),)):
            return None
        return min(last, kafka_first - 1)
