"""Reads ranges of the ticks topic again, to fold candles from the offsets they name."""

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from marketdata.errors import InvalidFrame, LogTruncated, UnknownTopic
from marketdata.fold import CandleFold
from marketdata.offsets import clip, position
from marketdata.refold import Proof, Refold
from marketdata.runs import Chunk
from marketdata.tick import Frame
from marketdata.wire import decode_frame, decode_frames
from runtime.logreader import LogReader
from runtime.polls import in_pieces
from runtime.settings import Settings

#: Called with the number of records read since the last call.
Progress = Callable[[int], None]


@dataclass
class Refolded:
    """What came of folding again: the folds, and the proofs that the log can no longer answer."""

    folds: dict[Proof, CandleFold] = field(default_factory=dict)
    #: Proofs with offsets that retention deleted, or that lie beyond the end of their partition (the log was
    #: re-created), or of a partition that the topic does not have.
    unprovable: set[Proof] = field(default_factory=set)


class TickLog:
    """The ticks topic, opened for reading at will; it belongs to no consumer group and disturbs none.

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

    async def refold(self, proofs: Iterable[Proof], *, on_progress: Progress | None = None) -> Refolded:
        """Fold every proof again, in one pass over the parts of the log that they name.

        Records that are no frames are skipped, as the stream app does. Of a partition that the topic does not have
        every proof is unprovable.

        Raises:
            KafkaUnavailable: when the broker does not answer; the call can be repeated.
            UnknownTopic: when the topic does not exist at the moment; the call can be repeated.
        """
        proofs = set(proofs)
        ends = {p: await self._bounds(p) for p in {partition for proof in proofs for partition, _, _ in proof.ranges}}
        provable = {proof for proof in proofs if proof.ranges and clip(proof.ranges, ends) == proof.ranges}
        outcome = Refolded(unprovable=proofs - provable)
        refold = Refold(provable)
        try:
            for partition, first, last in refold.to_read():
                async for chunk in self.read(partition, first, last, on_progress=on_progress):
                    refold.feed(chunk)
        except LogTruncated:
            # Retention was faster than the reading: what it took is unprovable by now.
            again = await self.refold(provable, on_progress=on_progress)
            return Refolded(again.folds, again.unprovable | outcome.unprovable)
        outcome.folds = refold.results()
        return outcome

    async def holds_records(self, partition: int, first: int, last: int) -> bool:
        """Whether the log has any record from offset `first` to `last`.

        Raises:
            KafkaUnavailable: when the broker does not answer; the call can be repeated.
        """
        return await self._reader.holds_records(self._topic, partition, first, last)

    async def first_since(self, partitions: Iterable[int], time_ms: int) -> dict[int, int]:
        """The first offset of each partition whose record is not older (epoch milliseconds); without one, none.

        Raises:
            KafkaUnavailable: when the broker does not answer; the call can be repeated.
        """
        return await self._reader.offsets_at(self._topic, list(partitions), time_ms)

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
