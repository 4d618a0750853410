"""Times as files write them, each as a moment or as what the clock of the file showed."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from marketdata.contract.numbers import quoted
from marketdata.contract.times import Instant, Time, WallTime, parse_time, time_in
from marketdata.errors import InvalidItem

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

#: HistData: Eastern Standard Time without summer time, whatever the instrument.
_EST: Final = timezone(timedelta(hours=-5))
_HISTDATA: Final = re.compile(r"([0-9]{8}) ([0-9]{6})([0-9]{3})?")

#: Dukascopy's pages: `01.03.2013 00:00:00.605 GMT+0100`.
_DAY_FIRST: Final = re.compile(
    r"([0-9]{2})\.([0-9]{2})\.([0-9]{4}) ([0-9:.]{8,12})(?: (?:GMT|UTC)([+-][0-9]{2}):?([0-9]{2}))?"
)

_DAY: Final = re.compile(r"([0-9]{4})([.\-/]?)([0-9]{2})\2([0-9]{2})")


def file_time(cell: str, field: str, *, is_utc: bool = False) -> Time:
    """The time in one cell; `is_utc` says that a time without an offset is one of UTC.

    Raises:
        InvalidItem: naming `field` when it is none.
    """
    text = cell.strip()
    if found := _HISTDATA.fullmatch(text):
        moment = _parsed(f"{found[1]}{found[2]}", "%Y%m%d%H%M%S", field).replace(tzinfo=_EST)
        return Instant((moment - _EPOCH) // _MILLISECOND + int(found[3] or 0), found[3] is None, field)
    if found := _DAY_FIRST.fullmatch(text):
        day, month, year, clock, hours, minutes = found.groups()
        offset = f"{hours}:{minutes}" if hours else ""
        time = parse_time(f"{year}-{month}-{day}T{clock}{offset}", field)
    else:
        time = time_in(text, field)
    return Instant(time.ms, time.coarse, field) if is_utc and isinstance(time, WallTime) else time


def day_ms_of(text: str) -> int:
    """The start of the day `2019.02.04`, `2019-02-04` or `20190204` (milliseconds, of the clock that it is of).

    Raises:
        InvalidItem: when it is none.
    """
    if found := _DAY.fullmatch(text.strip()):
        moment = _parsed(f"{found[1]}{found[3]}{found[4]}", "%Y%m%d", "date")
        return (moment.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
    raise InvalidItem("date", f"{quoted(text)} is no date such as 2019.02.04")


def ms_of_day(text: str) -> int:
    """Milliseconds since midnight of `00:00:01.234`, of `00:00:01`, of `00:00` and of `000001`.

    Raises:
        InvalidItem: when it is none.
    """
    clock, _, fraction = text.strip().partition(".")
    parts = [clock[:2], clock[2:4], clock[4:]] if len(clock) == 6 and clock.isdecimal() else clock.split(":")
    if len(parts) == 2:
        parts.append("0")
    if len(parts) == 3 and all(part.isdecimal() for part in parts) and (fraction.isdecimal() or not fraction):
        hour, minute, second = map(int, parts)
        if hour < 24 and minute < 60 and second < 60:
            return (hour * 3_600 + minute * 60 + second) * 1_000 + int(fraction[:3].ljust(3, "0"))
    raise InvalidItem("time", f"{quoted(text)} is no time of day such as 00:00:01.234")


def is_time(cell: str) -> bool:
    """Whether a cell of a line without header is a date, or a date with a time of day; numbers are none."""
    text = cell.strip()
    if _DAY.fullmatch(text):
        return "." in text or "-" in text
    if text.replace(".", "", 1).isdecimal():
        return False
    try:
        file_time(text, "")
    except InvalidItem:
        return False
    return True


def _parsed(text: str, form: str, field: str) -> datetime:
    try:
        return datetime.strptime(text, form)  # noqa: DTZ007  # the caller knows the zone
    except ValueError:
        raise InvalidItem(field, f"{quoted(text)} is no date") from None
