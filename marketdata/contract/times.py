"""The time of an item: a moment, or what the sender's clock showed. Only `clock.Clock` makes one of the other."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import isfinite
from typing import Any, Final, NamedTuple

from marketdata.contract.numbers import finite, quoted, whole
from marketdata.errors import InvalidItem
from marketdata.tick import MAX_TIME_MSC

#: 1971-01-01T00:00:00Z: earlier means that seconds were sent as milliseconds (epoch milliseconds).
EARLIEST_MS: Final = 31_536_000_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

#: Distinct texts that are parsed only once; a batch of whole seconds has few.
_CACHED_TEXTS: Final = 1_000

#: Numbers that are seconds: 2001 to 2286. As milliseconds they would be days in 1970.
_SECONDS_FROM: Final = 10**9
_SECONDS_BELOW: Final = 10**10

#: A number in quotation marks; a date without dashes has 8 digits.
_EPOCH_TEXT: Final = re.compile(r"[0-9]{9,13}(?:\.[0-9]{1,9})?")

_MQL_DATE: Final = re.compile(r"[0-9]{4}\.[0-9]{2}\.[0-9]{2}(?:[ T]|$)")

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

    The first that is there, and not 0, counts: `time_msc` and `ts_msc` (milliseconds), then `ts` as a number, `time`,
    `ts` as text, `timestamp`. Those are seconds from 10^9 to 10^10, milliseconds above, or one of the forms of
    `parse_time`; a number is what the sender's clock showed.

    Raises:
        InvalidItem: when there is none, or it cannot be read.
    """
    for field in ("time_msc", "ts_msc"):
        if _is_there(value := item.get(field)):
            return WallTime(whole(_floored(value), field, 2**63 - 1), False, field)
    ts = item.get("ts")
    fields = ("time", "ts", "timestamp") if isinstance(ts, str) else ("ts", "time", "timestamp")
    for field in fields:
        if _is_there(value := item.get(field)):
            return time_in(value, field)
    raise InvalidItem("ts", "no time: send time_msc, ts_msc or ts")


def time_in(value: object, field: str) -> Time:
    """The time that a number (seconds from 10^9 to 10^10, milliseconds above) or a text (`parse_time`) says.

    Raises:
        InvalidItem: naming `field` when it says none.
    """
    if not isinstance(value, str) or _EPOCH_TEXT.fullmatch(value):
        return _epoch_time(value, field)
    parsed = parse_time(value, field)
    return type(parsed)(parsed.ms, parsed.coarse, field)


def parse_time(text: str, field: str) -> Time:
    """The time that a text says, in ISO-8601 or as MQL's TimeToString writes it, `2025.10.20 02:20:00`.

    `Z` or no offset is what the sender's clock showed, any other offset says the moment itself.

    Raises:
        InvalidItem: naming `field` when it is neither.
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
    iso = text[:-1] if is_wall else text
    if _MQL_DATE.match(iso):
        iso = iso[:10].replace(".", "-") + iso[10:]
    moment = datetime.fromisoformat(iso)
    coarse = "." not in iso and "," not in iso
    if moment.tzinfo is None:
        return WallTime((moment.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND, coarse)
    if is_wall:
        raise ValueError("an offset and Z")
    return Instant((moment - _EPOCH) // _MILLISECOND, coarse)


def _is_there(value: object) -> bool:
    return bool(value) and value != "0"


def _epoch_time(value: object, field: str) -> WallTime:
    amount = finite(value, field)
    if _SECONDS_FROM <= amount < _SECONDS_BELOW:
        ms = round(amount * 1000)
        return WallTime(ms, ms % 1000 == 0, field)
    if not EARLIEST_MS <= amount <= MAX_TIME_MSC:
        raise InvalidItem(field, f"neither seconds (10 digits) nor milliseconds (13) since 1970: {quoted(value)}")
    ms = int(amount)
    return WallTime(ms, ms % 1000 == 0, field)


def _floored(value: object) -> object:
    return int(value) if isinstance(value, float) and isfinite(value) else value
