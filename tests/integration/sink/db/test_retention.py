"""Retention on every edition: what is retained longer stays as it was folded, and no half comes back."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from sink.db.connection import Connection, Database
from sink.db.schema import edition, set_compression, storage
from sink.maintenance import Deleted, Retainer, Retention
from sink.writer import Writer
from tests.integration.sink.db.editions import every_edition
from tests.integration.sink.db.history import (
    candles,
    delete,
    insert,
    last_candles,
    minute,
    refresh,
    some_minutes,
    stale_hours,
    view,
)
from tests.integration.sink.db.oracle import Bar, Day, bars
from tests.integration.sink.flow import value
from tests.unit.sink.candles import MINUTE, candle

SERIES = (("EURUSD", "S"), ("EURUSD", "T"))

#: Some of `some_minutes` are before it, some after.
CUT = datetime(2018, 10, 30, 15, 20, tzinfo=UTC)


class OneConnection(Database):
    """A database that works on the connection of the test: PGlite has only one."""

    def __init__(self, connection: Connection) -> None:
        super().__init__("", asyncio.Event())
        self._one = connection

    async def run(self, work: Callable[[Connection], Awaitable[Any]]) -> Any:
        return await work(self._one)


def retainer(connection: Connection, minutes: datetime, hours: datetime | None, days: datetime | None) -> Retainer:
    """Deletes what is before these times."""
    now = datetime(2019, 6, 1, tzinfo=UTC)
    kept = [None if moment is None else now - moment for moment in (minutes, hours, days)]
    return Retainer(OneConnection(connection), Retention(*kept), now=lambda: now)


async def retain(
    connection: Connection, minutes: datetime, hours: datetime | None = None, days: datetime | None = None
) -> Deleted:
    deleted = await retainer(connection, minutes, hours, days).step()
    assert deleted is not None, "a transaction was in the way"
    return deleted


@pytest.fixture
async def stored(connection: Connection) -> list[Bar]:
    """A history whose hours are folded."""
    dice = random.Random(5)
    made = [bar for symbol, source in SERIES for bar in some_minutes(dice, symbol, source)]
    await insert(connection, made)
    await refresh(connection)
    return made


@pytest.fixture(autouse=True)
async def afterwards(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Nobody else needs the database; PGlite's one must not keep what was frozen."""
    monkeypatch.setattr("sink.maintenance._BREATHER_SECONDS", 0.0)
    yield
    await connection.execute(b"TRUNCATE market_data")


async def begins(connection: Connection) -> tuple[datetime | None, datetime | None, datetime | None]:
    found = await storage(connection)
    return found.minutes_from, found.hours_from, found.days_from


def expected(stored: Sequence[Bar], timeframe: str, first: datetime, day: Day | None = None) -> list[Bar]:
    """The naive candles of the whole history that begin at or after `first`."""
    found = []
    for symbol, source in SERIES:
        mine = [bar for bar in stored if (bar.symbol, bar.source) == (symbol, source)]
        found += [bar for bar in bars(mine, timeframe, day or Day()) if bar.ts >= first]
    return found


async def test_longer_timeframes_stay_as_they_were(connection: Connection, stored: list[Bar]) -> None:
    # Act
    deleted = await retain(connection, CUT)

    # Assert: minutes are cut at the start of a day, or where a chunk ends and a day begins
    first, hours_from, days_from = await begins(connection)
    timescale = (await edition(connection)).startswith("timescaledb")
    assert first is not None
    assert (hours_from, days_from) == (None, None)
    assert first == CUT.replace(hour=0, minute=0) or (timescale and first.hour == 0 and first < CUT)
    assert 0 < len(expected(stored, "M1", first)) < len(stored)
    assert timescale or deleted.minutes == len(stored) - len(expected(stored, "M1", first))
    for timeframe in ("M1", "M5", "M30"):
        assert await view(connection, timeframe) == expected(stored, timeframe, first)
    ever = datetime(2000, 1, 1, tzinfo=UTC)
    for timeframe in ("H1", "H4", "D1", "W1", "MN1"):
        assert await view(connection, timeframe) == expected(stored, timeframe, ever)
        whole = [bar for bar in expected(stored, timeframe, ever) if (bar.symbol, bar.source) == SERIES[0]]
        assert await candles(connection, "EURUSD", timeframe, ever, CUT, source="S") == [
            bar for bar in whole if bar.ts < CUT
        ]
        assert (await last_candles(connection, "EURUSD", timeframe, CUT, 20, source="S")) == [
            bar for bar in whole if bar.ts < CUT
        ][-20:]
    # Once more there is nothing to do, and less is never brought back.
    assert await retain(connection, CUT) == Deleted()
    assert await retain(connection, CUT - timedelta(days=90)) == Deleted()
    assert (await begins(connection))[0] == first


async def test_late_minutes_of_what_was_deleted_are_not_stored(
    connection: Connection, stored: list[Bar], writer: Writer
) -> None:
    # Arrange
    await retain(connection, CUT)
    first, _, _ = await begins(connection)
    assert first is not None
    before = {timeframe: await view(connection, timeframe) for timeframe in ("M1", "M5", "H1", "D1", "MN1")}
    dice = random.Random(6)
    late = [minute(dice, first - timedelta(minutes=n)) for n in (1, 2, 60, 5_000)]

    # Act: a late tick of each, as the sink stores it and as any statement does
    await insert(connection, late)
    ts = int((first - timedelta(minutes=7)).timestamp()) * 1000
    for offsets in (((10, 19),), ((30, 31),)):
        await writer.write(connection, [candle(offsets, ts=ts)])

    # Assert
    assert await stale_hours(connection) == 0
    assert {timeframe: await view(connection, timeframe) for timeframe in before} == before
    assert await value(connection, "SELECT count(*) FROM pending_refolds") == 0

    # What is not deleted goes on as ever.
    fresh = minute(dice, first + timedelta(minutes=1))
    await insert(connection, [fresh])
    assert await stale_hours(connection) == 1
    assert fresh in await view(connection, "M1")
    await delete(connection, fresh[:3])
    await refresh(connection)


async def test_hours_and_days_go_later_and_whole(connection: Connection, stored: list[Bar]) -> None:
    # Act: hours up to October, days up to March
    deleted = await retain(connection, datetime(2019, 1, 2, tzinfo=UTC), CUT, datetime(2018, 4, 3, tzinfo=UTC))

    # Assert
    minutes_from, hours_from, days_from = await begins(connection)
    assert minutes_from is not None
    assert hours_from == CUT.replace(hour=0, minute=0)
    assert days_from == datetime(2018, 4, 1, tzinfo=UTC)
    assert min(deleted.hours, deleted.days) > 0
    for timeframe, first in (
        ("M1", minutes_from), ("H1", hours_from), ("H4", hours_from), ("D1", days_from), ("W1", days_from),
        ("MN1", days_from),
    ):  # fmt: skip
        assert await view(connection, timeframe) == expected(stored, timeframe, first)

    # A week of which days are gone is not shown: here the first of April is a Sunday, so the next month decides.
    await retain(connection, datetime(2019, 1, 2, tzinfo=UTC), datetime(2018, 12, 31, tzinfo=UTC), CUT)
    assert (await begins(connection))[2] == datetime(2018, 10, 1, tzinfo=UTC)
    assert await view(connection, "W1") == expected(stored, "W1", datetime(2018, 10, 1, tzinfo=UTC))


async def test_minutes_wait_until_their_hours_are_folded(connection: Connection, stored: list[Bar]) -> None:
    dice = random.Random(7)
    changed = minute(dice, datetime(2018, 3, 9, 12, tzinfo=UTC))
    await insert(connection, [changed])
    history = {bar[:3]: bar for bar in [*stored, changed]}

    assert await retain(connection, CUT) == Deleted()
    assert await begins(connection) == (None, None, None)
    await refresh(connection)
    await retain(connection, CUT)

    ever = datetime(2000, 1, 1, tzinfo=UTC)
    assert (await begins(connection))[0] is not None
    assert await view(connection, "H1") == expected(sorted(history.values()), "H1", ever)


async def test_a_day_that_needs_what_is_gone_is_refused(connection: Connection, stored: list[Bar]) -> None:
    await retain(connection, CUT)
    # Days are made of hours, which are there; hours of half past are not.
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="retention"):
        await connection.execute(b"SELECT set_candle_day('Asia/Kolkata')")
    await connection.execute(b"SELECT set_candle_day('America/New_York', '17:00')")
    day = Day("America/New_York", datetime(2018, 1, 1, 17, tzinfo=UTC).time())
    assert await view(connection, "D1") == expected(stored, "D1", datetime(2000, 1, 1, tzinfo=UTC), day)

    await connection.execute(b"SELECT set_candle_day('UTC')")
    await retain(connection, CUT, CUT)
    days = await view(connection, "D1")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="retention"):
        await connection.execute(b"SELECT set_candle_day('Europe/Athens')")
    await connection.execute(b"SELECT set_candle_day('UTC', '00:00', 'monday')")
    assert await view(connection, "D1") == days
    assert await view(connection, "W1") == expected(
        stored, "W1", datetime(2000, 1, 1, tzinfo=UTC), Day(week_start="monday")
    )


async def test_bars_of_the_broker_go_with_their_timeframe(connection: Connection) -> None:
    await connection.execute(
        b"INSERT INTO broker_bars SELECT 'S', 'EURUSD', timeframe, ts, 1, 1, 1, 1, 1, NULL, NULL, true, ts, ts"
        b" FROM unnest(ARRAY['M1', 'M30', 'H1', 'H4', 'D1', 'MN1']) AS timeframe,"
        b" generate_series(timestamptz '2018-01-01', '2018-12-01', '1 month') AS ts"
    )
    await insert(connection, [minute(random.Random(8), datetime(2018, month, 1, tzinfo=UTC)) for month in range(1, 13)])
    await refresh(connection)
    found = await retain(connection, CUT, datetime(2018, 7, 2, tzinfo=UTC), datetime(2018, 3, 1, tzinfo=UTC))
    assert found.bars == await value(connection, "SELECT 72 - count(*) FROM broker_bars")
    for timeframe, moment in zip(("M30", "H4", "MN1"), await begins(connection), strict=True):
        query = "SELECT min(ts) >= %s AND count(*) > 0 FROM broker_bars WHERE timeframe = %s"
        assert await value(connection, query, moment, timeframe) is True


@pytest.mark.full  # TimescaleDB in Node.js
@every_edition
async def test_compressed_minutes_go_as_well(connection: Connection, stored: list[Bar]) -> None:
    if not (await edition(connection)).startswith("timescaledb community"):
        pytest.skip("only TimescaleDB's community edition compresses")
    await set_compression(connection, 30)
    await connection.execute(b"SELECT compress_chunk(c) FROM show_chunks('market_data') AS c")
    await retain(connection, CUT)
    first, _, _ = await begins(connection)
    assert first is not None
    assert await view(connection, "M1") == expected(stored, "M1", first)
    assert await view(connection, "H1") == expected(stored, "H1", datetime(2000, 1, 1, tzinfo=UTC))
    ts = int((first - timedelta(minutes=7)).timestamp()) * 1000
    assert ts < MINUTE
    await set_compression(connection, 0)
