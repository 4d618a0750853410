"""From the sender's wall clock to UTC.

MT5 writes the broker's wall clock as if it were UTC. Where a wall time happens twice, in the hour when summer time
ends, it is taken for the first (Python: fold=0); one that never happens, when summer time begins, is read with the
offset before the jump. A sender that knows better sends `utc_offset_s`, or instants with an offset.
"""

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

from marketdata.contract.times import EARLIEST_MS, Instant, Time, WallTime
from marketdata.errors import InvalidItem
from marketdata.tick import MAX_TIME_MSC, MINUTE_MS

_DAY_MS: Final = 86_400_000
_MILLISECOND: Final = timedelta(milliseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """The sender's clock during one request.

    Args:
        zone: the zone of the sender's wall clock; None is UTC.
        now_ms: when the request came (UTC epoch milliseconds); a time may be up to a day later. None sets no limit.
        is_known: whether `zone` is that of the sender; the relay does not know those that the server has settings of.
    """

    def __init__(self, zone: tzinfo | None, now_ms: int | None, *, is_known: bool = True) -> None:
        self.is_known = is_known
        self.latest_ms = MAX_TIME_MSC if now_ms is None else now_ms + _DAY_MS
        #: Milliseconds to subtract from wall times, or None when that depends on the time.
        self.shift_ms = _fixed_shift_ms(zone)
        self._zone = zone
        self._minute = -1
        self._minute_shift_ms = 0

    def utc_ms(self, time: Time) -> int:
        """The moment of a time (UTC epoch milliseconds).

        Raises:
            InvalidItem: for moments before 1971 or more than a day ahead.
        """
        return self.checked(time.ms if isinstance(time, Instant) else time.ms - self.shift_at(time.ms), time.field)

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

    def shift_at(self, wall_ms: int) -> int:
        """How far the sender's clock was ahead of UTC when it showed `wall_ms` (milliseconds)."""
        if self.shift_ms is not None:
            return self.shift_ms
        minute = wall_ms // MINUTE_MS
        if minute != self._minute and 0 <= wall_ms <= min(self.latest_ms + _DAY_MS, MAX_TIME_MSC):
            wall = datetime.fromtimestamp(minute * 60, UTC).replace(tzinfo=self._zone, fold=0)
            offset = wall.utcoffset() or timedelta()
            self._minute, self._minute_shift_ms = minute, offset // _MILLISECOND
        return self._minute_shift_ms


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
    """The zone that is always `utc_offset_seconds` ahead of UTC."""
    return timezone(timedelta(seconds=utc_offset_seconds))


def _fixed_shift_ms(zone: tzinfo | None) -> int | None:
    if zone is None:
        return 0
    if isinstance(zone, timezone):
        return zone.utcoffset(None) // _MILLISECOND
    return None
