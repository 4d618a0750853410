"""`tickpipe gaps`: where ticks are missing, by the broker's bars and by the hours in which the symbol trades."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import groupby
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from zoneinfo import ZoneInfo

import typer

from tickpipe.connection import DataDir, connected_settings, open_database
from tickpipe.console import (
    DONE,
    PROBLEM,
    AllRows,
    Format,
    FormatOption,
    FromTime,
    ToTime,
    err,
    out,
    print_head,
    run,
    write_rows,
)  # fmt: skip

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from runtime.settings import Settings

#: Looked at without --from.
_DEFAULT_SPAN = timedelta(days=7)

#: The newest minute may still come: its candle waits for late ticks, then for the sink.
_NEWEST = timedelta(minutes=2)

_COLUMNS = ("symbol", "source", "from", "to", "state", "minutes", "broker_ticks")

#: History that tells in which hours a symbol trades, before its newest minute.
HABIT = timedelta(weeks=4)

_HOUR = timedelta(hours=1)
_SATURDAY = 5

#: An hour of the week that was seen less often is judged by the same hour of all working days.
_ENOUGH_WEEKS = 3


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
        from statistics import median

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


def gaps(
    *,
    symbol: Annotated[str | None, typer.Option("--symbol", "-s", help="Only this one, for example EURUSD.")] = None,
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    from_: FromTime = None,
    to: ToTime = None,
    least: Annotated[
        int, typer.Option(min=1, help="Leave out silences in which fewer minutes than this would usually have ticks.")
    ] = 10,
    closed: Annotated[bool, typer.Option("--closed", help="Closed markets as well: nights, weekends, pauses.")] = False,
    suggest: Annotated[bool, typer.Option("--suggest", help="Say for each gap how its ticks are brought in.")] = False,
    all_rows: AllRows = False,
    format_: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Find the times of which ticks are missing: of the last seven days, or from `--from` on.

    * `missing`: the broker has bars of it (the EA sends them), and we have no tick; `minutes` are those of its bars
    * `unknown`: neither ticks nor bars, though the symbol usually has some at these hours of the week (learned from the
      four weeks before the end); a holiday looks like this
    * `closed`, with `--closed`: neither, and it usually has none

    Nothing is missing before a symbol's first tick. Minutes with too few ticks are found by `tickpipe fidelity`.
    Exit code 1 when something is missing or unknown.

    Examples:

    * `tickpipe gaps`
    * `tickpipe gaps --symbol EURUSD --from 2024-01-01 --suggest`
    * `tickpipe gaps --format json`
    """
    settings = connected_settings(data_dir)
    end = min(to or datetime.max.replace(tzinfo=UTC), datetime.now(UTC).replace(second=0, microsecond=0) - _NEWEST)
    begin = from_ or end - _DEFAULT_SPAN
    found = run(_find(settings, (begin, end), symbol, source, least))
    lacking = [gap for gap in found if gap.state != "closed"]
    _write(found if closed else lacking, format_, all_rows=all_rows)
    if suggest:
        for line in _suggestions(settings, lacking):
            (out if format_ is Format.TABLE else err).print(line, markup=False, soft_wrap=True)
    raise typer.Exit(PROBLEM if lacking else DONE)


async def _find(
    settings: "Settings", span: tuple[datetime, datetime], symbol: str | None, source: str | None, least: int
) -> list[Gap]:
    from tickpipe.candles import require_symbol

    async with await open_database(settings) as connection:
        if symbol is not None:
            await require_symbol(connection, symbol)
        return await find_gaps(connection, *span, symbol=symbol, source=source, least=least)


def _write(found: Sequence[Gap], format_: Format, *, all_rows: bool) -> None:
    rows = [(gap.symbol, gap.source, gap.begins, gap.ends, gap.state.value, gap.minutes, gap.ticks) for gap in found]
    if format_ is not Format.TABLE:
        run(write_rows(_COLUMNS, rows, format_))
    elif rows:
        print_head(_COLUMNS, rows, all_rows=all_rows)
    else:
        err.print("No gap was found.")


def _suggestions(settings: "Settings", found: Sequence[Gap]) -> Iterator[str]:
    """For each gap what to export from MetaTrader, by the broker's clock, and the command that brings it in."""
    for gap in found:
        # The producer knows the clock of the source, so the command need not say it again.
        zone = settings.zones.get(gap.source, UTC)
        begins, ends = (moment.astimezone(zone).replace(tzinfo=None) for moment in (gap.begins, gap.ends))
        yield (
            f"{gap.symbol} of {gap.source}: in MetaTrader, View > Symbols > {gap.symbol} > Ticks, {begins} to {ends} "
            "by the broker's clock, Export Ticks; then"
        )
        yield f"  tickpipe import TICKS.csv --symbol {quote(gap.symbol)} --source {quote(gap.source)}"


async def find_gaps(
    connection: "AsyncConnection[Any]",
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
    from sink.db.session import SQL

    about = {"from_": from_, "to": to, "symbol": symbol, "source": source, "least": least}
    found = await (await connection.execute(SQL["gaps"], about)).fetchall()
    # Only a silence needs to be judged by it.
    habits = {} if all(row[4] for row in found) else await _habits(connection, {**about, "habit": HABIT})
    return [_judged(row, habits.get((row[0], row[1])), least) for row in found]


async def _habits(connection: "AsyncConnection[Any]", about: dict[str, Any]) -> dict[tuple[str, str], Habit]:
    from sink.db.session import SQL
    from sink.queries import candle_day

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
