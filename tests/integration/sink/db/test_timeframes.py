import random
import socket
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from time import sleep
from urllib.parse import urlsplit

import pytest

from marketdata.tick import Tick
from runtime.settings import load_settings
from sink.db.connection import Connection
from sink.writer import Writer
from tests.conftest import FULL
from tests.days import eurusd_ticks
from tests.integration.sink.db.editions import every_edition
from tests.integration.sink.db.history import (
    SERIES,
    assert_exact,
    candles,
    delete,
    insert,
    last_candles,
    materialise_step,
    minute,
    refresh,
    set_day,
    some_minutes,
    stale_hours,
)
from tests.integration.sink.db.oracle import TIMEFRAMES, Bar, Day
from tests.integration.sink.flow import Flow, day_frames

# With the other files that share its PGlite.
pytestmark = pytest.mark.long(110)

MATERIALISED = ("H1", "H4", "D1", "W1", "MN1")

NEW_YORK = Day("America/New_York", time(17))

MONDAY = datetime(2019, 2, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    "day",
    [
        pytest.param(NEW_YORK, id="New_York"),
        pytest.param(Day("Asia/Kolkata", week_start="monday"), id="Kolkata", marks=pytest.mark.full),
    ],
)
async def test_every_timeframe_equals_the_fold_of_its_minutes(connection: Connection, day: Day) -> None:
    dice = random.Random(20190204)
    # Another series is another row of the same statements.
    series = SERIES if FULL else SERIES[1:2]
    stored = {bar[:3]: bar for symbol, source in series for bar in some_minutes(dice, symbol, source)}
    await set_day(connection, day)
    await insert(connection, list(stored.values()))

    # Everything is marked, and folded from M1 when it is read.
    await assert_exact(connection, stored.values(), day, ("H4", "MN1"), dice)
    assert await refresh(connection) > 350 * len(series)
    assert await stale_hours(connection) == 0
    await assert_exact(connection, stored.values(), day, TIMEFRAMES, dice)

    # Old minutes change, some are new, some go.
    changed = dice.sample(sorted(stored), 60)
    late = [minute(dice, key[0] + timedelta(minutes=dice.choice([0, 1])), *key[1:]) for key in changed[:40]]
    late = list({bar[:3]: bar for bar in late}.values())
    await insert(connection, late)
    stored |= {bar[:3]: bar for bar in late}
    for key in changed[40:]:
        await delete(connection, key)
        stored.pop(key)
    assert 0 < await stale_hours(connection) <= 60
    await assert_exact(connection, stored.values(), day, MATERIALISED, dice)
    await refresh(connection)
    await assert_exact(connection, stored.values(), day, MATERIALISED, dice)


@pytest.mark.full
async def test_another_day_rebuilds_what_depends_on_it(connection: Connection) -> None:
    # Arrange: materialised for days that begin at UTC midnight, and one change that is not folded yet
    dice = random.Random(7)
    stored = {bar[:3]: bar for bar in some_minutes(dice, "EURUSD", "S")}
    await insert(connection, list(stored.values()))
    await refresh(connection)
    late = minute(dice, datetime(2018, 11, 4, 6, 30, tzinfo=UTC))
    await insert(connection, [late])
    stored[late[:3]] = late

    # Act and Assert: hours begin at the same minute, so they stay and days are there at once
    await set_day(connection, NEW_YORK)
    assert await materialise_step(connection) == "-infinity"
    await assert_exact(connection, stored.values(), NEW_YORK, MATERIALISED, dice)

    # Hours begin at another minute: first nothing is materialised, then more and more, and the answers stay the same
    india = Day("Asia/Kolkata")
    await set_day(connection, india)
    assert await stale_hours(connection) == 1  # of the late minute
    steps = 0
    while await materialise_step(connection, days=4) != "-infinity":
        if steps % 3 == 0:
            await assert_exact(connection, stored.values(), india, ("H1", "D1", "W1"), dice)
        # What changes meanwhile, before and after the place that has been reached, is marked as ever.
        late = minute(dice, datetime(2018, 10, 27, 3, 30 + steps, tzinfo=UTC))
        later = minute(dice, datetime(2019, 1, 2, 3, 30 + steps, tzinfo=UTC))
        await insert(connection, [late, later])
        stored |= {late[:3]: late, later[:3]: later}
        steps += 1
    assert steps > 5
    await assert_exact(connection, stored.values(), india, MATERIALISED, dice)
    await refresh(connection)
    assert await stale_hours(connection) == 0
    await assert_exact(connection, stored.values(), india, MATERIALISED, dice)

    # A day in another zone while not everything is materialised
    await set_day(connection, Day())
    await materialise_step(connection, days=4)
    london = Day("Europe/London", time(23))
    await set_day(connection, london)
    await assert_exact(connection, stored.values(), london, ("H1", "D1"), dice)
    while await materialise_step(connection, days=30) != "-infinity":
        pass
    await assert_exact(connection, stored.values(), london, MATERIALISED, dice)


async def test_candles_of_a_day_equal_the_fold_of_its_ticks(connection: Connection, writer: Writer) -> None:
    # Arrange: M1 as the pipeline folds and stores them
    minutes = Flow(load_settings(), "cluster/ticks").candles(list(enumerate(day_frames())))
    for start in range(0, len(minutes), 100):
        await writer.write(connection, minutes[start : start + 100])
    await set_day(connection, NEW_YORK)

    for _ in ("marked", "materialised"):
        for timeframe in TIMEFRAMES:
            # Act
            found = await candles(
                connection, "EURUSD", timeframe, MONDAY - timedelta(days=40), MONDAY + timedelta(days=40)
            )

            # Assert: straight from the ticks
            starts = NEW_YORK.starts(timeframe, date(2018, 12, 1), date(2019, 4, 1))
            assert found == list(_from_ticks(starts))
        await refresh(connection)
    assert await stale_hours(connection) == 0


def _from_ticks(starts: list[datetime]) -> Iterator[Bar]:
    edges = [round(start.timestamp() * 1000) for start in starts]
    ticks = iter(eurusd_ticks())
    tick: Tick | None = next(ticks)
    for begin, end, start in zip(edges, edges[1:], starts, strict=False):
        members = []
        while tick is not None and begin <= tick.time_msc < end:
            members.append(tick)
            tick = next(ticks, None)
        if members:
            bids = [member.bid for member in members]
            spread = min(round((member.ask - member.bid) / 0.00001) for member in members)
            yield Bar(
                start, "EURUSD", "S", bids[0], max(bids), min(bids), bids[-1], len(bids), 0.0, spread, closed=True
            )


@every_edition
async def test_a_candle_is_closed_when_its_period_is_over_and_every_minute_closed(connection: Connection) -> None:
    # Arrange: an hour whose minutes are all closed, which is not over; and one that is, with an open minute
    dice = random.Random(1)
    coming = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    await insert(connection, [minute(dice, coming)._replace(closed=True)])
    past = [minute(dice, MONDAY + timedelta(minutes=n))._replace(closed=n != 20) for n in range(40)]
    await insert(connection, past)

    for _ in ("marked", "materialised"):
        for timeframe in TIMEFRAMES[1:]:
            # Act
            found = await last_candles(connection, "EURUSD", timeframe, coming + timedelta(seconds=1), 500)

            # Assert
            states = {bar.ts: bar.closed for bar in found}
            assert states.pop(found[-1].ts) is False
            open_minutes = {"M5": [False], "M15": [False], "M30": [False]}.get(timeframe, [False])
            assert [state for state in states.values() if not state] == open_minutes
        await refresh(connection)


async def test_truncate_forgets_what_was_materialised(connection: Connection) -> None:
    dice = random.Random(1)
    await insert(connection, [minute(dice, MONDAY)])
    await refresh(connection)
    await connection.execute(b"TRUNCATE market_data")
    await assert_exact(connection, [], NEW_YORK, MATERIALISED, dice)
    for table in (b"candle_hours", b"candle_days", b"stale_hours"):
        assert await (await connection.execute(b"SELECT FROM " + table)).fetchall() == []


async def test_without_a_source_the_one_with_the_most_recent_candle_answers(connection: Connection) -> None:
    dice = random.Random(1)
    await insert(
        connection, [minute(dice, MONDAY, source="old"), minute(dice, MONDAY + timedelta(hours=2), source="new")]
    )
    for timeframe in TIMEFRAMES:
        found = await candles(connection, "EURUSD", timeframe, MONDAY - timedelta(days=40), MONDAY + timedelta(days=1))
        assert {bar.source for bar in found} == {"new"}
        # Also on a page of a time at which it had none.
        assert await last_candles(connection, "EURUSD", timeframe, MONDAY - timedelta(days=40), 5) == []
    assert await candles(connection, "XAUUSD", "D1", MONDAY, MONDAY) == []


async def test_absurd_volumes_do_not_make_an_hour_unreadable(connection: Connection) -> None:
    dice = random.Random(1)
    most = 2**63 - 1
    absurd = [minute(dice, MONDAY + timedelta(minutes=n))._replace(volume=most, real_volume=1.7e308) for n in range(3)]
    await insert(connection, absurd)
    for hours in (1, 0):  # marked, then materialised
        for timeframe in TIMEFRAMES[1:]:
            found = await last_candles(connection, "EURUSD", timeframe, MONDAY + timedelta(days=1), 500)
            assert [bar.volume for bar in found] == [most]
            assert [bar.real_volume for bar in found] == [pytest.approx(3e290)]
        assert await refresh(connection) == hours


def test_pglite_takes_a_message_in_two_parts(pglite: str) -> None:
    """As the kernel may deliver one; it once waited for ever."""
    query = b"SELECT 'who' || 'le'\0"
    message = b"Q" + struct.pack(">i", len(query) + 4) + query
    startup = struct.pack(">i", 196_608) + b"user\0postgres\0database\0postgres\0\0"
    with socket.create_connection(("127.0.0.1", urlsplit(pglite).port or 0), 10) as connection:
        connection.sendall(struct.pack(">i", len(startup) + 4) + startup)
        for part in (message[:9], message[9:]):
            sleep(0.2)
            connection.sendall(part)
        answer = b""
        while b"SELECT 1\0" not in answer:
            received = connection.recv(65_536)
            assert received, answer
            answer += received
    assert b"whole" in answer
