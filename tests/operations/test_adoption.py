"""A database that is not empty: a schema of our own beside what is there, or a table of candles that is taken over."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from sink.db import adoption
from sink.db.schema import migrate
from tests.integration.sink.db.editions import database_on
from tests.operations.older_table import make_older_table
from tests.servers import EmbeddedServers
from tests.waiting import wait_until
from tickpipe.cli import app
from tickpipe.console import run as run_coroutine

#: A second row of a key with more ticks, one of zeros, one without a price, one that begins at :30, and an hour.
_ODD = """
INSERT INTO market_data (ts, symbol, timeframe, open, high, low, close, volume, tick_volume) VALUES
    ('2019-02-04', 'SYM0', 'M1', 1.1, 1.3, 1.0, 1.15, 9, 9),
    ('2018-02-04', 'ZERO', 'M1', 0, 0, 0, 0, 0, 0),
    ('2018-02-04', 'NULL', 'M1', 1.1, NULL, 1.0, 1.15, 9, 9),
    ('2018-02-04 00:00:30', 'HALF', 'M1', 1.1, 1.2, 1.0, 1.15, 9, 9),
    ('2018-02-04', 'HOUR', 'H1', 1.1, 1.2, 1.0, 1.15, 900, 90);
"""

#: What describes the older table.
_SHAPE = """
SELECT column_name, data_type, column_default FROM information_schema.columns WHERE table_name = 'market_data'
UNION ALL SELECT indexname, indexdef, NULL FROM pg_indexes WHERE tablename = 'market_data'
ORDER BY 1
"""

_OBJECTS = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace
ORDER BY 1
"""


@pytest.fixture
def url(servers: EmbeddedServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty database, and the environment that leads the commands to it."""
    with database_on(servers.database_url) as found:
        monkeypatch.setenv("TICKPIPE_DATABASE_URL", found)
        monkeypatch.setenv("TICKPIPE_DATA_DIR", str(tmp_path))
        yield found


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())


def rows(url: str, query: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def adopted(*options: str) -> dict[str, int]:
    result = run("db", "adopt", "--source", "Old", "--json", *options)
    assert result.exit_code == 0, result.stderr
    found: dict[str, int] = json.loads(result.stdout)
    return found


def test_a_table_of_candles_is_taken_over_and_given_back(url: str) -> None:
    # Arrange
    make_older_table(url, 10_000)
    execute(url, _ODD)
    before = (rows(url, _SHAPE), rows(url, _OBJECTS), rows(url, "SELECT * FROM market_data ORDER BY id"))
    expected = {"rows": 10_005, "stored": 10_002, "duplicates": 1, "zeros": 1, "unfit": 2, "other_timeframes": 0}

    # Act
    refused = run("db", "migrate")
    preview = adopted("--dry-run")
    assert rows(url, _OBJECTS) == before[1]
    found = adopted()
    candles = rows(url, "SELECT count(*), sum(tick_volume) FROM market_data WHERE origin = 'broker' AND source = 'Old'")
    chosen = rows(url, "SELECT volume, high FROM market_data WHERE symbol = 'SYM0' AND ts = '2019-02-04 00:00Z'")
    hour = rows(url, "SELECT volume, real_volume FROM market_data WHERE timeframe = 'H1'")
    hours = rows(url, "SELECT sum(volume) FROM candles_h1 WHERE symbol = 'SYM1'")
    again = adopted()
    undone = run("db", "adopt", "--undo")

    # Assert
    assert (refused.exit_code, "tickpipe db adopt" in refused.stderr, "TICKPIPE_DATABASE_SCHEMA" in refused.stderr) == (
        1, True, True,
    )  # fmt: skip
    assert preview == found == again == expected
    assert (candles, chosen) == ([(10_002, 10_000 * 7 + 2 + 90)], [(9, 1.3)])
    assert (hour, hours) == ([(90, 900)], [(2_500 * 7,)])
    assert undone.exit_code == 0, undone.stderr
    assert (rows(url, _SHAPE), rows(url, _OBJECTS), rows(url, "SELECT * FROM market_data ORDER BY id")) == before


def test_an_adoption_is_undone_though_another_session_deadlocks_with_it(url: str) -> None:
    # Arrange
    make_older_table(url, 8)
    adopted()
    waiting = "SELECT true FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    deadlocks = "SELECT true FROM pg_stat_database WHERE datname = current_database() AND deadlocks = 1"

    def deadlock(other: psycopg.Connection[Any]) -> None:
        wait_until(lambda: rows(url, waiting))
        other.execute(b"LOCK TABLE market_data IN ACCESS SHARE MODE")
        other.rollback()

    # Act
    with ThreadPoolExecutor(1) as pool, psycopg.connect(url) as other:
        # PostgreSQL ends the transaction that has waited for its own deadlock_timeout, by default a second.
        other.execute("SET deadlock_timeout = '1min'")
        other.execute(b"LOCK TABLE timeframes IN SHARE UPDATE EXCLUSIVE MODE")
        deadlocking = pool.submit(deadlock, other)
        undone = run("db", "adopt", "--undo")
        deadlocking.result()

    # Assert
    assert undone.exit_code == 0, undone.stderr
    assert rows(url, "SELECT count(*) FROM market_data") == [(8,)]
    wait_until(lambda: rows(url, deadlocks))


def test_an_adoption_that_was_interrupted_goes_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_older_table(url, 10_000)
    monkeypatch.setattr(adoption, "_STEP_BLOCKS", 20)
    steps = 0

    def interrupt(done: float) -> None:
        nonlocal steps
        steps += 1
        assert 0 < done < 1
        if steps == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_coroutine(adoption.adopt(url, "Old", [], interrupt))
    ((before,),) = rows(url, "SELECT count(*) FROM market_data")
    found = adopted()

    assert 0 < before < 10_000
    assert (found["rows"], found["stored"], found["duplicates"]) == (10_000, 10_000, 0)


def test_only_some_timeframes_of_a_table_without_a_key(url: str) -> None:
    execute(
        url,
        "CREATE TABLE market_data AS SELECT timestamp '2019-02-04' AS ts, 'EURUSD' AS symbol, t AS timeframe,"
        " 1.1::real AS open, 1.1::real AS high, 1.1::real AS low, 1.1::real AS close, 5 AS volume"
        " FROM unnest(ARRAY['M1', 'M1', 'D1', NULL]) AS t",
    )

    found = adopted("--timeframe", "M1")

    assert found == {"rows": 4, "stored": 1, "duplicates": 1, "zeros": 0, "unfit": 0, "other_timeframes": 2}
    assert rows(url, "SELECT extract(epoch FROM ts)::int, volume FROM market_data") == [(1549238400, 5)]


def test_candles_that_came_since_are_not_dropped_without_a_word(url: str) -> None:
    make_older_table(url, 8)
    adopted()
    execute(
        url,
        "INSERT INTO market_data (ts, symbol, timeframe, open, high, low, close, volume)"
        " VALUES (now(), 'X', 'D1', 1, 1, 1, 1, 1)",
    )

    asked = run("db", "adopt", "--undo")
    retained = rows(url, "SELECT count(*), max(source) FILTER (WHERE symbol = 'X') FROM market_data")
    told = run("db", "adopt", "--undo", "--yes")

    assert (asked.exit_code, "1 candles came after the adoption" in asked.stderr) == (1, True)
    assert retained == [(9, "manual")]
    assert told.exit_code == 0, told.stderr
    assert rows(url, "SELECT count(*) FROM market_data") == [(8,)]


def test_what_is_no_older_table_is_left_alone(url: str) -> None:
    nothing = run("db", "adopt", "--source", "Old")
    execute(url, "CREATE TABLE market_data (time timestamptz, price real)")
    other = run("db", "adopt", "--source", "Old")
    execute(url, "DROP TABLE market_data")
    run_coroutine(migrate(url))
    own = run("db", "adopt", "--source", "Old")

    assert [nothing.exit_code, other.exit_code, own.exit_code] == [2, 2, 2]
    assert "has no table market_data" in nothing.stderr
    assert "has no column ts, symbol, timeframe, open, high, low, close, volume" in other.stderr
    assert "Tickpipe's own" in own.stderr


def test_another_table_in_the_way_leaves_everything_as_it_was(url: str) -> None:
    make_older_table(url, 8)
    execute(url, "CREATE TABLE timeframes (name text)")
    before = (rows(url, _SHAPE), rows(url, _OBJECTS))

    refused = run("db", "adopt", "--source", "Old")

    assert (refused.exit_code, "timeframes" in refused.stderr) == (1, True)
    assert (rows(url, _SHAPE), rows(url, _OBJECTS)) == before


@pytest.mark.full
@pytest.mark.long(20)
def test_a_million_rows_are_taken_over_and_given_back(url: str) -> None:
    make_older_table(url, 1_000_000)

    found = adopted()
    undone = run("db", "adopt", "--undo")

    assert (found["rows"], found["stored"]) == (1_000_000, 1_000_000)
    assert undone.exit_code == 0
    assert rows(url, "SELECT count(*) FROM market_data") == [(1_000_000,)]
