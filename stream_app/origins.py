"""Where the newest ticks of each minute came from, noted once per poll, and what of it the candle's record carries."""

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from aiokafka import ConsumerRecord

from marketdata.candle import Candle
from marketdata.stages import RECEIVED_HEADER
from marketdata.tick import Frame
from stream_app.emitter import Outgoing
from stream_app.window import Minute, Origin, Window

_OFFSET: Final = attrgetter("offset")


def note_origins(window: Window, records: Sequence[ConsumerRecord], frames: Sequence[tuple[int, Frame]]) -> None:
    """Note, of every minute that this poll touched, the newest frame; both sequences are in order of their offsets.

    A poll touches few minutes and has thousands of records, so the loop over the records is left alone.
    """
    for minute in window.touched():
        offset = minute.fold.last_offset
        at = bisect_left(frames, (offset,))  # a tuple of one comes before those that begin so
        if at == len(frames) or frames[at][0] != offset:
            continue  # all of it had been read before
        record = records[bisect_left(records, offset, key=_OFFSET)]
        minute.origin = Origin(frames[at][1].received, record.headers)


def outgoing(minute: Minute, candle: Candle, live_since_ms: int) -> Outgoing:
    """The candle with the headers of its record.

    What was received before `live_since_ms` (UTC epoch milliseconds) waited for a reader, in a replay for years, and a
    minute is closed long after its last tick: neither says how quick the pipeline is.
    """
    origin = minute.origin
    if origin is None or candle.closed or origin.received_ms < live_since_ms:
        return Outgoing(candle)
    return Outgoing(candle, [(RECEIVED_HEADER, str(origin.received_ms).encode())], origin.received_ms)
