"""The schema itself: one list of timeframes, names that nobody's search_path can mislead, rows that move."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import product
from operator import add
from typing import Any

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

import sink.db.schema
from dashboard.candles import Request
from marketdata.contract.fields import timeframe_of
from marketdata.timeframes import TIMEFRAMES, Timeframe
from sink.db.connection import Connection, connect
from sink.db.schema import edition, migrate, migration_files
from tests.integration.sink.db.editions import database_on, every_edition
from tests.integration.sink.db.history import (
    SERIES,
    assert_exact,
    insert,
    materialise_step,
    minute,
    refresh,
    set_day,
    some_minutes,
    stale_hours,
    view,
)
from tests.integration.sink.db.oracle import Bar, Day, bars
from tests.integration.sink.flow import value
from tests.servers import EmbeddedServers
from tickpipe.cli import app
from tickpipe.console import run as run_coroutine

MONDAY = datetime(2019, 2, 4, tzinfo=UTC)

H2 = Timeframe("H2", 7_200_000, "H1", calendar=True)

_LIST = b"""
SELECT name, CASE WHEN width < '1 month' THEN extract(epoch FROM width) * 1000 END::bigint, parent, calendar
FROM timeframes
ORDER BY width
"""


async def test_the_database_and_python_have_the_same_list_of_timeframes(connection: Connection) -> None:
    rows = await (await connection.execute(_LIST)).fetchall()
    assert [Timeframe(*row) for row in rows] == list(TIMEFRAMES.values())


@pytest.fixture
def another_timeframe(servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database whose migration, and a Python whose list, have one line more: H2."""
    files = migration_files()
    row = b"    ('H4', '4 hours', 'H1'),\n"
    assert files["0002_timeframes.sql"].count(row) == 1
    files["0002_timeframes.sql"] = files["0002_timeframes.sql"].replace(row, b"    ('H2', '2 hours', 'H1'),\n" + row)
    monkeypatch.setattr(sink.db.schema, "migration_files", lambda: files)
    monkeypatch.setitem(TIMEFRAMES, "H2", H2)
    with database_on(servers.database_url) as url:
        run_coroutine(migrate(url))
        yield url


@pytest.mark.parametrize(
    "day",
    [
        pytest.param(Day(), marks=pytest.mark.full),
        Day("America/New_York", datetime(2019, 1, 1, 17, tzinfo=UTC).time()),
    ],
)
async def test_one_more_timeframe_is_one_more_line_in_both_lists(another_timeframe: str, day: Day) -> None:
    dice = random.Random(5)
    stored = [bar for symbol, source in SERIES for bar in some_minutes(dice, symbol, source)]
    async with await connect(another_timeframe) as connection:
        await set_day(connection, day)
        await insert(connection, stored)
        for _ in ("stale", "materialised"):
            await assert_exact(connection, stored, day, ("H2", "H4"), dice)
            await refresh(connection)
        # The broker's own bars of it go with hours.
        query = "SELECT string_agg(name, ' ' ORDER BY width) FROM timeframes WHERE stored_as = 'H1'"
        assert await value(connection, query) == "H1 H2 H4"


def test_one_more_timeframe_is_taken_everywhere(another_timeframe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(another_timeframe) as connection:
        connection.execute(
            b"INSERT INTO market_data (ts, symbol, timeframe, open, high, low, close, volume, source, origin, closed)"
            b" SELECT ts, 'EURUSD', 'M1', 1, 2, 1, 2, 10, 'S', 'broker', true"
            b" FROM generate_series(timestamptz '2019-02-04', '2019-02-04 05:59', '1 minute') AS ts"
        )
    monkeypatch.setenv("TICKPIPE_DATABASE_URL", another_timeframe)
    assert timeframe_of("h2") == "H2"
    request = Request.parse(symbol="EURUSD", timeframe="h2", source=None, from_=None, to=None, before=None, limit=5)
    assert request.timeframe == "H2"
    result = CliRunner().invoke(app, ["candles", "-s", "EURUSD", "--timeframe", "H2", "--format", "json"])
    assert result.exit_code == 0, result.stderr
    assert [(row["ts"], row["volume"]) for row in json.loads(result.stdout)] == [
        (f"2019-02-04T{hour:02}:00:00Z", 1_200) for hour in (0, 2, 4)
    ]


@every_edition
async def test_names_are_bound_however_the_search_path_is_set(connection: Connection) -> None:
    # Arrange: tables and functions of the same names in a schema that is searched first
    stored = [minute(random.Random(n), MONDAY + timedelta(minutes=n)) for n in range(0, 4_000, 7)]
    usual = await value(connection, "SELECT current_setting('search_path')")
    await connection.execute(b"CREATE SCHEMA hostile")
    try:
        for table in (
            b"market_data",
            b"candle_settings",
            b"candle_hours",
            b"candle_days",
            b"stale_hours",
            b"timeframes",
        ):
            await connection.execute(b"CREATE TABLE hostile." + table + b" (LIKE public." + table + b")")
            await connection.execute(b"CREATE TEMPORARY TABLE " + table + b" (LIKE public." + table + b")")
        for function in (
            b"date_bin(interval, timestamptz, timestamptz)",
            b"bar_start(timestamptz, interval, public.candle_settings)",
        ):
            await connection.execute(
                b"CREATE FUNCTION hostile." + function + b" RETURNS timestamptz RETURN '1999-01-01'::timestamptz"
            )
        await connection.execute(b"SET search_path = hostile, pg_temp, public, pg_catalog")

        # Act
        for start in range(0, len(stored), 250):
            await connection.execute(
                b"INSERT INTO public.market_data (ts, symbol, source, open, high, low, close, volume, real_volume,"
                b" spread, closed, timeframe, origin) SELECT *, 'M1', 'broker' FROM unnest(%s::timestamptz[],"
                b" %s::text[], %s::text[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::bigint[],"
                b" %s::float8[], %s::int[], %s::bool[])",
                [list(column) for column in zip(*stored[start : start + 250], strict=True)],
            )
        pages = []
        for action in (
            b"SELECT public.refresh_candles()",
            b"DELETE FROM public.market_data WHERE ts < '2019-02-04 04:00+00'",
            b"SELECT public.refresh_candles()",
        ):
            for query in (b"public.last_candles('EURUSD', 'H4')", b"public.candles_h4 ORDER BY ts"):
                rows = await (await connection.execute(b"SELECT * FROM " + query)).fetchall()
                pages.append([Bar(*row) for row in rows])
            await connection.execute(action)
    finally:
        # PGlite's one session goes on.
        await connection.execute(b"SELECT set_config('search_path', %s, false)", (usual,))
        await connection.execute(b"DISCARD TEMP")
        await connection.execute(b"DROP SCHEMA hostile CASCADE")

    # Assert
    expected = bars(stored, "H4", Day())
    assert pages == [expected] * 4 + [expected[1:]] * 2
    assert await stale_hours(connection) == 0


async def test_every_function_binds_its_names_when_it_is_created(connection: Connection) -> None:
    unbound = await connection.execute(
        b"""
        SELECT p.oid::regprocedure::text FROM pg_proc AS p
        WHERE p.pronamespace = current_schema()::regnamespace AND p.prosqlbody IS NULL
            AND NOT coalesce(array_to_string(p.proconfig, ',') LIKE '%search_path=%pg_temp%', false)
            AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')
        """
    )
    assert await unbound.fetchall() == []
    assert await value(connection, "SELECT count(*) FROM pg_proc WHERE prosqlbody IS NOT NULL") > 10


async def test_a_condition_on_the_symbol_reaches_every_table(connection: Connection) -> None:
    # Arrange: without it, a page of one symbol would roll up the stale hours of all
    await insert(connection, [minute(random.Random(1), MONDAY)])
    # A hypertable itself holds no row; its chunks do.
    may_be_read_whole = {"market_data"} if (await edition(connection)).startswith("timescaledb") else set()
    for materialised_from, timeframe in product(["-infinity", "2018-06-01"], TIMEFRAMES):
        await connection.execute(b"UPDATE candle_settings SET materialised_from = %s", (materialised_from,))
        name = sql.Identifier(f"candles_{timeframe.lower()}")

        # Act
        explained = await connection.execute(
            sql.SQL("EXPLAIN (FORMAT json) SELECT * FROM {} WHERE symbol = 'EURUSD'").format(name)
        )

        # Assert
        [([plan],)] = await explained.fetchall()
        scans = list(_scans(plan["Plan"]))
        assert any(relation.startswith(("market_data", "_hyper")) for relation, _ in scans), timeframe
        unconditional = {relation for relation, conditions in scans if "symbol" not in conditions}
        assert unconditional <= may_be_read_whole, (timeframe, materialised_from)


def _scans(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each scan of a table of candles in a plan: the table, or its chunk's, and the conditions."""
    relation = node.get("Relation Name", "")
    if relation.startswith(("candle_hours", "candle_days", "stale_hours", "market_data", "_hyper")):
        yield relation, node.get("Index Cond", "") + node.get("Filter", "") + node.get("Recheck Cond", "")
    for child in node.get("Plans", []):
        yield from _scans(child)


async def test_a_minute_that_moves_leaves_one_hour_and_joins_another(connection: Connection) -> None:
    # Arrange
    dice = random.Random(9)
    stored = [minute(dice, MONDAY + timedelta(minutes=n)) for n in range(150)]
    await insert(connection, stored)
    await refresh(connection)

    # Act
    await connection.execute(
        b"UPDATE market_data SET ts = ts + interval '5 hours' WHERE ts = '2019-02-04 00:10+00' AND symbol = 'EURUSD'"
    )
    await connection.execute(b"UPDATE market_data SET timeframe = 'M5' WHERE ts = '2019-02-04 01:10+00'")
    await connection.execute(b"UPDATE market_data SET timeframe = 'M1', symbol = 'USDJPY' WHERE timeframe = 'M5'")

    # Assert
    moved = stored[10]._replace(ts=MONDAY + timedelta(minutes=310))
    renamed = stored[70]._replace(symbol="USDJPY")
    kept = [bar for n, bar in enumerate(stored) if n not in (10, 70)]
    assert await stale_hours(connection) == 4
    for _ in ("stale", "materialised"):
        await assert_exact(connection, [*kept, moved, renamed], Day(), ("M5", "H1", "D1"), dice)
        await refresh(connection)


@every_edition
async def test_sums_are_the_same_to_the_last_bit_whatever_is_materialised(connection: Connection) -> None:
    # Arrange: thirds, whose sum depends on the order and on the brackets
    dice = random.Random(11)
    stored = [
        bar._replace(real_volume=None if dice.random() < 0.1 else dice.randint(1, 10**6) / 3)
        for bar in some_minutes(dice, "EURUSD", "S")
    ]
    await insert(connection, stored)
    hours = _sums(((bar.ts, bar.real_volume) for bar in stored), lambda ts: ts.replace(minute=0))

    # Act
    seen = []
    for prepare in ("stale", "materialised", "nothing", "partly", "all"):
        if prepare == "materialised":
            await refresh(connection)
        elif prepare == "nothing":
            await connection.execute(b"UPDATE candle_settings SET materialised_from = 'infinity'")
        elif prepare == "partly":
            await materialise_step(connection, days=30)
        elif prepare == "all":
            while await materialise_step(connection, days=90) != "-infinity":
                pass
        seen.append([await view(connection, timeframe) for timeframe in ("H1", "H4", "D1", "W1", "MN1")])

    # Assert
    assert seen == seen[:1] * 5
    assert {bar.ts: bar.real_volume for bar in seen[0][0]} == hours
    assert {bar.ts: bar.real_volume for bar in seen[0][2]} == _sums(hours.items(), lambda ts: ts.replace(hour=0))


def _sums(
    values: Iterable[tuple[datetime, float | None]], start: Callable[[datetime], datetime]
) -> dict[datetime, float | None]:
    """Sums of what has the same `start`, added one after the other in order of time."""
    groups: dict[datetime, list[float]] = {}
    for ts, one in sorted(values, key=lambda pair: pair[0]):
        groups.setdefault(start(ts), []).extend([] if one is None else [one])
    return {ts: reduce(add, members) if members else None for ts, members in groups.items()}


async def test_series_are_known_whatever_is_materialised(connection: Connection) -> None:
    dice = random.Random(2)
    await insert(connection, [minute(dice, MONDAY, symbol, source) for symbol, source in SERIES])
    query = "SELECT array_agg(symbol || ' ' || source ORDER BY symbol, source) FROM candle_series"
    known = [f"{symbol} {source}" for symbol, source in SERIES]
    assert await value(connection, query) == known
    await refresh(connection)
    await insert(connection, [minute(dice, MONDAY, "AUDUSD", "S")])
    assert await value(connection, query) == ["AUDUSD S", *known]
    # Hours begin at another minute, and nothing is materialised; then all of it.
    await set_day(connection, Day("Asia/Kolkata"))
    assert await value(connection, query) == ["AUDUSD S", *known]
    while await materialise_step(connection) != "-infinity":
        pass
    await refresh(connection)
    assert await value(connection, query) == ["AUDUSD S", *known]
    await connection.execute(b"DELETE FROM market_data WHERE symbol = 'AUDUSD'")
    await refresh(connection)
    assert await value(connection, query) == known
