"""`tickpipe sql`: its ticks are those that candles count, whatever was sent again and wherever it lies."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, cast

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple
from pyarrow.fs import LocalFileSystem
from pyarrow.parquet import read_table
from typer.testing import CliRunner, Result

import tickpipe.sql
from archive.writer import Writer
from marketdata.coverage import Coverage
from marketdata.offsets import normalized, position
from marketdata.refold import Proof, Refold, TickFold, bridged
from marketdata.timeframes import M1
from runtime.archive.columns import rows_in
from runtime.archive.files import ObjectFiles
from runtime.archive.manifest import Catalogue
from runtime.archive.reader import ArchiveReader
from tests.conftest import fewer_examples
from tests.unit.archive.test_writer import (
    LOG,
    MIDNIGHT,
    Archive,
    Log,
    disk_that_need_not_be_waited_for,
    frames,
    logs,
    resent,
)
from tickpipe.cli import app
from tickpipe.sqlanswer import Answer
from tickpipe.tickviews import Ticks

__all__ = ["disk_that_need_not_be_waited_for"]

_TICKS = "SELECT source, symbol, epoch_ms(time), bid, ask, last, volume, flags FROM ticks"
_RAW = _TICKS.replace("flags FROM ticks", 'flags, "offset", "index" FROM ticks_raw')


def shown(archive: Archive | None, tail: Log) -> tuple[Counter[Any], Counter[Any]]:
    """What both views have."""
    with duckdb.connect() as connection:
        Ticks(None if archive is None else archive.catalogue, {0: tail}).show(connection)
        found = [connection.execute(query).fetchall() for query in (_TICKS, _RAW)]
    return Counter(found[0]), Counter(found[1])


#: What the page says gives the candles.
DOCUMENTED = next(
    block
    for block in (Path(__file__).parents[3] / "docs" / "archive.md").read_text(encoding="utf-8").split("```sql\n")
    if "time_bucket" in block
).partition("```")[0]


def counted(log: Log) -> Counter[Any]:
    """The ticks that the candles of the log count."""
    return Counter((p.source, p.symbol, *row) for p, fold in folds_of(log).items() for row in fold.rows())


def counted_in_order(log: Log, series: tuple[str, str]) -> list[Any]:
    """Those of a source and symbol, as `tickpipe ticks` gives them."""
    minutes = sorted((p.ts, fold) for p, fold in folds_of(log).items() if (p.source, p.symbol) == series)
    return [row for _, fold in minutes for row in fold.rows()]


def folds_of(log: Log) -> dict[Proof, TickFold]:
    placed = [(position(0, offset), frame) for offset, frame in log]
    coverage = Coverage(M1.base_width_ms)
    coverage.feed(placed)
    refold = Refold([Proof(*key, bridged(ranges)) for key, ranges in coverage.rest().items()], TickFold)
    refold.feed(placed)
    return cast("dict[Proof, TickFold]", refold.results())


def recorded(log: Log) -> Counter[Any]:
    return Counter(
        (frame.source, frame.symbol, *astuple(tick), offset, index)
        for offset, frame in log
        for index, tick in enumerate(frame.ticks)
    )


# A failure is told by its shrunken example, which may be long.
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@fewer_examples
@given(logs(), st.integers(1, 5), st.integers(0, 3), st.integers(0, 20))
def test_ticks_are_those_that_candles_count(
    tmp_path_factory: pytest.TempPathFactory, log: Log, cut: int, merged: int, in_files: int
) -> None:
    archive = Archive(tmp_path_factory.mktemp("archive"))
    archive.write(log[:in_files], cut=cut)
    for date in list(archive.catalogue.progress(0).days)[:merged]:
        writer = Writer(archive.catalogue)
        writer.resume(0)
        writer.merge(0, date, at_least=2)
    ticks, raw = shown(archive, log[in_files:])
    assert ticks == counted(log)
    assert raw == recorded(log)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@fewer_examples
@given(logs(), st.integers(1, 5), st.integers(-90_000, 90_000))
def test_the_columns_of_forward_flow_are_the_ticks_that_candles_count(
    tmp_path_factory: pytest.TempPathFactory, log: Log, cut: int, from_ms: int
) -> None:
    archive = Archive(tmp_path_factory.mktemp("archive"))
    archive.write(log, cut=cut)
    expected, reader = counted(log), ArchiveReader(archive.catalogue)
    for series in {(frame.source, frame.symbol) for _, frame in log}:
        ranges = normalized((0, offset, offset) for offset, frame in log if (frame.source, frame.symbol) == series)
        flow = reader.flow(series, ranges)
        of_series = [row for row in expected.elements() if row[:2] == series]
        if flow is None:
            continue
        for first in (0, MIDNIGHT + from_ms):
            table = flow.ticks(first, 1 << 50)
            assert table is not None
            found = rows_in(table)
            assert Counter((*series, *row) for row in found) == Counter(row for row in of_series if row[2] >= first)
            assert [row[0] for row in found] == sorted(row[0] for row in found)


@pytest.mark.parametrize(
    "symbol", ["[SP500]", "a+b", "100%", "a~b", "x" * 32 + "\U0001f4c8" * 40, "123", "it's", "null"]
)
def test_every_name_comes_out_as_it_went_in(tmp_path: Path, symbol: str) -> None:
    archive = Archive(tmp_path / "archive [1]")
    log = frames(4, symbol=symbol)
    archive.write([*log, (4, resent(log[0][1]))])
    ticks, _ = shown(archive, [])
    assert ticks == counted(log)


def test_a_day_that_a_killed_archiver_left_in_files_and_in_the_log_comes_once(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    log = frames(9)
    archive.write(log[:3])
    before = archive.catalogue.progress(0)
    archive.write(log[:6])
    archive.catalogue.save_progress(before)
    ticks, raw = shown(archive, log[3:])
    assert (ticks, raw) == (counted(log), recorded(log))


def test_without_an_archive_the_log_is_read(tmp_path: Path) -> None:
    log = frames(5)
    again = [*log, (5, resent(log[2][1]))]
    ticks, raw = shown(None, again)
    assert (ticks, raw) == (counted(log), recorded(again))
    assert shown(None, []) == (Counter(), Counter())


def test_a_bucket_is_read_by_arrow(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    log = frames(5)
    archive.write([*log, (5, resent(log[2][1]))])
    archive.catalogue = Catalogue(ObjectFiles(LocalFileSystem(), str(tmp_path)), LOG)
    assert shown(archive, [])[0] == counted(log)


def test_only_days_that_may_have_resends_are_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(tmp_path)
    log = frames(6)
    later = [(6 + offset, frame) for offset, frame in frames(3, time_msc=MIDNIGHT + 86_400_000)]
    archive.write([*log, *later, (9, resent(later[0][1]))])
    read: list[tuple[int, int]] = []
    flow = Ticks._flow
    monkeypatch.setattr(Ticks, "_flow", lambda *a: read.append((a[2][0].low, len(a[2]))) or flow(*a))  # type: ignore[func-returns-value]
    assert shown(archive, [])[0] == counted([*log, *later])
    assert [low for low, _ in read] == [MIDNIGHT + 86_400_000]


@pytest.fixture
def archived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """An archive in the data directory of a stack that does not run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TICKPIPE_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("TICKPIPE_ARCHIVE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    archive = Archive(tmp_path / "archive")
    archive.write(frames(60))
    return archive


def run(*words: str, stdin: str | None = None, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["sql", "--archived", *words], input=stdin)
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.mark.usefixtures("archived")
def test_the_formats_and_the_ways_to_hand_in_a_query(tmp_path: Path) -> None:
    query = "select symbol, date, count(*) as n, sum(flags) as s, min(time) as first from ticks group by all"
    row = '{"symbol": "EURUSD", "date": "2019-02-05", "n": 120, "s": 720, "first": "2019-02-05T00:00:00Z"}'
    assert run(query, "--format", "json").stdout == f"[\n{row}\n]\n"
    (tmp_path / "query.sql").write_text(query)
    csv = "symbol,date,n,s,first\nEURUSD,2019-02-05,120,720,2019-02-05T00:00:00Z\n"
    assert run("--file", "query.sql", "--format", "csv").stdout == csv
    assert run("-", "--format", "csv", "--output", "answer.csv", stdin=query).stdout == ""
    assert (tmp_path / "answer.csv").read_text() == csv
    run("select * from ticks_raw", "--format", "parquet", "--output", "answer.parquet")
    assert read_table(tmp_path / "answer.parquet").num_rows == 120
    table = run("select * from ticks")
    assert table.stdout.count("2019-02-05T") == 50
    assert "… and 70 more of 120" in table.stderr


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("select nothing from ticks", 'column "nothing" not found'),
        ("selec 1", "syntax error"),
        ("copy (select 1) to 'x.csv'", "only one SELECT"),
        ("create table x as select 1", "only one SELECT"),
        ("install httpfs", "only one SELECT"),
        ("select 1; select 2", "only one SELECT"),
        ("", "only one SELECT"),
    ],
)
@pytest.mark.usefixtures("archived")
def test_what_is_no_query_ends_with_a_sentence(query: str, said: str, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    result = run(query, code=2)
    assert re.search(said, result.stderr, re.IGNORECASE)
    assert "Traceback" not in result.output
    assert set(tmp_path.iterdir()) == before


def test_a_file_that_was_merged_meanwhile_is_looked_for_again(
    archived: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = Ticks.show
    merged: list[int] = []

    def merging(self: Ticks, connection: duckdb.DuckDBPyConnection, views: Collection[str]) -> None:
        show(self, connection, views)
        if not merged:
            writer = Writer(archived.catalogue)
            writer.resume(0)
            merged.append(writer.merge(0, "2019-02-05", at_least=2))

    monkeypatch.setattr(Ticks, "show", merging)
    assert run("select count(*) as n from ticks", "--format", "csv").stdout == "n\n120\n"
    assert merged == [19]


@pytest.mark.usefixtures("archived")
def test_values_that_a_form_has_not_are_written_all_the_same(tmp_path: Path) -> None:
    query = "select max(time) - min(time) as span, 'nan'::double as nothing, [1e999::double] as most from ticks"
    (row,) = json.loads(run(query, "--format", "json").stdout, parse_constant=lambda name: f"{name} is no JSON")
    assert row == {"span": "00:00:59.001", "nothing": None, "most": [None]}
    assert run(query, "--format", "csv").stdout == "span,nothing,most\n00:00:59.001,nan,[inf]\n"
    run(query, "--format", "parquet", "--output", "answer.parquet")
    assert read_table(tmp_path / "answer.parquet")["span"].to_pylist() == ["00:00:59.001"]
    query = "select timestamp_ns '2019-02-04 00:00:00.123456789' as t, 'infinity'::timestamptz as i, '\\xAA'::blob as b"
    assert run(query, "--format", "csv").stdout == "t,i,b\n2019-02-04T00:00:00.123456789Z,infinity,\\xAA\n"
    assert "null_value" in run("select null as null_value, time::varchar from ticks limit 1").stdout


@pytest.mark.parametrize("is_file", [True, False])
def test_a_file_that_goes_while_it_is_read_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_file: bool
) -> None:
    monkeypatch.setenv("TICKPIPE_DATA_DIR", str(tmp_path))
    archive = Archive(tmp_path / "archive")
    archive.write(frames(60, per_frame=1_000))
    connect = tickpipe.sql._connect

    def reading_nothing_ahead(text: str) -> duckdb.DuckDBPyConnection:
        connection = connect(text)
        connection.execute("SET threads = 1")
        connection.execute("SET streaming_buffer_size = '1KB'")
        return connection

    monkeypatch.setattr("tickpipe.sql._connect", reading_nothing_ahead)
    merged: list[int] = []
    read = Answer._read

    def merging(self: Answer, reader: Any) -> Iterator[pa.RecordBatch]:
        # It has looked for its files, and has not opened all of them.
        batches = read(self, reader)
        yield next(batches)
        writer = Writer(archive.catalogue)
        writer.resume(0)
        merged.append(writer.merge(0, "2019-02-05", at_least=2))
        yield from batches

    monkeypatch.setattr(Answer, "_read", merging)
    answer = tmp_path / "answer.csv"
    if is_file:
        run("select * from ticks_raw", "--format", "csv", "--output", str(answer))
        assert answer.read_text().count("\n") == 1 + 60 * 1_000
        assert merged == [19, 0]
    else:
        # What is on standard output cannot be taken back.
        cut = run("select * from ticks_raw", "--format", "csv", code=1)
        assert "ask again, or add --output FILE" in cut.stderr
        assert 1 < cut.stdout.count("\n") < 60 * 1_000
        assert merged == [19]


@pytest.mark.usefixtures("archived")
def test_a_missing_file_of_the_user_is_no_matter_of_the_archive() -> None:
    result = run("select * from 'mine.csv'", code=2)
    assert "mine.csv" in result.stderr
    assert "archive check" not in result.stderr
