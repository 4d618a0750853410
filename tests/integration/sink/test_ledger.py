"""The ledger of minutes: what senders report, what the user enters, and what is known of each minute then."""

from datetime import UTC, datetime, timedelta

import pytest

from marketdata.wire import Fill, QuoteSessions, Report
from sink.db.connection import Connection
from sink.gaps import Gap, State, find_gaps, minute_states
from sink.ledger import apply_reports, close, reopen
from sink.staging import time_msc

#: A Monday.
T = datetime(2024, 3, 4, 10, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SERIES = ("EURUSD", "S")


async def trade(connection: Connection, *minutes: int, volume: int = 3) -> None:
    """Candles of minutes after 10:00, before and after which there are two hours of trading."""
    for minute in minutes:
        await connection.execute(
            b"INSERT INTO market_data (ts, symbol, timeframe, open, high, low, close, volume, source, origin, closed,"
            b" first_tick, last_tick, log, offsets) VALUES (%s, 'EURUSD', 'M1', 1, 1, 1, 1, %s, 'S', 'ticks', true,"
            b" %s, %s, 'log', '{[0,1)}')",
            [T + minute * MINUTE, volume, T + minute * MINUTE, T + minute * MINUTE],
        )


def fill(first: int, end: int, ticks: int | None = None, error: str = "", after: int = 60) -> Report:
    return Fill(
        source="S", symbol="EURUSD", from_ms=time_msc(T + first * MINUTE), to_ms=time_msc(T + end * MINUTE),
        ticks=ticks, error=error, received=time_msc(T + after * MINUTE),
    )  # fmt: skip


async def states(connection: Connection, first: int, end: int) -> list[tuple[int, int, str]]:
    found = await minute_states(connection, SERIES, T + first * MINUTE, T + end * MINUTE, {})
    return [((begins - T) // MINUTE, (ends - T) // MINUTE, state) for begins, ends, state in found]


async def gaps(connection: Connection, first: int, end: int) -> list[Gap]:
    return await find_gaps(connection, T + first * MINUTE, T + end * MINUTE, least=2)


@pytest.fixture
async def traded(connection: Connection) -> Connection:
    """Two hours of candles, without those of 20 minutes in the second hour."""
    await connection.execute(b"TRUNCATE minute_ledger, quote_sessions")
    await trade(connection, *range(80), *range(100, 120))
    return connection


async def test_a_fill_says_of_all_its_minutes_that_the_broker_had_no_more(traded: Connection) -> None:
    await apply_reports(traded, [fill(85, 90, ticks=0), fill(78, 86, ticks=4), fill(78, 86, ticks=4)])

    assert await states(traded, 75, 105) == [
        (75, 80, "ticks"),
        (80, 90, "none"),
        (90, 100, "quiet"),
        (100, 105, "ticks"),
    ]
    assert [(gap.state, (gap.begins - T) // MINUTE) for gap in await gaps(traded, 70, 110)] == [
        (State.NONE, 80), (State.UNKNOWN, 90)
    ]  # fmt: skip


async def test_what_could_not_be_filled_says_why_until_it_is(traded: Connection) -> None:
    await traded.execute(
        b"INSERT INTO minute_ledger (source, symbol, state, begins, ends, expected)"
        b" VALUES ('S', 'EURUSD', 'wanted', %s, %s, 20)",
        [T + 80 * MINUTE, T + 100 * MINUTE],
    )

    await apply_reports(traded, [fill(79, 90, error="4401")])
    assert await states(traded, 80, 100) == [(80, 90, "failed"), (90, 100, "wanted")]
    assert [(gap.state, gap.error) for gap in await gaps(traded, 70, 110)] == [
        (State.FAILED, "4401"), (State.UNKNOWN, None)
    ]  # fmt: skip

    await apply_reports(traded, [fill(79, 101, ticks=7), fill(79, 90, error="late")])
    assert await states(traded, 80, 100) == [(80, 100, "none")]


async def test_what_the_user_closes_is_not_missing_until_it_is_reopened(traded: Connection) -> None:
    await close(traded, SERIES, T + 80 * MINUTE, T + 95 * MINUTE)
    await close(traded, SERIES, T + 90 * MINUTE, T + 100 * MINUTE)
    assert await states(traded, 79, 101) == [(79, 80, "ticks"), (80, 100, "closed"), (100, 101, "ticks")]

    await reopen(traded, SERIES, T + 84 * MINUTE, T + 88 * MINUTE)
    assert await states(traded, 80, 100) == [(80, 84, "closed"), (84, 88, "quiet"), (88, 100, "closed")]


async def test_outside_of_the_sessions_nothing_is_missing(traded: Connection) -> None:
    # Monday by a clock that is an hour ahead: closed from 11:20 to 11:30 UTC.
    def sessions(until: int, received: int) -> Report:
        of_day = [(1, 0, until), (1, 12 * 60 + 30, 1440)]
        return QuoteSessions(source="S", symbol="EURUSD", utc_offset_s=3600, sessions=of_day, received=received)

    newer, older = sessions(12 * 60 + 20, 1_709_546_400_001), sessions(0, 1_709_546_400_000)
    await apply_reports(traded, [newer])
    await apply_reports(traded, [older])

    assert await states(traded, 79, 101) == [
        (79, 80, "ticks"), (80, 90, "closed"), (90, 100, "quiet"), (100, 101, "ticks")
    ]  # fmt: skip
    found = await gaps(traded, 70, 110)
    assert [(gap.state, gap.minutes > 0) for gap in found] == [(State.CLOSED, False), (State.UNKNOWN, True)]
