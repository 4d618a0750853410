"""The boundaries of H4, D1, W1 and MN1, every half hour of fifteen months, on plain PostgreSQL."""

from bisect import bisect_right
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta

import psycopg
import pytest

from sink.db.connection import Connection, connect
from tests.integration.sink.db.editions import database_on
from tests.integration.sink.db.history import set_day
from tests.integration.sink.db.oracle import Day
from tests.servers import EmbeddedServers, schema_template

FIRST, LAST = date(2018, 1, 1), date(2019, 3, 31)


@pytest.fixture
async def connection(servers: EmbeddedServers) -> AsyncIterator[Connection]:
    with database_on(servers.database_url, schema_template(servers.database_url)) as url:
        async with await connect(url) as opened:
            yield opened


@pytest.mark.parametrize(
    "day",
    [
        pytest.param(Day(), marks=pytest.mark.full),
        Day("America/New_York", time(17)),
        pytest.param(Day("America/New_York", time(17), "monday"), marks=pytest.mark.full),
        pytest.param(Day("Europe/Athens"), marks=pytest.mark.full),
        pytest.param(Day("Europe/London", time(23)), marks=pytest.mark.full),
        pytest.param(Day("Asia/Kolkata"), marks=pytest.mark.full),  # hours begin at half past, as in test_timeframes.py
        pytest.param(Day("Asia/Kathmandu", time(9, 30)), marks=pytest.mark.full),  # UTC+05:45
        pytest.param(
            Day("America/Havana"), marks=pytest.mark.full
        ),  # clocks go back from 1:00 to 0:00: the day's start exists twice
        Day("America/Sao_Paulo"),  # clocks go forward from 0:00 to 1:00: the day's start does not exist
        pytest.param(Day("Etc/GMT-3", time(0)), marks=pytest.mark.full),
    ],
    ids=lambda day: f"{day.zone} {day.start:%H:%M} {day.week_start}",
)
async def test_periods_begin_by_the_clock_of_the_zone(connection: Connection, day: Day) -> None:
    await set_day(connection, day)
    for timeframe in ("H4", "D1", "W1", "MN1"):
        starts = day.starts(timeframe, FIRST - timedelta(days=40), LAST + timedelta(days=40))
        rows = await (
            await connection.execute(
                b"""
                SELECT moment, bar_start(moment, t.width, s), bar_end(bar_start(moment, t.width, s), t.width, s),
                    next_bar(moment, t.width, s)
                FROM candle_settings AS s, timeframe_named(%(timeframe)s) AS t,
                    generate_series(%(first)s::timestamptz, %(last)s, '30 minutes') AS moment
                """,
                {"timeframe": timeframe, "first": _utc(FIRST), "last": _utc(LAST)},
            )
        ).fetchall()
        assert len(rows) > 20_000
        for moment, start, end, following in rows:
            place = bisect_right(starts, moment) - 1
            assert (moment, start, end) == (moment, starts[place], starts[place + 1])
            assert following == (start if start == moment else end)


def _utc(day: date) -> datetime:
    return datetime.combine(day, time(0), UTC)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("+03:00", time(0), None), "is no time zone"),
        (("EST5EDT4", time(0), None), "is no time zone"),
        ((None, time(0), None), "is no time zone"),
        (("UTC", time(0), "friday"), "on sunday or on monday"),
        # Clocks go forward by half an hour there.
        (("Australia/Lord_Howe", time(0), None), "by less than an hour"),
    ],
)
async def test_a_day_that_cannot_be_is_refused(
    connection: Connection, arguments: tuple[object, ...], complaint: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=complaint):
        await connection.execute(b"SELECT set_candle_day(%s, %s, %s)", arguments)


@pytest.mark.parametrize("timeframe", ["M2", "", "m1", None])
async def test_a_timeframe_that_is_none_is_refused(connection: Connection, timeframe: str | None) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no timeframe"):
        await connection.execute(b"SELECT * FROM last_candles('EURUSD', %s)", (timeframe,))
