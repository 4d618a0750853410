"""Reading stretches of the ticks topic again, to fold candles from the offsets they name."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from marketdata.errors import InvalidFrame, KafkaUnavailable
from marketdata.fold import MinuteFold
from marketdata.refold import Proof, Refold
from marketdata.tick import Frame
from marketdata.wire import decode_frame, decode_frames
from runtime.kafka import new_consumer, unavailable
from runtime.polls import hand_out_bare_records, in_pieces
from runtime.settings import Settings

#: Records of one poll: more does not read faster, and this many frames of 200 ticks take some 100 MB.
_POLL_RECORDS = 2_000

#: A stretch that is in the log answers in far less; longer means that the broker is gone (seconds).
_STALL_SECONDS = 30.0

#: Called with the number of records read since the last call.
Progress = Callable[[int], None]


@dataclass
class Refolded:
    """What came of folding again: the folds, and the proofs that the log can no longer answer."""

    folds: dict[Proof, MinuteFold] = field(default_factory=dict)
    #: Proofs with offsets that retention deleted, or that lie beyond the end of the log (it was created anew).
    unprovable: set[Proof] = field(default_factory=set)


class TickLog:
    """The ticks topic, opened for reading at will; it belongs to no consumer group and disturbs none.

    Use it as `async with TickLog(settings) as tick_log`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None

    async def __aenter__(self) -> Self:
        self._consumer = new_consumer(self._settings, max_poll_records=_POLL_RECORDS)
        try:
            await self._consumer.start()
        except (KafkaError, OSError) as exc:
            await self._consumer.stop()
            raise unavailable(self._settings) from exc
        hand_out_bare_records(self._consumer)
        return self

    async def __aexit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    async def refold(self, partition: int, proofs: Iterable[Proof], *, on_progress: Progress | None = None) -> Refolded:
        """Fold every proof of one partition again, in one pass over the stretches of the log that they name.

        Records that are no frames are passed over, as the stream app does.

        Raises:
            KafkaUnavailable: when the broker does not answer; the call can be repeated.
        """
        outcome = Refolded()
        tp = TopicPartition(self._settings.ticks_topic, partition)
        try:
            first, end = await self._bounds(tp)
            provable: set[Proof] = set()
            for proof in proofs:
                inside = proof.ranges and first <= proof.ranges[0][0] and proof.ranges[-1][1] < end
                (provable if inside else outcome.unprovable).add(proof)
            refold = Refold(provable)
            for stretch in refold.stretches():
                await self._feed(refold, tp, *stretch, on_progress)
        except (KafkaError, OSError, TimeoutError) as exc:
            raise unavailable(self._settings) from exc
        outcome.folds = refold.results()
        return outcome

    async def holds_records(self, partition: int, first: int, last: int) -> bool:
        """Whether the log has any record from offset `first` to `last`.

        Raises:
            KafkaUnavailable: when the broker does not answer; the call can be repeated.
        """
        reader, tp = self._reader, TopicPartition(self._settings.ticks_topic, partition)
        try:
            begin, end = await self._bounds(tp)
            first, last = max(first, begin), min(last, end - 1)
            reader.assign([tp])
            reader.seek(tp, first)
            while await reader.position(tp) <= last:
                batch = (await reader.getmany(tp, timeout_ms=1_000, max_records=1)).get(tp)
                if batch:
                    return bool(batch[0].offset <= last)
            return False
        except (KafkaError, OSError, TimeoutError) as exc:
            raise unavailable(self._settings) from exc

    @property
    def _reader(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise RuntimeError("use TickLog as `async with TickLog(settings)`")
        return self._consumer

    async def _bounds(self, tp: TopicPartition) -> tuple[int, int]:
        first = await self._reader.beginning_offsets([tp])
        end = await self._reader.end_offsets([tp])
        return first[tp], end[tp]

    async def _feed(
        self, refold: Refold, tp: TopicPartition, first: int, last: int, on_progress: Progress | None
    ) -> None:
        reader = self._reader
        if reader.assignment() != {tp}:
            reader.assign([tp])
        reader.seek(tp, first)
        while await reader.position(tp) <= last:
            batch = (await reader.getmany(tp, timeout_ms=int(_STALL_SECONDS * 1000))).get(tp)
            if not batch:
                raise KafkaUnavailable(
                    f"offset {first} of {tp.topic}-{tp.partition} did not arrive in {_STALL_SECONDS} s"
                )
            wanted = [record for record in batch if record.offset <= last]
            for piece in in_pieces(wanted):
                refold.feed(frames_of([(record.offset, record.value) for record in piece]))
            if on_progress is not None:
                on_progress(len(wanted))


def frames_of(records: list[tuple[int, bytes | None]]) -> list[tuple[int, Frame]]:
    """Offsets and frames of the records that are frames."""
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
