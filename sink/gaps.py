"""Where ticks are missing: what no candle covers, judged by the ledger, the broker's bars and the hours of trading.

The ledger says which minutes are closed or were asked for (`sink/ledger.py`); of the others the broker's bars tell, or
whether the symbol usually has candles at that hour of the week.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from itertools import groupby
from statistics import median
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from psycopg import AsyncConnection

from marketdata.contract.times import offset_zone
from marketdata.minutes import Range, Session, closed_by_sessions, intersect, length, subtract, union
from marketdata.tick import MINUTE_MS
from sink.db.session import SQL
from sink.queries import candle_day
from sink.times import time_msc, utc

#: History that tells in which hours a symbol trades, before its newest minute.
HABIT: Final = timedelta(weeks=4)

_HOUR: Final = timedelta(hours=1)
_WEEK: Final = timedelta(weeks=1)
_SATURDAY: Final = 5

#: An hour of the week that was seen less often is judged by the same hour of all working days.
_ENOUGH_WEEKS: Final = 3

#: The habit of a symbol is learned again after this long (seconds).
_HABIT_SECONDS: Final = 86_400.0

#: Of more symbols the habits are read all at once.
_FEW: Final = 50

#: Symbol and source.
Series = tuple[str, str]


class State(StrEnum):
    """What is known of a gap."""

    #: The broker has bars of it: ticks were lost, or never sent.
    MISSING = "missing"
    #: Neither ticks nor bars, in hours in which the symbol usually has some.
    UNKNOWN = "unknown"
    #: A sender was asked and could not fill it.
    FAILED = "failed"
    #: A sender has sent all that its terminal has: the broker had no tick.
    NONE = "none"
    #: Neither, when the broker does not quote the symbol, or in hours in which it usually has none.
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
    #: Why a sender could not fill it.
    error: str | None = None
    #: Whether the ledger says so; otherwise it is judged.
    is_known: bool = False


class Habit:
    """In which hours of the week a symbol trades, learned from when it did. Pure."""

    def __init__(self, minutes_by_hour: Mapping[datetime, int], zone: ZoneInfo) -> None:
        """Minutes with a candle by start of their hour (UTC); hours between the first and the last are 0 if absent.

        `zone` is the clock by which the market opens and closes.
        """
        self._zone = zone
        #: Whether the hours of a week were not seen often enough to tell an outage from what is usual.
        self.is_young = not minutes_by_hour or max(minutes_by_hour) - min(minutes_by_hour) < _ENOUGH_WEEKS * _WEEK
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
        # Not the mean: one outage would count as half a trading hour ever after.
        self._of_week = {when: median(seen) for when, seen in of_week.items() if len(seen) >= _ENOUGH_WEEKS}
        self._of_day = {when: median(seen) for when, seen in of_day.items()}

    def expected(self, begins: datetime, ends: datetime) -> float:
        """Minutes that usually have a candle between the two times."""
        return sum(share * self._usual(*self._clock(hour)) for hour, share in _hours(begins, ends))

    def _clock(self, moment: datetime) -> tuple[int, int]:
        local = moment.astimezone(self._zone)
        return local.weekday(), local.hour

    def _usual(self, day: int, clock: int) -> float:
        known = self._of_week.get((day, clock))
        return self._of_day.get((day >= _SATURDAY, clock), 0) if known is None else known


def _hours(begins: datetime, ends: datetime) -> Iterator[tuple[datetime, float]]:
    """The hours (UTC) that the time touches, each with its share in it."""
    hour = begins.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    while hour < ends:
        yield hour, (min(ends, hour + _HOUR) - max(begins, hour)) / _HOUR
        hour += _HOUR


class Known(NamedTuple):
    """What the ledger says of one symbol and source; each set of ranges is ascending."""

    #: By the user.
    closed: Sequence[Range] = ()
    none: Sequence[Range] = ()
    failed: Sequence[tuple[Range, str | None]] = ()
    #: When the broker quotes it, by which clock; None when it never said so.
    sessions: Sequence[Session] | None = None
    zone: tzinfo = UTC

    def closed_within(self, range_: Range) -> list[Range]:
        """What of the range is closed, by the user or by the broker's sessions."""
        own = intersect([range_], self.closed)
        if self.sessions is None:
            return own
        return union(own, closed_by_sessions(self.sessions, self.zone, *range_))


async def read_known(
    connection: AsyncConnection[Any],
    span: tuple[datetime, datetime],
    zones: Mapping[str, tzinfo],
    *,
    symbol: str | None = None,
    source: str | None = None,
    states: Sequence[str] = ("closed", "none", "failed"),
) -> dict[Series, Known]:
    """What the ledger says of the time, by symbol and source; what it says nothing of is missing.

    `zones` are the clocks of sources whose senders do not say their offset.
    """
    about = {"from_": span[0], "to": span[1], "symbol": symbol, "source": source, "states": list(states)}
    ranges: dict[Series, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for of_source, of_symbol, state, begins, ends, _, _, error in await fetch_all(connection, "ledger_ranges", about):
        range_ = (time_msc(begins), time_msc(ends))
        ranges[of_symbol, of_source][state].append((range_, error) if state == "failed" else range_)
    known = {
        series: Known(union(found["closed"]), union(found["none"]), found["failed"]) for series, found in ranges.items()
    }
    for of_source, of_symbol, offset_s, sessions in await fetch_all(connection, "quote_sessions", about):
        zone = zones.get(of_source, UTC) if offset_s is None else offset_zone(offset_s)
        before = known.get((of_symbol, of_source), Known())
        known[of_symbol, of_source] = before._replace(sessions=[tuple(one) for one in sessions], zone=zone)
    return known


class Habits:
    """The habits of symbols, read when they are needed, and remembered for a day."""

    def __init__(self) -> None:
        self._known: dict[Series, tuple[datetime, Habit]] = {}

    def is_young(self, series: Series) -> bool:
        """Whether too little is known of the symbol to say what is usual."""
        return series not in self._known or self._known[series][1].is_young

    async def of(
        self, connection: AsyncConnection[Any], series: Collection[Series], to: datetime
    ) -> dict[Series, Habit]:
        """Those of the series, by their history before `to`."""
        now = datetime.now(UTC)
        lacking = [
            one
            for one in series
            if one not in self._known or (now - self._known[one][0]).total_seconds() > _HABIT_SECONDS
        ]
        if lacking:
            zone = ZoneInfo((await candle_day(connection)).zone)
            asked = lacking if len(lacking) <= _FEW else [(None, None)]
            for symbol, source in asked:
                about = {"to": to, "symbol": symbol, "source": source, "habit": HABIT}
                rows = await fetch_all(connection, "minutes_by_hour", about)
                for of, hours in groupby(rows, lambda row: (row[0], row[1])):
                    minutes = {hour.astimezone(UTC): count for _, _, hour, count in hours}
                    self._known[of] = now, Habit(minutes, zone)
        return {one: self._known[one][1] for one in series if one in self._known}


async def find_gaps(
    connection: AsyncConnection[Any],
    from_: datetime,
    to: datetime,
    *,
    symbol: str | None = None,
    source: str | None = None,
    least: int = 10,
    zones: Mapping[str, tzinfo] | None = None,
    since: datetime | None = None,
    habits: Habits | None = None,
) -> list[Gap]:
    """The gaps between the two times, by symbol and source and in order of time, closed markets included.

    A silence counts when at least `least` of its minutes would usually have a candle; a minute of which the broker has
    a bar always does. Before a symbol's first tick nothing is missing. With `since` silences that end after `from_` are
    returned from their beginning, but not from before `since`.
    """
    since = since or from_
    about = {"from_": from_, "to": to, "since": since, "symbol": symbol, "source": source, "least": least}
    found = await fetch_all(connection, "gaps", about)
    if not found:
        return []
    known = await read_known(connection, (since, to), zones or {}, symbol=symbol, source=source)
    parts = [part for row in found for part in _parts(row, known.get((row[0], row[1]), Known()))]
    silent = {(part.symbol, part.source) for part in parts if part.state in (State.UNKNOWN, State.FAILED)}
    of_series = await (habits or Habits()).of(connection, silent, to)
    return [_judged(part, of_series.get((part.symbol, part.source)), least) for part in parts]


def _parts(row: Sequence[Any], known: Known) -> Iterator[Gap]:
    """The gap, cut where the ledger says something else; UNKNOWN is what nobody knows anything of."""
    symbol, source, begins, ends, bars, ticks = row
    whole = (time_msc(begins), time_msc(ends))
    # What the broker has a bar of it has quoted, whatever its sessions are.
    closed = intersect([whole], known.closed) if bars else known.closed_within(whole)
    failed = union(range_ for range_, _ in known.failed)
    rest = [whole]
    found: list[tuple[Range, State]] = []
    for ranges, state in ((closed, State.CLOSED), (known.none, State.NONE), (failed, State.FAILED)):
        found += [(range_, state) for range_ in intersect(rest, ranges)]
        rest = subtract(rest, ranges)
    found += [(range_, State.MISSING if bars else State.UNKNOWN) for range_ in rest]
    for range_, state in sorted(found):
        is_whole = range_ == whole
        minutes = bars if is_whole else min(bars, length([range_]) // MINUTE_MS)
        if state in (State.CLOSED, State.NONE):
            minutes = 0
        error = next((why for one, why in known.failed if intersect([one], [range_])), None)
        yield Gap(
            symbol, source, utc(range_[0]), utc(range_[1]), state, minutes, ticks if bars and is_whole else None,
            error if state is State.FAILED else None, state in (State.CLOSED, State.NONE, State.FAILED),
        )  # fmt: skip


def _judged(part: Gap, habit: Habit | None, least: int) -> Gap:
    if part.state is State.FAILED and not part.minutes and habit is not None:
        return part._replace(minutes=round(habit.expected(part.begins, part.ends)))
    if part.state is not State.UNKNOWN:
        return part
    expected = 0.0 if habit is None else habit.expected(part.begins, part.ends)
    return part._replace(state=State.UNKNOWN if expected >= least else State.CLOSED, minutes=round(expected))


async def minute_states(
    connection: AsyncConnection[Any],
    series: Series,
    from_: datetime,
    to: datetime,
    zones: Mapping[str, tzinfo],
) -> list[tuple[datetime, datetime, str]]:
    """Every minute of the time by its state, those in a row as one: begin, end and state, in order of time.

    The states are those of the ledger, `ticks`, and `quiet`: no tick, as is usual or only for a minute.
    """
    symbol, source = series
    span = (from_, to)
    about = {"from_": from_, "to": to, "symbol": symbol, "source": source, "states": ["wanted"]}
    ticks = [(time_msc(begins), time_msc(ends)) for begins, ends in await fetch_all(connection, "candle_runs", about)]
    known = (await read_known(connection, span, zones, symbol=symbol, source=source)).get(series, Known())
    wanted = [(time_msc(row[3]), time_msc(row[4])) for row in await fetch_all(connection, "ledger_ranges", about)]
    rest = [(time_msc(from_), time_msc(to))]
    states: list[tuple[Range, str]] = []
    failed = union(range_ for range_, _ in known.failed)
    closed = known.closed_within(rest[0]) if rest[0][0] < rest[0][1] else []
    for ranges, state in (
        (ticks, "ticks"), (closed, "closed"), (known.none, "none"), (failed, "failed"), (union(wanted), "wanted"),
    ):  # fmt: skip
        states += [(range_, state) for range_ in intersect(rest, ranges)]
        rest = subtract(rest, ranges)
    states += [(range_, "quiet") for range_ in rest]
    return [(utc(first), utc(end), state) for (first, end), state in sorted(states)]


async def sources_of(connection: AsyncConnection[Any], symbol: str) -> list[str]:
    """The sources that send the symbol, or say when it is quoted."""
    return [name for (name,) in await fetch_all(connection, "sources_of_symbol", {"symbol": symbol})]


async def fetch_all(connection: AsyncConnection[Any], name: str, about: Mapping[str, Any]) -> list[Any]:
    """All rows of a statement of ours."""
    return await (await connection.execute(SQL[name], about)).fetchall()
