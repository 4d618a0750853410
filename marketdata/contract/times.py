"""The time of an item: a moment, or what the sender's clock showed. Only `Clock` converts between them."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from math import isfinite
from typing import Any, Final, NamedTuple

from marketdata.contract.fields import AROUND, finite, is_said, quoted, whole
from marketdata.errors import InvalidItem
from marketdata.tick import DAY_MS, MAX_TIME_MSC, MINUTE_MS

#: 1971-01-01T00:00:00Z: earlier means that seconds were sent as milliseconds (epoch milliseconds).
EARLIEST_MS: Final = 31_536_000_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

#: Distinct texts that are parsed only once; a batch of whole seconds has few.
_CACHED_TEXTS: Final = 1_000

#: Numbers that are seconds: 2001 to 2286; as milliseconds they would be days in 1970. A bar's may be of 1971: a number
#: that is no time hardly opens one, but what a clock of the terminal's own counts would make a tick of 1972.
_SECONDS_FROM: Final = 10**9
_OPENING_SECONDS_FROM: Final = EARLIEST_MS // 1000
_SECONDS_BELOW: Final = 10**10

#: Hour and minute, with a colon or without one as ISO-8601 allows; those of an offset stand behind its sign.
_MINUTE: Final = re.compile(r"(?<![0-9+-])[0-9]{1,2}:[0-9]{2}|[T ][0-9]{4}", re.IGNORECASE)

#: A number in quotation marks; a date without dashes has 8 digits.
_EPOCH_TEXT: Final = re.compile(r"[0-9]{9,19}(?:\.[0-9]{1,9})?")

#: Micro- and nanoseconds, as pandas and databases count: from where they cannot be milliseconds (1978) and from 1971,
#: up to 2286; how many of them are a millisecond.
_FINE: Final = ((MAX_TIME_MSC + 1, 10**16, 10**3), (EARLIEST_MS * 10**6, 10**19, 10**6))

#: MQL's TimeToString, and the same with slashes or without leading zeros.
_MQL_TIME: Final = re.compile(
    r"([0-9]{4})[./]([0-9]{1,2})[./]([0-9]{1,2})(?:[ T]([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.,:]([0-9]{1,9}))?)?)?"
)

#: Behind the seconds, a fraction of them.
_FRACTION: Final = re.compile(r"[0-9]{2}(?::?[0-9]{2}){2}[.,:][0-9]")

#: No text of a time is longer (characters).
_MAX_TEXT: Final = 64

_QUARTER_SECONDS: Final = 900

#: How far a sender's clock may be ahead of ours (milliseconds).
_AHEAD_MS: Final = 60_000


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


def time_of(item: Mapping[str, Any], *, is_opening: bool = False) -> Time:
    """The time of a tick or a bar.

    The first that is there, and not 0, counts: `time_msc` and `ts_msc` (milliseconds), then `ts` as a number, `time`,
    `ts` as text, `timestamp`. Those are seconds up to 10^10, from 2001 or of a bar from 1971, milliseconds above, or
    one of the forms of `parse_time`; a number is what the sender's clock showed.

    Args:
        item: with the names of its fields in lower case.
        is_opening: whether it is of a bar, which a day or an hour alone may open.

    Raises:
        InvalidItem: when there is none, or it cannot be read.
    """
    for field in ("time_msc", "ts_msc"):
        if says_time(value := item.get(field)):
            ms = whole(_floored(value), field, 2**63 - 1)
            if ms > MAX_TIME_MSC:
                raise InvalidItem(field, f"milliseconds since 1970 are expected (13 digits), not {ms}")
            return WallTime(ms, False, field)
    ts = item.get("ts")
    fields = ("time", "ts", "timestamp") if isinstance(ts, str) else ("ts", "time", "timestamp")
    for field in fields:
        if says_time(value := item.get(field)):
            return time_in(value, field, is_opening=is_opening)
    raise InvalidItem("ts", "no time: send time_msc, ts_msc or ts")


def time_in(value: object, field: str, *, is_opening: bool = True) -> Time:
    """The time given as a number (seconds up to 10^10, milliseconds above) or as a text (`parse_time`).

    Raises:
        InvalidItem: naming `field` when it is neither.
    """
    if not isinstance(value, str) or _EPOCH_TEXT.fullmatch(value.strip(AROUND)):
        return _epoch_time(value, field, _OPENING_SECONDS_FROM if is_opening else _SECONDS_FROM)
    parsed = parse_time(value, field, is_opening=is_opening)
    return type(parsed)(parsed.ms, parsed.coarse, field)


def parse_time(text: str, field: str, *, is_opening: bool = False) -> Time:
    """The time in a text, in ISO-8601 or as MQL's TimeToString writes it, `2025.10.20 02:20:00`.

    With `Z` or no offset it is what the sender's clock showed, with any other offset the moment itself.

    Raises:
        InvalidItem: naming `field` when it is neither, or has no minute and is not the opening of a bar: all ticks of
            a day would be of its first minute.
    """
    if len(text) <= _MAX_TEXT:
        try:
            parsed, has_minute = _parsed(text)
        except ValueError:
            pass
        else:
            if is_opening or has_minute:
                return parsed
            raise InvalidItem(field, f"a time of day is expected, not only {quoted(text)}")
    raise InvalidItem(field, f"not an ISO-8601 time: {quoted(text)}")


@lru_cache(_CACHED_TEXTS)
def _parsed(text: str) -> tuple[Time, bool]:
    """The time, and whether its minute is said."""
    text = text.strip(AROUND)
    is_wall = text[-1:] in ("Z", "z")
    iso = text[:-1] if is_wall else text
    if mql := _MQL_TIME.fullmatch(iso):
        year, month, day, *time, fraction = mql.groups(default="0")
        iso = f"{year}-{month:>02}-{day:>02}T{':'.join(f'{part:>02}' for part in time)}"
        iso += f".{fraction}" if mql[7] else ""
    if iso[10:11] in ("+", "-"):
        raise ValueError("an offset behind a day alone, which Python takes for a time of day")
    moment = datetime.fromisoformat(iso)
    coarse = _FRACTION.search(iso, 8) is None
    # In nearly all it stands behind 2025-10-20T02; to search for it costs a fifth of all this.
    has_minute = text[13:14] == ":" or _MINUTE.search(text) is not None
    if moment.tzinfo is None:
        return WallTime((moment.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND, coarse), has_minute
    if is_wall:
        raise ValueError("an offset and Z")
    return Instant((moment - _EPOCH) // _MILLISECOND, coarse), has_minute


def says_time(value: object) -> bool:
    """Whether a field says a time, right or wrong; 0 and what `is_said` calls nothing are none."""
    return bool(value) and value != "0" and is_said(value)


def _epoch_time(value: object, field: str, seconds_from: int) -> WallTime:
    amount = finite(value, field)
    for low, high, of_a_millisecond in _FINE:
        if low <= amount < high:
            ms = _whole(value, amount) // of_a_millisecond
            return WallTime(ms, ms % 1000 == 0, field)
    if seconds_from <= amount < _SECONDS_BELOW:
        ms = round(amount * 1000)
        return WallTime(ms, ms % 1000 == 0, field)
    if not EARLIEST_MS <= amount <= MAX_TIME_MSC:
        raise InvalidItem(field, f"neither seconds (10 digits) nor milliseconds (13) since 1970: {quoted(value)}")
    ms = int(amount)
    return WallTime(ms, ms % 1000 == 0, field)


def _whole(value: object, amount: float) -> int:
    """The number with all its digits; of nanoseconds a double lacks the last three."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) else round(int(amount), -3 if amount >= 2**53 else 0)


def _floored(value: object) -> object:
    return int(value) if isinstance(value, float) and isfinite(value) else value


class Clock:
    """The sender's clock during one request.

    Args:
        zone: the zone of the sender's wall clock; None is UTC.
        now_ms: when the request came (UTC epoch milliseconds); a time may be up to a day later. None sets no limit.
        is_known: whether `zone` is that of the sender; the relay does not know those that the server has settings of.
    """

    def __init__(self, zone: tzinfo | None, now_ms: int | None, *, is_known: bool = True) -> None:
        self.is_known = is_known
        self.latest_ms = MAX_TIME_MSC if now_ms is None else now_ms + DAY_MS
        #: Milliseconds to subtract from wall times, or None when that depends on the time.
        self.shift_ms = _fixed_shift_ms(zone)
        self._zone = zone
        self._minute = -1
        self._minute_shift_ms = 0
        self._now_ms = now_ms
        #: Of the hour that the clock shows twice, by symbol: the latest time so far, and whether the clock went back.
        self._passes: dict[str, tuple[int, bool]] = {}

    def utc_ms(self, time: Time, symbol: str = "") -> int:
        """The moment of a time (UTC epoch milliseconds); those of one symbol are asked for in their order.

        Raises:
            InvalidItem: for moments before 1971 or more than a day ahead.
        """
        if isinstance(time, Instant):
            return self.checked(time.ms, time.field)
        return self.checked(time.ms - self.shift_at(time.ms, symbol), time.field)

    def opening_ms(self, opening: Time, series: str, width_ms: int, seen_ms: int | None) -> int:
        """The moment at which a bar opened (UTC epoch milliseconds); those of one series are asked for in their order.

        In the hour that the clock shows twice a bar goes by what came with it: the latest time at which its sender
        saw it open (`seen_ms`, on its clock), else that it was over when it came. A bar that is wider than the hour
        opened in the first pass.

        Raises:
            InvalidItem: as `utc_ms`.
        """
        shift_ms = None if isinstance(opening, WallTime) else 0
        if shift_ms is None and (shift_ms := self.shift_ms) is None:
            first, second = self._offsets_at(opening.ms)
            is_second = first - second >= width_ms and (
                self._is_second(opening.ms, first, second, series, ends_after_ms=width_ms)
                if seen_ms is None
                else self._is_second(seen_ms, first, second, series)
            )
            shift_ms = second if is_second else first
        return self.checked(opening.ms - shift_ms, opening.field)

    def wall_ms(self, time: Time) -> int:
        """What the sender's clock showed at that time (epoch milliseconds as if it were UTC)."""
        if isinstance(time, WallTime):
            return time.ms
        if self.shift_ms is not None:
            return time.ms + self.shift_ms
        return (
            time.ms
            + ((_EPOCH + time.ms * _MILLISECOND).astimezone(self._zone).utcoffset() or timedelta()) // _MILLISECOND
        )

    def checked(self, time_ms: int, field: str) -> int:
        """`time_ms` (UTC epoch milliseconds), when it is within the limits.

        Raises:
            InvalidItem: when it is not.
        """
        if time_ms < EARLIEST_MS:
            raise InvalidItem(field, "before 1971-01-01; milliseconds are expected, not seconds")
        if time_ms > self.latest_ms:
            raise InvalidItem(field, "more than a day ahead; is the zone of the source right?")
        return time_ms

    def shift_at(self, wall_ms: int, symbol: str) -> int:
        """How far the sender's clock was ahead of UTC when it showed `wall_ms` (milliseconds)."""
        if self.shift_ms is not None:
            return self.shift_ms
        minute = wall_ms // MINUTE_MS
        if minute != self._minute:
            first, second = self._offsets_at(wall_ms)
            if second < first and self._is_second(wall_ms, first, second, symbol):
                return second
            self._minute_shift_ms = first
            self._minute = -1 if second < first else minute
        return self._minute_shift_ms

    def _offsets_at(self, wall_ms: int) -> tuple[int, int]:
        """How far the clock was ahead of UTC when it showed `wall_ms` for the first and the last time (milliseconds).

        In the hour that it skips in spring both are what they are around it; beyond the limits of times, 0.
        """
        if not 0 <= wall_ms <= min(self.latest_ms + DAY_MS, MAX_TIME_MSC):
            return 0, 0
        wall = datetime.fromtimestamp(wall_ms // MINUTE_MS * 60, UTC).replace(tzinfo=self._zone)
        return _offset_ms(wall.replace(fold=0)), _offset_ms(wall.replace(fold=1))

    def _is_second(self, wall_ms: int, first: int, second: int, symbol: str, *, ends_after_ms: int = 0) -> bool:
        """Whether a time that the clock shows twice is of the second pass, given the offsets of both (milliseconds).

        `ends_after_ms`: how long that lasted which began then and was over when it was sent.
        """
        step_ms = first - second
        if self._now_ms is not None:
            ended_ms = wall_ms + ends_after_ms
            since_first, since_second = (self._now_ms - (ended_ms - offset) for offset in (first, second))
            if -_AHEAD_MS <= since_second <= step_ms:
                return since_second <= abs(since_first)
            if -_AHEAD_MS <= since_first <= step_ms:
                return False
        highest_ms, is_second = self._passes.get(symbol, (wall_ms, False))
        is_second = (is_second or wall_ms < highest_ms - step_ms // 2) and wall_ms > highest_ms - 2 * step_ms
        self._passes[symbol] = (max(highest_ms, wall_ms), is_second)
        return is_second


def _offset_ms(wall: datetime) -> int:
    return (wall.utcoffset() or timedelta()) // _MILLISECOND


class ShiftedZone(tzinfo):
    """A zone's clock put forward by a fixed time, as most MetaTrader brokers put forward New York's by seven hours.

    A change of clocks in the zone comes at the same moment here, so at another hour of the wall clock.
    """

    def __init__(self, zone: tzinfo, ahead: timedelta) -> None:
        self._zone, self._ahead = zone, ahead

    def __repr__(self) -> str:
        return f"ShiftedZone({self._zone}, {self._ahead})"

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        """See `tzinfo`."""
        offset = None if dt is None else self._in_zone(dt).utcoffset()
        return None if offset is None else offset + self._ahead

    def dst(self, dt: datetime | None) -> timedelta | None:
        """See `tzinfo`."""
        return None if dt is None else self._in_zone(dt).dst()

    def tzname(self, dt: datetime | None) -> str | None:
        """See `tzinfo`."""
        return None if dt is None else self._in_zone(dt).tzname()

    def fromutc(self, dt: datetime) -> datetime:
        """See `tzinfo`."""
        in_zone = self._zone.fromutc(dt.replace(tzinfo=self._zone))
        return (in_zone.replace(tzinfo=None) + self._ahead).replace(tzinfo=self, fold=in_zone.fold)

    def _in_zone(self, dt: datetime) -> datetime:
        return (dt.replace(tzinfo=None) - self._ahead).replace(tzinfo=self._zone, fold=dt.fold)


def offset_zone(utc_offset_seconds: int) -> timezone:
    """The zone that is always `utc_offset_seconds` ahead of UTC, to the quarter of an hour as all zones are.

    Scripts send the difference of two clocks, such as MQL's TimeCurrent() - TimeGMT(), which is off by some seconds and
    not always by the same: their ticks would change minutes, and a resend would be new ticks.
    """
    return timezone(timedelta(seconds=round(utc_offset_seconds / _QUARTER_SECONDS) * _QUARTER_SECONDS))


def _fixed_shift_ms(zone: tzinfo | None) -> int | None:
    if zone is None:
        return 0
    if isinstance(zone, timezone):
        return zone.utcoffset(None) // _MILLISECOND
    return None
