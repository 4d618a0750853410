"""Where the newest ticks of each candle came from, noted chunk by chunk, and what of it a candle carries."""

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from marketdata.runs import Record
from marketdata.tick import Frame
from runtime.metrics import RECEIVED_HEADER
from runtime.telemetry import TRACEPARENT, Telemetry, TraceContext, context_of
from stream_app.emitter import Outgoing
from stream_app.window import Emission, Origin, Window

_OFFSET: Final = attrgetter("offset")

#: A candle that waits for the broker gathers requests without end; so many of them are kept.
_MAX_OTHERS: Final = 32


def note_origins(
    window: Window, records: Sequence[Record], frames: Sequence[tuple[int, Frame]], *, wall_ms: int, links: bool
) -> None:
    """Note, of every period that this chunk touched, the newest frame; both sequences are in order of their offsets.

    With `links` the requests before it since the last candle as well. A chunk touches few periods and has hundreds of
    records, so the loop over the records is left alone.
    """
    if not frames:
        return
    first = records[0].offset
    whole = len(frames) == len(records) == records[-1].offset - first + 1
    for period in window.touched():
        offset = period.fold.last_offset
        if offset < first:
            continue  # all of it had been read before
        if whole:
            received_ms, headers = frames[offset - first][1].received, records[offset - first].headers
        else:
            # A tuple of one comes before those that begin with it.
            received_ms = frames[bisect_left(frames, (offset,))][1].received
            headers = records[bisect_left(records, offset, key=_OFFSET)].headers
        period.origin = Origin(received_ms, wall_ms, headers, _others(period.origin) if links else ())


def _others(before: Origin | None) -> tuple[TraceContext, ...]:
    context = None if before is None else context_of(before.headers)
    return () if before is None or context is None else (*before.others, context)[-_MAX_OTHERS:]


def outgoing(emission: Emission, live_since_ms: int, telemetry: Telemetry) -> Outgoing | None:
    """The candle of an emission with the headers of its record; None when there is no candle.

    What was received before `live_since_ms` (UTC epoch milliseconds) waited for a reader, in a replay for years, and a
    candle is closed long after its last tick: neither says how quick the pipeline is, so it is not timed.
    """
    candle, origin = emission.candle, emission.period.origin
    if candle is None:
        return None
    if origin is None:
        return Outgoing(candle)
    headers: list[tuple[str, bytes]] = []
    span = None
    if not telemetry.is_on:
        # Passed on as it came: reading it would cost more than all the rest.
        headers += [header for header in origin.headers if header[0] == TRACEPARENT]
    elif (context := context_of(origin.headers)) is not None:
        emission.period.origin = origin._replace(others=())
        started_ms = None if candle.closed else origin.folded_ms
        span = telemetry.begin("fold", context, links=origin.others, started_ms=started_ms)
        headers.append(span.context.header)
    if candle.closed or origin.received_ms < live_since_ms:
        return Outgoing(candle, headers, span=span)
    headers.append((RECEIVED_HEADER, str(origin.received_ms).encode()))
    return Outgoing(candle, headers, origin.received_ms, span)
