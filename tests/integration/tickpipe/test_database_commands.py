"""`tickpipe db day-zone`, `candles --timeframe`, `query NAME` and `fidelity`, as people type them."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from sink.queries import analyses, purpose
from tests.integration.sink.db.editions import database_on
from tests.servers import EmbeddedServers, schema_template
from tickpipe.cli import app

MONDAY = datetime(2019, 2, 4, tzinfo=UTC)

_INSERT = """
INSERT INTO market_data (
    ts, symbol, timeframe, open, high, low, close, volume, source, origin, closed, log, offsets, stored_at
)
SELECT
    '2019-02-04'::timestamptz + n * interval '1 minute', 'EURUSD', 'M1', n + 1, n + 2, n + 0.5, n + 1.5,
    -- A folded candle has a tick at least; the broker's bar may have none.
    CASE WHEN source = 'T' AND n = 37 THEN 0 ELSE 10 END, source, origin, n <> 1000, 'log', '{[1,2)}', '2019-02-05'
FROM (VALUES ('S', 'ticks'), ('T', 'broker')) AS s (source, origin), generate_series(0, 2879) AS n
-- Ten minutes are missing, and the second source has one hour only.
WHERE n NOT BETWEEN 600 AND 609 AND (source = 'S' OR n < 60)
"""


@pytest.fixture
def database(servers: EmbeddedServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Two days of minutes, and the environment that leads the commands to them."""
    with database_on(servers.database_url, schema_template(servers.database_url)) as url:
        with psycopg.connect(url) as connection:
            connection.execute(_INSERT.encode())
        monkeypatch.setenv("TICKPIPE_DATABASE_URL", url)
        monkeypatch.setenv("TICKPIPE_DATA_DIR", str(tmp_path))
        yield url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def rows(*arguments: str) -> list[dict[str, Any]]:
    result = run(*arguments, "--format", "json")
    assert result.exit_code == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_days_begin_where_the_broker_begins_them(database: str) -> None:
    assert database
    assert "Days begin at 00:00 in UTC, weeks on Sunday." in run("db", "day-zone").stdout

    result = run("db", "day-zone", "America/New_York", "--start", "17:00", "--week-start", "monday")
    assert result.exit_code == 0, result.stderr
    assert "Days begin at 17:00 in America/New_York, weeks on Monday." in result.stdout
    days = rows("candles", "-s", "EURUSD", "--timeframe", "D1")
    assert [(day["ts"], day["timeframe"]) for day in days] == [
        ("2019-02-03T22:00:00Z", "D1"), ("2019-02-04T22:00:00Z", "D1"), ("2019-02-05T22:00:00Z", "D1"),
    ]  # fmt: skip
    assert days[1]["open"] == 22 * 60 + 1

    # Hours begin at half past there: everything is folded again.
    assert run("db", "day-zone", "Asia/Kolkata").exit_code == 0
    assert rows("candles", "-s", "EURUSD", "--timeframe", "H1", "--limit", "1")[0]["ts"] == "2019-02-05T23:30:00Z"
    with psycopg.connect(database) as connection:
        assert connection.execute(b"SELECT materialised_from::text FROM candle_settings").fetchone() == ("-infinity",)
    assert "weeks on Monday" in run("db", "day-zone").stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["Europe/Atlantis"], "is no time zone"),
        (["Australia/Lord_Howe"], "by less than an hour"),
        (["UTC", "--start", "25:00"], "is no time of day"),
        (["--start", "17:00"], "name the zone as well"),
        (["UTC", "--week-start", "friday"], "friday"),
    ],
)
def test_a_day_that_cannot_be_is_wrong_use(database: str, arguments: list[str], complaint: str) -> None:
    assert database
    result = run("db", "day-zone", *arguments)
    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.replace("│", " ").split())


def test_every_timeframe_is_shown(database: str) -> None:
    assert database
    for timeframe in ("M5", "M15", "M30", "H1", "H4", "D1", "W1", "MN1"):
        found = rows("candles", "-s", "EURUSD", "--timeframe", timeframe, "--from", "2019-02-01")
        assert sum(row["volume"] for row in found) == 10 * 2870
        assert (
            found[0]["ts"]
            == ("2019-02-03" if timeframe == "W1" else "2019-02-01" if timeframe == "MN1" else "2019-02-04")
            + "T00:00:00Z"
        )


def test_queries_are_listed_with_what_they_answer() -> None:
    result = run("query")
    assert result.exit_code == 0
    assert len(analyses()) == 8
    for name in ("1", "2", "3", "4", "5", *analyses()):
        assert f" {name} " in result.stdout
    assert all(len(purpose(name)) > 40 for name in analyses())


def test_analyses_answer(database: str) -> None:
    assert database
    # Our S and the second source T, whose bars came from the broker.
    found = {name: rows("query", name) for name in analyses()}

    assert [(row["source"], row["ts"], row["close"]) for row in found["latest"]] == [
        ("S", "2019-02-05T23:59:00Z", 2880.5), ("T", "2019-02-04T00:59:00Z", 60.5)
    ]  # fmt: skip
    assert [(row["source"], row["days"], row["ticks"]) for row in found["summary"]] == [("S", 2, 28_700), ("T", 1, 590)]
    assert [row["ts"] for row in found["duplicates"]] == [
        f"{MONDAY + timedelta(minutes=n):%Y-%m-%dT%H:%M:%SZ}" for n in range(60)
    ]
    assert [row["ts"] for row in found["zero_volume"]] == ["2019-02-04T00:37:00Z"]
    assert [(row["source"], row["hours"], row["ticks_per_hour"]) for row in found["activity"][:2]] == [
        ("S", 2, 600), ("S", 2, 600)
    ]  # fmt: skip
    assert found["volatility"][0]["days"] == 1  # a return needs two closes
    assert [
        (row["source"], row["minutes"], row["only_broker"], row["left_open"], row["without_ticks"], row["impossible"])
        for row in found["quality"]
    ] == [("S", 2870, 0, 1, 0, 0), ("T", 60, 60, 0, 1, 0)]


def test_latency_leaves_out_history_and_wrong_clocks(database: str) -> None:
    # Arrange: of the newest minutes three live ones, one of history and one of a clock that is two hours ahead
    with psycopg.connect(database) as connection:
        connection.execute(
            b"""
            UPDATE market_data AS m
            SET last_tick = m.ts, received_at = m.ts + v.arrive, folded_at = m.ts + v.arrive + v.fold,
                stored_at = m.ts + v.arrive + v.fold + v.store
            FROM (
                VALUES (59, '250 ms'::interval, '200 ms'::interval, '100 ms'::interval),
                    (58, '-100 ms', '250 ms', '150 ms'), (57, '2 s', '300 ms', '200 ms'),
                    (56, '3 years', '9 s', '9 s'), (55, '-2 hours', '9 s', '9 s')
            ) AS v (minute, arrive, fold, store)
            WHERE m.source = 'S' AND m.ts = '2019-02-05 23:00+00'::timestamptz + v.minute * interval '1 minute'
            """
        )

    # Act
    [row] = rows("query", "latency")

    # Assert
    assert (row["source"], row["minutes"], row["history"], row["clock_ahead"]) == ("S", 3, 1, 1)
    assert (row["tick_to_received_p50"], row["tick_to_received_p99"]) == (0.25, 2.0)
    assert (row["received_to_folded_p50"], row["received_to_folded_p99"]) == (0.25, 0.3)
    assert (row["folded_to_stored_p50"], row["folded_to_stored_p99"]) == (0.15, 0.2)
    assert (row["tick_to_stored_p50"], row["tick_to_stored_p99"]) == (0.55, 2.5)


def test_fidelity_shows_what_is_not_equal(database: str) -> None:
    # Arrange: the broker's bars of one morning, two of them different and one missing
    with psycopg.connect(database) as connection:
        connection.execute(
            b"""
            INSERT INTO broker_bars (source, symbol, timeframe, ts, open, high, low, close, volume, received_at)
            SELECT
                source, symbol, timeframe, ts, open,
                high + CASE extract(minute FROM ts) WHEN 57 THEN 0.25 ELSE 0 END, low, close,
                volume + CASE extract(minute FROM ts) WHEN 31 THEN 5 ELSE 0 END, now()
            FROM market_data
            WHERE source = 'S' AND ts BETWEEN '2019-02-04 12:00+00' AND '2019-02-04 13:00+00'
                AND ts <> '2019-02-04 12:05+00'
            """
        )

    # Act
    minutes = rows("fidelity", "--symbol", "EURUSD")
    days = rows("fidelity", "--daily")
    every = rows("fidelity", "--all", "--from", "2019-02-04T12:30", "--to", "2019-02-04T12:40")

    # Assert
    assert [(row["ts"][11:16], row["verdict"], row["differing"]) for row in minutes] == [
        ("12:05", "no_bar", None), ("12:31", "differs", "volume"), ("12:57", "differs", "high")
    ]  # fmt: skip
    assert minutes[1]["volume_difference"] == -5
    assert minutes[2]["high_difference"] == -0.25
    assert [(row["minutes"], row["equal"], row["differs"], row["no_bar"], row["no_candle"]) for row in days] == [
        (61, 58, 2, 1, 0)
    ]
    assert len(every) == 10
    assert rows("fidelity", "--symbol", "USDJPY") == []
    table = run("fidelity", "--symbol", "EURUSD", "--from", "2019-02-04T12:10", "--to", "2019-02-04T12:20")
    assert (table.exit_code, table.stdout) == (0, "")
    assert "Nothing differs" in table.stderr
    said = run("fidelity").stderr
    assert "EURUSD of S, 2019-02-04 12:05: the broker has no bar" in said
    assert "EURUSD of S, 2019-02-04 12:31: ticks were lost" in said
    assert "did you mean EURUSD?" in run("fidelity", "--symbol", "EURUSD.").stderr


@pytest.mark.parametrize("option", ["--daily", "--all"])
def test_fidelity_without_bars_says_how_they_come(database: str, option: str) -> None:
    assert database
    result = run("fidelity", option)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No bar of the broker is stored" in result.stderr
    assert "fidelity --daily" not in result.stderr


def test_candles_of_several_sources_say_whose_they_are(database: str) -> None:
    assert database
    mixed = rows("candles", "-s", "EURUSD", "--to", "2019-02-04T00:02")
    assert [row["source"] for row in mixed] == ["S", "T", "S", "T"]
    assert {row["source"] for row in rows("candles", "-s", "EURUSD", "--timeframe", "H1", "--source", "T")} == {"T"}


@pytest.mark.parametrize("written", ["eurusd", "EURSUD", "EURUSD.pro"])
def test_an_unknown_symbol_hints_at_those_that_are_stored(database: str, written: str) -> None:
    assert database
    result = run("candles", "--symbol", written)
    assert result.exit_code == 1
    assert f"nothing of {written} is stored; did you mean EURUSD?" in " ".join(result.stderr.split())


@pytest.mark.full
@pytest.mark.long(20)
def test_ten_thousand_symbols_are_cut_and_counted(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(
            b"""
            INSERT INTO market_data (ts, symbol, timeframe, open, high, low, close, volume, source, origin, closed)
            SELECT '2019-02-06', 'S' || n, 'M1', 1, 1, 1, 1, 1, 'S', 'broker', true FROM generate_series(1, 9999) AS n
            """
        )
    for command in (["query", "latest"], ["status"]):
        cut = run(*command)
        assert cut.stdout.count("2019-02-0") < 120
        assert "and 9,95" in cut.stderr
        assert "--all shows them" in cut.stderr
    whole = run("query", "latest", "--all")
    assert whole.stdout.count("2019-02-06") >= 9_999
    assert "more of" not in whole.stderr


def test_a_busy_database_is_not_called_away(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickpipe.status._READING_SECONDS", 0.2)
    with psycopg.connect(database) as connection:
        connection.execute("LOCK market_data")
        shown = run("status")
    assert "PostgreSQL answers, but it did not tell the newest candles" in shown.stderr
    assert "PostgreSQL does not answer" not in shown.stderr


def test_a_password_is_changed_in_the_database_and_a_wrong_one_says_so(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"role_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'the-former-one'".encode())
    try:
        changed = CliRunner().invoke(app, ["db", "password", role], input="%the'n@w one\n")
        assert (changed.exit_code, changed.stdout) == (0, f"Changed the password of {role}.\n")
        psycopg.connect(database, user=role, password="%the'n@w one").close()  # noqa: S106 - made up

        wrong = psycopg.conninfo.make_conninfo(database, user=role, password="the-former-one")  # noqa: S106 - made up
        monkeypatch.setenv("TICKPIPE_DATABASE_URL", wrong)
        refused = run("db", "status")
        assert refused.exit_code == 1
        assert f"the password of {role} is set in the database, not by .env" in refused.stderr.replace("\n", " ")
        assert CliRunner().invoke(app, ["db", "password"], input="short\n").exit_code == 2
    finally:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(f"DROP ROLE {role}".encode())


def test_gaps_are_told_from_closed_markets(database: str) -> None:
    # Arrange: the broker has bars of three of the ten minutes without ticks, and of two others; then nothing comes
    with psycopg.connect(database) as connection:
        connection.execute(
            b"""
            UPDATE market_data SET origin = 'broker', log = NULL, offsets = NULL
            WHERE source = 'S' AND ts IN ('2019-02-04 12:00+00', '2019-02-04 12:01+00')
            """
        )
        connection.execute(
            b"""
            INSERT INTO market_data (ts, symbol, timeframe, open, high, low, close, volume, source)
            SELECT '2019-02-04 10:00+00'::timestamptz + n * interval '1 minute', 'EURUSD', 'M1', 1, 1, 1, 1, 7, 'S'
            FROM generate_series(0, 2) AS n
            """
        )

    # Act
    result = run("gaps", "--from", "2019-02-01", "--to", "2019-02-07", "--least", "5", "--suggest", "--format", "json")

    # Assert: the source T has bars alone, so nothing of it is missing
    assert result.exit_code == 1, result.stderr
    assert [tuple(gap.values())[1:] for gap in json.loads(result.stdout)] == [
        ("S", "2019-02-04T10:00:00Z", "2019-02-04T10:03:00Z", "missing", 3, 21, None),
        ("S", "2019-02-04T10:03:00Z", "2019-02-04T10:10:00Z", "unknown", 7, None, None),
        ("S", "2019-02-04T12:00:00Z", "2019-02-04T12:02:00Z", "missing", 2, 20, None),
        # Two days of history: the hour of the gap is usually half as long.
        ("S", "2019-02-06T00:00:00Z", "2019-02-07T00:00:00Z", "unknown", 1436, None, None),
    ]
    assert result.stderr.count("tickpipe import TICKS.csv --symbol EURUSD --source S") == 4

    assert run("gaps", "--from", "2019-02-04T13:00", "--to", "2019-02-06").exit_code == 0
    assert "did you mean EURUSD" in run("gaps", "--symbol", "eurusd").stderr
    # Nothing came in all of the time that is looked at, nor before it.
    [silent] = json.loads(run("gaps", "--from", "2019-02-07T06:00", "--to", "2019-02-08", "--format", "json").stdout)
    assert (silent["from"], silent["to"], silent["state"]) == (
        "2019-02-07T06:00:00Z",
        "2019-02-08T00:00:00Z",
        "unknown",
    )
