"""From the sender's wall clock to UTC.

MT5 writes the broker's wall clock as if it were UTC. In the hour that a clock shows twice, when summer time ends, ticks
that come as they happen take the reading nearest to their receipt. Otherwise the order tells: a time that goes back by
more than half of the step, after earlier ones of its symbol, is of the second pass. A time that a clock never shows is
read with the offset before the jump. A sender that knows better sends `utc_offset_s`, or moments with an offset.
"""

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

from marketdata.contract.times import EARLIEST_MS, Instant, Time, WallTime
from marketdata.errors import InvalidItem
from marketdata.tick import MAX_TIME_MSC, MINUTE_MS

_DAY_MS: Final = 86_400_000

#: How far a sender's clock may be ahead of ours (milliseconds).
_AHEAD_MS: Final = 60_000

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
        if minute != self._minute and 0 <= wall_ms <= min(self.latest_ms + _DAY_MS, MAX_TIME_MSC):
            wall = datetime.fromtimestamp(minute * 60, UTC).replace(tzinfo=self._zone)
            first, second = (_offset_ms(wall.replace(fold=fold)) for fold in (0, 1))
            if second < first and self._is_second(wall_ms, first, second, symbol):
                return second
            self._minute_shift_ms = first
            self._minute = -1 if second < first else minute
        return self._minute_shift_ms

    def _is_second(self, wall_ms: int, first: int, second: int, symbol: str) -> bool:
        """Whether a time that the clock shows twice is of the second pass, given the offsets of both (milliseconds)."""
        step_ms = first - second
        if self._now_ms is not None:
            since_first, since_second = (self._now_ms - (wall_ms - offset) for offset in (first, second))
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
    """The zone that is always `utc_offset_seconds` ahead of UTC."""
    return timezone(timedelta(seconds=utc_offset_seconds))


def _fixed_shift_ms(zone: tzinfo | None) -> int | None:
    if zone is None:
        return 0
    if isinstance(zone, timezone):
        return zone.utcoffset(None) // _MILLISECOND
    return None
