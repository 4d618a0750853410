"""`tickpipe export`, read back by DuckDB and polars and compared with every row of the table."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pyarrow import parquet
from typer.testing import CliRunner, Result

import sink.queries
from tests.integration.sink.db.editions import database_on
from tests.servers import EmbeddedServers, schema_template
from tickpipe.cli import app

#: Minutes around New Year of two sources and of a symbol that no file name can hold; one is the broker's bar.
_INSERT = """
INSERT INTO market_data (
    ts, symbol, timeframe, open, high, low, close, volume, real_volume, spread, source, origin, closed, first_tick,
    last_tick, log, offsets, received_at, folded_at, stored_at
)
SELECT
    ts, symbol, 'M1', n + 1.1, n + 7.0 / 3, 1e-7 * n, n + 1.3, 9007199254740993 - n,
    CASE WHEN n % 3 > 0 THEN n / 7.0 END, CASE WHEN n % 4 > 0 THEN n END, source,
    CASE n WHEN 5 THEN 'broker' ELSE 'ticks' END, n <> 39, ts + interval '1.001 s',
    ts + interval '59.123456 s', CASE WHEN n <> 5 THEN 'cluster/ticks' END,
    CASE WHEN n = 5 THEN NULL
        WHEN n % 2 = 0 THEN int8multirange(int8range(n, n + 7), int8range(log_position(3, n), log_position(3, n + 1)))
        ELSE int8multirange(int8range(n, n + 7)) END,
    ts + interval '61.5 s', CASE WHEN n <> 5 THEN ts + interval '61.75 s' END, ts + interval '62 s'
FROM (VALUES ('EURUSD', 'S'), ('EURUSD', 'T, b'), ('BRK/B .x', 'S')) AS s (symbol, source),
    generate_series(0, 39) AS n,
    LATERAL (SELECT timestamptz '2018-12-31 23:40+00' + n * interval '1 minute' AS ts) AS t
"""

_COLUMNS = """
    symbol, source, timeframe, extract(epoch FROM ts)::float8, open, high, low, close, volume, real_volume, spread,
    closed, origin, extract(epoch FROM first_tick)::float8, extract(epoch FROM last_tick)::float8, log,
    offsets::text, extract(epoch FROM received_at)::float8, extract(epoch FROM folded_at)::float8,
    extract(epoch FROM stored_at)::float8
"""

#: The same of the files.
_READ = _COLUMNS.replace("extract(epoch FROM ", "epoch(").replace(
    "offsets::text",
    "'{' || list_aggregate([format('[{},{})', r.partition * 281474976710656 + r.first, "
    "r.partition * 281474976710656 + r.last + 1) for r in offsets], 'string_agg', ',') || '}'",
)

Row = tuple[Any, ...]


@pytest.fixture(scope="module")
def database(servers: EmbeddedServers) -> Iterator[str]:
    with database_on(servers.database_url, schema_template(servers.database_url)) as url:
        with psycopg.connect(url) as connection:
            connection.execute(_INSERT.encode())
        yield url


@pytest.fixture(autouse=True)
def environment(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKPIPE_DATABASE_URL", database)
    monkeypatch.setenv("TICKPIPE_DATA_DIR", str(tmp_path / "no-stack"))


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def stored(database: str, table: str = "market_data", columns: str = _COLUMNS) -> list[Row]:
    query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(columns), sql.Identifier(table))
    with psycopg.connect(database) as connection:
        return sorted(connection.execute(query).fetchall(), key=str)


def read(directory: Path, columns: str = _READ) -> list[Row]:
    """What DuckDB finds in the files."""
    import duckdb  # noqa: PLC0415  # slow to load

    if list(directory.rglob("*.csv")):
        files = duckdb.read_csv(f"{directory}/**/*.csv", hive_partitioning=True)
    else:
        files = duckdb.read_parquet(f"{directory}/**/*.parquet", hive_partitioning=True)
    return sorted(files.project(columns).fetchall(), key=str)


def test_every_row_of_the_table_comes_back_from_parquet(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Smaller than a series, so that both cursors and row groups have to go on.
    monkeypatch.setattr(sink.queries, "_EXPORT_ROWS", 7)
    monkeypatch.setattr("tickpipe.export.files._GROUP_ROWS", 11)
    result = export(tmp_path / "out")

    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("120 candles in 4 files")
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.parquet")) == [
        "symbol=BRK%2FB%20.x/year=2018/M1.parquet",
        "symbol=BRK%2FB%20.x/year=2019/M1.parquet",
        "symbol=EURUSD/year=2018/M1.parquet",
        "symbol=EURUSD/year=2019/M1.parquet",
    ]
    expected = stored(database)
    assert len(expected) == 120
    assert read(tmp_path / "out") == expected
    assert set(read(tmp_path / "out", "year, year(ts AT TIME ZONE 'UTC')")) == {(2018, 2018), (2019, 2019)}


def test_polars_reads_the_same(database: str, tmp_path: Path) -> None:
    assert export(tmp_path / "out").exit_code == 0
    import polars  # noqa: PLC0415  # slow to load

    frame = polars.read_parquet(tmp_path / "out" / "**" / "*.parquet", hive_partitioning=True)
    found = frame.select("symbol", "source", "ts", "open", "volume", "spread", "offsets").rows()
    expected = stored(
        database,
        columns="symbol, source, ts, open, volume, spread, "
        "(SELECT array_agg(ARRAY[r.partition, r.first, r.last]) FROM proof_ranges(offsets) AS r)",
    )
    assert sorted(found, key=str) == sorted(
        (
            (*row[:6], None if row[6] is None else [{"partition": p, "first": a, "last": b} for p, a, b in row[6]])
            for row in expected
        ),
        key=str,
    )  # fmt: skip


def test_a_directory_is_read_as_pandas_reads_it(tmp_path: Path) -> None:
    assert export(tmp_path / "out").exit_code == 0
    table = parquet.read_table(tmp_path / "out")
    found = sorted(set(zip(table["symbol"].to_pylist(), table["year"].to_pylist(), strict=True)))
    assert (table.num_rows, found) == (120, [(s, y) for s in ("BRK/B .x", "EURUSD") for y in (2018, 2019)])


def test_csv_holds_the_same_rows(database: str, tmp_path: Path) -> None:
    assert export(tmp_path / "out", "--format", "csv").exit_code == 0
    read_back = _READ.partition("'{'")[0] + "offsets" + _READ.partition("'}'")[2]
    assert read(tmp_path / "out", read_back) == stored(database)


@pytest.mark.parametrize("timeframe", ["M5", "H1", "D1", "W1", "MN1"])
def test_longer_timeframes_are_those_of_the_views(database: str, tmp_path: Path, timeframe: str) -> None:
    assert export(tmp_path / "out", "--timeframe", timeframe).exit_code == 0
    columns = _COLUMNS.partition(",\n    closed")[0].replace("timeframe", f"'{timeframe}' AS timeframe") + ", closed"
    assert columns.count(",") > 8
    expected = stored(database, f"candles_{timeframe.lower()}", columns)
    assert len(expected) >= 3
    assert read(tmp_path / "out", columns.replace("extract(epoch FROM ", "epoch(")) == expected
    assert set(read(tmp_path / "out", "timeframe")) == {(timeframe,)}


def test_a_stretch_of_one_symbol(tmp_path: Path) -> None:
    result = export(tmp_path / "out", "-s", "EURUSD", "--from", "2018-12-31T23:58", "--to", "2019-01-01T00:03")
    assert result.exit_code == 0
    first = datetime(2018, 12, 31, 23, 58, tzinfo=UTC).timestamp()
    assert set(read(tmp_path / "out", "symbol, epoch(ts)")) == {("EURUSD", first + 60 * n) for n in range(5)}
    manifest = json.loads((tmp_path / "out" / "_export.json").read_text())
    assert (manifest["candles"], manifest["files"], manifest["symbols"]) == (10, 2, ["EURUSD"])


def test_what_is_not_stored_writes_nothing(tmp_path: Path) -> None:
    for arguments in (("-s", "EURUSD", "-s", "XAUUSD"), ("--from", "2020-01-01")):
        result = export(tmp_path / "out", *arguments)
        assert result.exit_code == 1
        assert "nothing was written" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_replaced_only_when_told_and_other_files_never(tmp_path: Path) -> None:
    assert export(tmp_path / "out", "-s", "EURUSD").exit_code == 0
    again = export(tmp_path / "out", "-s", "BRK/B .x")
    assert again.exit_code == 2
    assert "--replace" in again.stderr
    assert export(tmp_path / "out", "-s", "BRK/B .x", "--replace").exit_code == 0
    assert [path.name for path in (tmp_path / "out").glob("symbol=*")] == ["symbol=BRK%2FB%20.x"]

    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert export(mine, "--replace").exit_code == 2
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def test_what_fails_half_way_leaves_the_former_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert export(tmp_path / "out", "-s", "EURUSD").exit_code == 0
    before = (tmp_path / "out" / "_export.json").read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tickpipe.export.files.ParquetFile._flush", full)
    failed = export(tmp_path / "out", "--replace")
    assert failed.exit_code == 1
    assert "No space left" in failed.stderr
    assert (tmp_path / "out" / "_export.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_sql_reads_every_candle(database: str) -> None:
    columns = (
        "source, symbol, extract(epoch FROM ts)::float8, open, high, low, close, volume, real_volume, spread, closed"
    )
    with psycopg.connect(database) as connection:
        stored = connection.execute(f"SELECT {columns} FROM market_data").fetchall()  # noqa: S608
    query = f"select {columns.replace('extract(epoch FROM ts)', 'epoch(ts)')} from candles"  # noqa: S608
    result = CliRunner().invoke(app, ["sql", query, "-f", "json"])
    assert result.exit_code == 0, result.output
    read = [tuple(row.values()) for row in json.loads(result.stdout)]
    assert sorted(read, key=lambda row: row[:3]) == sorted(stored, key=lambda row: row[:3])


def test_sql_reads_every_name_behind_many_candles_of_others(
    servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than whoever guesses at a file looks at.
    names = ['Oil, "WTI"', "'x'", "#A", "a|b;c", "NULL"]
    copies = _INSERT.partition("FROM (VALUES")[0] + (  # noqa: S608
        "FROM (VALUES ('EURUSD', 'S', 21000), {}) AS s (symbol, source, minutes), "
        "LATERAL (SELECT number, number % 40 AS n FROM generate_series(1, minutes) AS number) AS numbers, "
        "LATERAL (SELECT timestamptz '2018-12-01' + number * interval '1 minute' AS ts) AS t"
    )
    with database_on(servers.database_url, schema_template(servers.database_url)) as url:
        with psycopg.connect(url) as connection:
            values = sql.SQL(", ").join(sql.SQL("({}, {}, 3)").format(name, name) for name in names)
            connection.execute(sql.SQL(copies).format(values))
        monkeypatch.setenv("TICKPIPE_DATABASE_URL", url)
        result = CliRunner().invoke(
            app, ["sql", "select symbol, source, count(*) as n from candles group by all", "-f", "json"]
        )
    assert result.exit_code == 0, result.output
    read = {tuple(row.values()) for row in json.loads(result.stdout)}
    assert read == {("EURUSD", "S", 21_000), *((name, name, 3) for name in names)}
