"""Candles of every timeframe once more, naive: boundaries are listed one by one, and minutes are sorted into them."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

TIMEFRAMES = ("M1", "M5", "M15", "M30", "H1", "H4", "D1", "W1", "MN1")

_MINUTES = {"M1": 1, "M5": 5, "M15": 15, "M30": 30, "H1": 60}

#: Hours by the clock on the wall.
_HOURS = {"H2": 2, "H4": 4}


class Bar(NamedTuple):
    """A row of `candles()`."""

    ts: datetime
    symbol: str
    source: str
    open: float
    high: float
    low: float
    close: float
    volume: int
    real_volume: float | None
    spread: int | None
    closed: bool


@dataclass(frozen=True)
class Day:
    """When days and weeks begin."""

    zone: str = "UTC"
    start: time = time(0)
    week_start: str = "sunday"

    def starts(self, timeframe: str, first: date, last: date) -> list[datetime]:
        """Every start of a period from `first` to `last`, as UTC."""
        if timeframe in _MINUTES:
            width = timedelta(minutes=_MINUTES[timeframe])
            moment, end = self._moment(first, 0), self._moment(last, 0)
            return [moment + n * width for n in range((end - moment) // width + 1)]
        dates = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        if timeframe in _HOURS:
            return sorted(self._moment(day, hours) for day in dates for hours in range(0, 24, _HOURS[timeframe]))
        if timeframe == "W1":
            dates = [day for day in dates if day.isoweekday() == (7 if self.week_start == "sunday" else 1)]
        elif timeframe == "MN1":
            dates = [day for day in dates if day.day == 1]
        return sorted(self._moment(day, 0) for day in dates)

    def _moment(self, day: date, hours: int) -> datetime:
        # A day that starts at noon or later starts on the evening before its date.
        begin = datetime.combine(day, self.start) + timedelta(hours=hours, days=-1 if self.start >= time(12) else 0)
        # Of the two readings of a time that exists twice, or not at all, the later.
        return max(begin.replace(tzinfo=ZoneInfo(self.zone), fold=fold).astimezone(UTC) for fold in (0, 1))


def bars(minutes: Iterable[Bar], timeframe: str, day: Day) -> list[Bar]:
    """The candles of one source and symbol, in order of time; every period counts as over."""
    ordered = sorted(minutes)
    if timeframe == "M1" or not ordered:
        return ordered
    margin = timedelta(days=40)
    starts = day.starts(timeframe, (ordered[0].ts - margin).date(), (ordered[-1].ts + margin).date())
    periods: dict[datetime, list[Bar]] = {}
    for minute in ordered:
        periods.setdefault(starts[bisect_right(starts, minute.ts) - 1], []).append(minute)
    return [_fold(start, members) for start, members in periods.items()]


def _fold(start: datetime, members: Sequence[Bar]) -> Bar:
    spreads = [m.spread for m in members if m.spread is not None]
    volumes = [m.real_volume for m in members if m.real_volume is not None]
    return Bar(
        ts=start,
        symbol=members[0].symbol,
        source=members[0].source,
        open=members[0].open,
        high=max(m.high for m in members),
        low=min(m.low for m in members),
        close=members[-1].close,
        volume=sum(m.volume for m in members),
        real_volume=sum(volumes) if volumes else None,
        spread=min(spreads) if spreads else None,
        closed=all(m.closed for m in members),
    )
