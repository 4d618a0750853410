"""Where ticks are missing: what the broker's bars prove, and silences in hours in which the symbol usually trades."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from psycopg import AsyncConnection

from sink.db.session import SQL
from sink.queries import candle_day

#: History that tells in which hours a symbol trades, before its newest minute.
HABIT: Final = timedelta(weeks=4)

_HOUR: Final = timedelta(hours=1)
_SATURDAY: Final = 5

#: An hour of the week that was seen less often is judged by the same hour of all working days.
_ENOUGH_WEEKS: Final = 3


class State(StrEnum):
    """What is known of a gap."""

    #: The broker has bars of it: ticks were lost, or never sent.
    MISSING = "missing"
    #: Neither ticks nor bars, in hours in which the symbol usually has some.
    UNKNOWN = "unknown"
    #: Neither, in hours in which it usually has none: nights, weekends, pauses.
    CLOSED = "closed"


class Gap(NamedTuple):
    """A time of one symbol and source without ticks."""

    symbol: str
    source: str
    begins: datetime
    #: Not included.
    ends: datetime
    state: State
    #: Minutes that should have a candle: those of which the broker has a bar, or as many as there usually are.
    minutes: int
    #: That the broker counted; None where no bar tells.
    ticks: int | None


class Habit:
    """In which hours of the week a symbol trades, learned from when it did. Pure."""

    def __init__(self, minutes_by_hour: Mapping[datetime, int], zone: ZoneInfo) -> None:
        """Minutes with a candle by start of their hour (UTC); hours between the first and the last are 0 if absent.

        `zone` is the clock by which the market opens and closes.
        """
        self._zone = zone
        of_week: dict[tuple[int, int], list[int]] = defaultdict(list)
        of_day: dict[tuple[bool, int], list[int]] = defaultdict(list)
        if minutes_by_hour:
            hour, last = min(minutes_by_hour), max(minutes_by_hour)
            while hour <= last:
                day, clock = self._clock(hour)
                minutes = minutes_by_hour.get(hour, 0)
                of_week[day, clock].append(minutes)
                of_day[day >= _SATURDAY, clock].append(minutes)
                hour += _HOUR
        self._of_week = {when: _median(seen) for when, seen in of_week.items() if len(seen) >= _ENOUGH_WEEKS}
        self._of_day = {when: _median(seen) for when, seen in of_day.items()}

    def expected(self, begins: datetime, ends: datetime) -> float:
        """Minutes that usually have a candle between the two times."""
        return sum(
            share * self._usual(*self._clock(hour)) for hour, share in _hours(begins, ends)
        )  # fmt: skip

    def _clock(self, moment: datetime) -> tuple[int, int]:
        local = moment.astimezone(self._zone)
        return local.weekday(), local.hour

    def _usual(self, day: int, clock: int) -> float:
        known = self._of_week.get((day, clock))
        return self._of_day.get((day >= _SATURDAY, clock), 0.0) if known is None else known


def _median(values: list[int]) -> float:
    # A mean would take hours in which an outage lies for half a trading hour for ever after.
    ordered = sorted(values)
    middle = len(ordered) // 2
    return float(ordered[middle]) if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _hours(begins: datetime, ends: datetime) -> Iterator[tuple[datetime, float]]:
    """The hours (UTC) that the time touches, each with its share in it."""
    hour = begins.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    while hour < ends:
        yield hour, (min(ends, hour + _HOUR) - max(begins, hour)) / _HOUR
        hour += _HOUR


async def find_gaps(
    connection: AsyncConnection[Any],
    from_: datetime,
    to: datetime,
    *,
    symbol: str | None = None,
    source: str | None = None,
    least: int = 10,
) -> list[Gap]:
    """The gaps between the two times, by symbol and source and in order of time, closed markets included.

    A silence counts when at least `least` of its minutes would usually have a candle; a minute of which the broker has
    a bar always does. Before a symbol's first tick nothing is missing.
    """
    about = {"from_": from_, "to": to, "symbol": symbol, "source": source, "least": least}
    found = await (await connection.execute(SQL["gaps"], about)).fetchall()
    # Only a silence needs to be judged by it.
    habits = {} if all(row[4] for row in found) else await _habits(connection, {**about, "habit": HABIT})
    return [_judged(row, habits.get((row[0], row[1])), least) for row in found]


async def _habits(connection: AsyncConnection[Any], about: dict[str, Any]) -> dict[tuple[str, str], Habit]:
    zone = ZoneInfo((await candle_day(connection)).zone)
    rows = await (await connection.execute(SQL["minutes_by_hour"], about)).fetchall()
    return {
        series: Habit({hour.astimezone(UTC): minutes for _, _, hour, minutes in hours}, zone)
        for series, hours in groupby(rows, lambda row: (row[0], row[1]))
    }


def _judged(row: tuple[Any, ...], habit: Habit | None, least: int) -> Gap:
    symbol, source, begins, ends, bars, ticks = row
    if bars:
        return Gap(symbol, source, begins, ends, State.MISSING, bars, ticks)
    expected = 0.0 if habit is None else habit.expected(begins, ends)
    return Gap(
        symbol, source, begins, ends, State.UNKNOWN if expected >= least else State.CLOSED, round(expected), None
    )
