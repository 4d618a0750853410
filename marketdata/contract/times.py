"""The time of an item: a moment, or what the sender's clock showed. Only `clock.Clock` makes one of the other."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple

from marketdata.contract.numbers import number, quoted, whole
from marketdata.errors import InvalidItem

#: 1971-01-01T00:00:00Z: earlier means that seconds were sent as milliseconds (epoch milliseconds).
EARLIEST_MS: Final = 31_536_000_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

#: Distinct texts that are parsed only once; a batch of whole seconds has few.
_CACHED_TEXTS: Final = 1_000

#: No text of a time is longer (characters).
_MAX_TEXT: Final = 64


class Instant(NamedTuple):
    """A moment, whatever the sender's clock shows: an ISO-8601 time with an offset."""

    #: UTC epoch milliseconds.
    ms: int
    #: Whether it is known to the second only.
    coarse: bool
    #: The field that it was read from.
    field: str = ""


class WallTime(NamedTuple):
    """What the sender's clock showed."""

    #: Epoch milliseconds as if that clock were UTC.
    ms: int
    coarse: bool
    field: str = ""


Time = Instant | WallTime


def time_of(item: Mapping[str, Any]) -> Time:
    """The time of a tick or a bar.

    The first that is there, and not 0, counts: `time_msc`, `ts_msc`, `ts` as a number, `time` and `ts` as ISO-8601.

    Raises:
        InvalidItem: when there is none, or it cannot be read.
    """
    for field in ("time_msc", "ts_msc"):
        if value := item.get(field):
            return WallTime(_milliseconds(value, field), False, field)
    ts = item.get("ts")
    if ts and not isinstance(ts, str):
        wall_ms = _milliseconds(ts, "ts")
        return WallTime(wall_ms, wall_ms % 1000 == 0, "ts")
    for field in ("time", "ts"):
        if value := item.get(field):
            if not isinstance(value, str):
                raise InvalidItem(field, f"an ISO-8601 time is expected, not {quoted(value)}; use {field}_msc")
            parsed = parse_time(value, field)
            return type(parsed)(parsed.ms, parsed.coarse, field)
    raise InvalidItem("ts", "no time: send time_msc, ts_msc or ts")


def parse_time(text: str, field: str) -> Time:
    """The time that a text says; `Z` or no offset is the sender's clock, any other offset says the moment itself.

    Raises:
        InvalidItem: naming `field` when it is no ISO-8601 time.
    """
    if len(text) <= _MAX_TEXT:
        try:
            return _parsed(text)
        except ValueError:
            pass
    raise InvalidItem(field, f"not an ISO-8601 time: {quoted(text)}")


@lru_cache(_CACHED_TEXTS)
def _parsed(text: str) -> Time:
    is_wall = text[-1:] in ("Z", "z")
    moment = datetime.fromisoformat(text[:-1] if is_wall else text)
    coarse = "." not in text and "," not in text
    if moment.tzinfo is None:
        return WallTime((moment.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND, coarse)
    if is_wall:
        raise ValueError("an offset and Z")
    return Instant((moment - _EPOCH) // _MILLISECOND, coarse)


def _milliseconds(value: object, field: str) -> int:
    return int(number(value, field)) if isinstance(value, float) else whole(value, field, 2**63 - 1)
