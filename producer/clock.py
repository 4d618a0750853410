"""From the broker's wall clock to UTC.

MT5 writes the broker's wall clock as if it were UTC. Where a wall time happens twice, in the hour when summer time
ends, it is taken for the first (Python: fold=0); one that never happens, when summer time begins, is read with the
offset before the jump. A sender that knows better sends `utc_offset_s`, or instants with an offset.
"""

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

from marketdata.contract.items import EARLIEST_MS
from marketdata.contract.numbers import quoted
from marketdata.errors import InvalidItem
from marketdata.tick import MINUTE_MS
from runtime.topics import DAY_MS

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

#: A batch has few distinct whole seconds; more distinct texts than this are not worth keeping.
_MAX_TEXTS: Final = 1_000


class Clock:
    """The sender's clock during one request.

    Args:
        zone: the zone of the sender's wall clock; None is UTC.
        now_ms: when the request came (UTC epoch milliseconds); a time may be up to a day later.
    """

    def __init__(self, zone: tzinfo | None, now_ms: int) -> None:
        self.latest_ms = now_ms + DAY_MS
        #: Milliseconds to subtract from wall times, or None when that depends on the time.
        self.shift_ms = _fixed_shift_ms(zone)
        self._zone = zone
        self._minute = -1
        self._minute_shift_ms = 0
        self._texts: dict[str, tuple[int, bool]] = {}

    def utc_ms(self, wall_ms: int, field: str) -> int:
        """The instant (UTC epoch milliseconds) at which the sender's clock showed `wall_ms`.

        Raises:
            InvalidItem: for times before 1971 or more than a day ahead.
        """
        return self.checked(wall_ms - self._shift_at(wall_ms), field)

    def parse(self, text: str, field: str) -> tuple[int, bool]:
        """The instant (UTC epoch milliseconds) of an ISO-8601 time, and whether it is one of whole seconds.

        `Z` or no offset is the sender's wall clock, any other offset says the instant itself.

        Raises:
            InvalidItem: for other texts and times before 1971 or more than a day ahead.
        """
        known = self._texts.get(text)
        if known is not None:
            return known
        is_wall = text[-1:] in ("Z", "z")
        try:
            moment = datetime.fromisoformat(text[:-1] if is_wall else text)
        except ValueError:
            raise InvalidItem(field, f"not an ISO-8601 time: {quoted(text)}") from None
        if moment.tzinfo is None:
            time_ms = self.utc_ms((moment.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND, field)
        elif is_wall:
            raise InvalidItem(field, f"not an ISO-8601 time: {quoted(text)}")
        else:
            time_ms = self.checked((moment - _EPOCH) // _MILLISECOND, field)
        parsed = (time_ms, "." not in text and "," not in text)
        if len(self._texts) < _MAX_TEXTS:
            self._texts[text] = parsed
        return parsed

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

    def _shift_at(self, wall_ms: int) -> int:
        if self.shift_ms is not None:
            return self.shift_ms
        minute = wall_ms // MINUTE_MS
        if minute != self._minute and 0 <= wall_ms <= self.latest_ms + DAY_MS:
            wall = datetime.fromtimestamp(minute * 60, UTC).replace(tzinfo=self._zone, fold=0)
            offset = wall.utcoffset() or timedelta()
            self._minute, self._minute_shift_ms = minute, offset // _MILLISECOND
        return self._minute_shift_ms


def offset_zone(utc_offset_seconds: int) -> timezone:
    """The zone that is always `utc_offset_seconds` ahead of UTC."""
    return timezone(timedelta(seconds=utc_offset_seconds))


def _fixed_shift_ms(zone: tzinfo | None) -> int | None:
    if zone is None:
        return 0
    if isinstance(zone, timezone):
        return zone.utcoffset(None) // _MILLISECOND
    return None
