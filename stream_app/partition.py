"""One partition of a worker: the window, what was read last, and the records that are no frames."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import structlog

from marketdata.backlog import Flow, parts_of
from marketdata.errors import InvalidFrame
from marketdata.heads import Head
from marketdata.pieces import in_pieces
from marketdata.runs import Chunk, Record
from marketdata.wire import decode_frame, decode_frames
from runtime import clock
from runtime.rejected import Rejected
from runtime.telemetry import seconds_between, trace_id_of
from stream_app.blocks import Blocks
from stream_app.emitter import Metrics, note_flow_origins, note_origins
from stream_app.window import Window

log = structlog.get_logger(__name__)

#: Maximum number of rejected records that wait to be written, and of their bytes; with more, folding pauses.
_MAX_WAITING_REJECTS = 500
_MAX_WAITING_BYTES = 32 * 1024 * 1024


@dataclass
class Decoding:
    """What turns the records of all partitions into frames."""

    topic: str
    metrics: Metrics
    #: Whether candles name the requests of all their ticks, for spans.
    links: bool
    blocks: Blocks = field(default_factory=Blocks)


@dataclass
class Partition:
    """What a worker has of one partition."""

    number: int
    window: Window
    rejected: list[Rejected] = field(default_factory=list)
    #: Of a backlog of many symbols: records that are folded with those that come next.
    held: list[Record] = field(default_factory=list)
    #: The record before the position.
    last: Record | None = None

    @property
    def position(self) -> int:
        """The offset after the last record that was read."""
        return self.held[-1].offset + 1 if self.held else self.window.position

    def hold(self, records: Sequence[Record]) -> None:
        """Keep what follows on what was read for the next fold; until then it counts as read by nobody."""
        self.held += records
        self.last = records[-1]

    def release_held(self) -> list[Record]:
        """What was held, which is to be folded now."""
        held, self.held = self.held, []
        return held

    @property
    def safe_offset(self) -> int:
        """The committable offset: everything below is published and needed by no open minute."""
        safe = self.window.safe_offset
        return min(safe, self.rejected[0].record.offset) if self.rejected else safe

    @property
    def has_many_rejected(self) -> bool:
        """Whether more rejected records wait to be written than may be held in memory."""
        waiting_bytes = sum(rejected.size_bytes for rejected in self.rejected)
        return len(self.rejected) > _MAX_WAITING_REJECTS or waiting_bytes > _MAX_WAITING_BYTES

    def fold(self, records: Sequence[Record], decoding: Decoding, live_since_ms: int, now: float) -> int:
        """Fold what was read, and note where the ticks came from; the number of ticks.

        What was received before `live_since_ms` (UTC epoch milliseconds) is not timed: it waited for a reader.
        """
        waiting = len(self.rejected)
        chunks = self._chunks(records, decoding, live_since_ms)
        ticks = self.window.feed(records[0].offset, records[-1].offset, chunks, now=now)
        # A backlog is decoded symbol by symbol.
        self.rejected[waiting:] = sorted(self.rejected[waiting:], key=lambda rejected: rejected.record.offset)
        if self.window.position == records[-1].offset + 1:
            self.last = records[-1]
        return ticks

    def _chunks(self, records: Sequence[Record], decoding: Decoding, live_since_ms: int) -> Iterator[Chunk | Flow]:
        window = self.window
        if records[0].offset < window.position:
            records = [record for record in records if record.offset >= window.position]
        found = decoding.blocks.take(records, window.width_ms)
        by_symbol = None
        if found is not None:
            left: list[Record] = []
            for flows, others in found:
                left += others
                yield from self._flows(flows, decoding, live_since_ms)
            records = sorted(left, key=attrgetter("offset"))
            by_symbol = decoding.blocks.sorter.sort(records)
        if by_symbol is not None:
            for head, of_symbol in by_symbol:
                for part in parts_of(of_symbol):
                    yield from self._flow(head, part, decoding, live_since_ms)
            return
        for some in in_pieces(records, window.symbols):
            yield from self._chunk(some, decoding, live_since_ms)

    def _flows(self, flows: Sequence[Flow], decoding: Decoding, live_since_ms: int) -> Iterator[Flow]:
        for flow in flows:
            yield flow
            # The window asks for the next ones when it has folded these.
            self._note(flow, decoding)
        if flows:
            _observe(decoding, flows[0].origin(flows[0].first_offset)[0], clock.now_ms(), live_since_ms)

    def _flow(
        self, head: Head, records: Sequence[Record], decoding: Decoding, live_since_ms: int
    ) -> Iterator[Chunk | Flow]:
        frames = head.frames([record.value for record in records if record.value is not None])
        if frames is None:
            yield from self._chunk(records, decoding, live_since_ms)
            return
        flow = Flow(head.key, records, frames)
        yield flow
        self._note(flow, decoding)
        _observe(decoding, frames.received(0), clock.now_ms(), live_since_ms)

    def _note(self, flow: Flow, decoding: Decoding) -> None:
        note_flow_origins(self.window, flow, wall_ms=clock.now_ms(), links=decoding.links)

    def _chunk(self, records: Sequence[Record], decoding: Decoding, live_since_ms: int) -> Iterator[Chunk]:
        frames = self._frames(records, decoding)
        yield frames
        if frames:
            wall_ms = clock.now_ms()
            note_origins(self.window, records, frames, wall_ms=wall_ms, links=decoding.links)
            _observe(decoding, frames[0][1].received, wall_ms, live_since_ms)

    def _frames(self, records: Sequence[Record], decoding: Decoding) -> Chunk:
        frames = decode_frames([record.value for record in records])
        if frames is not None:
            return [(record.offset, frame) for record, frame in zip(records, frames, strict=True)]
        found = []
        for record in records:
            try:
                found.append((record.offset, decode_frame(record.value)))
            except InvalidFrame as exc:
                decoding.metrics.rejected.inc()
                log.warning(
                    "A record of the ticks topic is no frame; it is stored in the topic of rejected ticks.",
                    action="record_rejected", partition=self.number, offset=record.offset, reason=str(exc),
                    trace_id=trace_id_of(record.headers),
                )  # fmt: skip
                self.rejected.append(Rejected(decoding.topic, self.number, record, str(exc)))
        return found


def _observe(decoding: Decoding, received_ms: int, wall_ms: int, live_since_ms: int) -> None:
    if received_ms >= live_since_ms:
        decoding.metrics.stages.labels("folded").observe(seconds_between(received_ms, wall_ms))
