"""What could not be used, kept in `ticks.rejected` as it came."""

import json
from typing import Final

import msgspec

from producer.flush import Record
from producer.frames import Origin
from runtime.rejected import HTTP, WHOLE_BODY, headers_of, size_header
from runtime.settings import Settings

#: Kept of one item or one body (bytes).
_MAX_BYTES: Final = 64 * 1024


class RejectWriter:
    """Writes records of `ticks.rejected`: the item, with the reason in the headers."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.ticks_rejected_topic

    def item(self, item: object, index: int, reason: str, origin: Origin) -> Record:
        """The record that keeps item `index` of a body."""
        return self._record(_json_of(item), index, reason, origin)

    def body(self, body: bytes, reason: str, origin: Origin) -> Record:
        """The record that keeps a body that has no items."""
        return self._record(body, WHOLE_BODY, reason, origin)

    def _record(self, value: bytes, index: int, reason: str, origin: Origin) -> Record:
        headers = [
            *headers_of(reason, HTTP, -1, index),
            ("source", origin.source.encode()),
            *origin.headers,
        ]
        if len(value) > _MAX_BYTES:
            headers.append(size_header(len(value)))
        return Record(self._topic, origin.source.encode(), value[:_MAX_BYTES], origin.received_ms, headers)


def _json_of(item: object) -> bytes:
    """The item as JSON; what JSON cannot say (NaN, half a surrogate) as Python writes it."""
    try:
        text = msgspec.json.encode(item)
        if b"null" not in text:
            return text
        # msgspec writes NaN as null, and the one is not the other.
        return json.dumps(item, separators=(",", ":")).encode()
    except RecursionError:
        return b'"nested too deeply"'
    except (UnicodeEncodeError, ValueError, OverflowError, msgspec.MsgspecError):
        return _as_python_writes_it(item)


def _as_python_writes_it(item: object) -> bytes:
    try:
        return json.dumps(item, separators=(",", ":")).encode()
    except (RecursionError, ValueError):  # ValueError: more digits than Python converts
        return b'"cannot be written as JSON"'
