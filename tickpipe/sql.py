"""`tickpipe sql`: SQL over ticks and candles, by DuckDB in this process."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketdata.errors import SettingsError, TickpipeError
from tickpipe.connection import DataDir, archive_of, connected_settings, data_directory, open_database
from tickpipe.console import AllRows, err, run
from tickpipe.sqlanswer import Answer, SqlFormat, WrongQuery, write

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from marketdata.runs import Chunk
    from runtime.archive.manifest import Catalogue
    from runtime.settings import Settings

#: Ticks that the archive may lack: they are held in memory, some 500 MB.
_MAX_TAIL_TICKS = 5_000_000

#: A day may be merged between reading its manifest and opening its files; not over and over.
_ATTEMPTS = 3


class ArchiveBehind(TickpipeError):
    """The archive lacks more ticks than fit into memory; let the archiver catch up, or read `--archived` ones alone."""


def sql(
    query: Annotated[
        str, typer.Argument(help="One SELECT; `-` reads it from standard input.", show_default=False)
    ] = "-",
    *,
    file: Annotated[Path | None, typer.Option("--file", metavar="FILE", help="Read the query from FILE.")] = None,
    archived: Annotated[
        bool, typer.Option("--archived", help="Ticks of the archive alone: no server is asked for ticks.")
    ] = False,
    all_rows: AllRows = False,
    format_: Annotated[
        SqlFormat, typer.Option("--format", "-f", help="Table for people; csv, json and parquet for programs.")
    ] = SqlFormat.TABLE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write into FILE instead of standard output.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Ask ticks and candles anything in SQL, as DuckDB speaks it. Nothing can be changed.

    * `ticks`: each tick once, exactly those that the candles count, of the archive and of what is not archived yet:
      source, symbol, date, time, bid, ask, last, volume, flags, partition, offset, index
    * `ticks_raw`: every record's ticks, resends too; besides received, request, mode, point, coarse
    * `candles`: the stored minutes: source, symbol, ts, open, high, low, close, volume, real_volume, spread, closed

    Times are UTC, a price of 0 is none, and ticks of one millisecond came in order of partition, offset and index: an
    order by time alone leaves open which of them is the last. Files are skipped by `source`, `symbol` and `date`, so
    name these where you can. Your own Parquet and CSV files can be joined: `FROM 'mine.parquet'`.

    Examples:

    * `tickpipe sql "select symbol, date, count(*) from ticks group by all order by all"`
    * `tickpipe sql "select time_bucket(interval 5 minute, time) as bar, first(bid order by time, partition,
      ticks.offset, index) as open, max(bid) as high, min(bid) as low, last(bid order by time, partition, ticks.offset,
      index) as close from ticks where symbol = 'EURUSD' and date = '2019-02-04' and bid <> 0 group by bar
      order by bar"`
    * `tickpipe sql --file spreads.sql --format parquet --output spreads.parquet`
    """
    if output is not None and format_ is SqlFormat.TABLE:
        raise typer.BadParameter("a table is for the terminal; add --format", param_hint="--output")
    if format_ is SqlFormat.PARQUET and output is None and sys.stdout.isatty():
        raise typer.BadParameter("Parquet is no text; name a file, or pipe it", param_hint="--output")
    text = _text(query, file)
    connection = _connect(text)
    if re.search(r"\bcandles\b", text, re.IGNORECASE):
        run(_load_candles(connected_settings(data_dir), connection))
    for attempt in range(_ATTEMPTS):
        if views := {name.lower() for name in re.findall(r"\bticks(?:_raw)?\b", text, re.IGNORECASE)}:
            _load_ticks(connection, data_dir, views, archived=archived)
        try:
            write(Answer(connection, text), format_, output, all_rows=all_rows)
        except FileNotFoundError as exc:
            if not views:
                raise WrongQuery(str(exc)) from exc
            if attempt == _ATTEMPTS - 1:
                raise TickpipeError(f"{exc}; `tickpipe archive check` names files that are missing") from exc
        else:
            return


def _text(query: str, file: Path | None) -> str:
    if file is not None:
        return file.read_text(encoding="utf-8")
    if query != "-":
        return query
    if sys.stdin.isatty():
        raise typer.BadParameter("name a query, a --file, or pipe one in", param_hint="QUERY")
    return sys.stdin.read()


def _connect(text: str) -> "DuckDBPyConnection":
    """A database in memory that runs this query and nothing else."""
    import duckdb

    connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "allow_unsigned_extensions": "false"})
    connection.execute("SET TimeZone = 'UTC'")
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as exc:
        raise WrongQuery(str(exc)) from exc
    readers = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
    if len(statements) != 1 or statements[0].type not in readers:
        raise WrongQuery("only one SELECT is run: ticks and candles are read, and nothing is written")
    return connection


def _load_ticks(
    connection: "DuckDBPyConnection", data_dir: Path | None, views: Collection[str], *, archived: bool
) -> None:
    from runtime.archive.files import open_files
    from runtime.archive.manifest import Catalogue, logs_in
    from tickpipe.tickviews import Ticks

    if not archived:
        settings = connected_settings(data_dir)
        files = open_files(settings.archive) if settings.has_archive else None
        Ticks(*run(_unarchived(settings, files))).show(connection, views)
        return
    location = archive_of(data_directory(data_dir))
    if location == "off":
        raise SettingsError("TICKPIPE_ARCHIVE=off: there is no archive")
    files = open_files(location)
    logs = logs_in(files)
    if len(logs) > 1:
        raise TickpipeError(
            f"the archive has {len(logs)} logs, {' and '.join(logs)}; without --archived Kafka names one"
        )
    Ticks(Catalogue(files, logs[0]) if logs else None, {}).show(connection, views)


async def _unarchived(settings: "Settings", files: Any) -> "tuple[Catalogue | None, dict[int, Chunk]]":
    """The archive's part of the log that Kafka has, and the records that it does not hold yet."""
    from marketdata.wire import numbered_frames
    from runtime.archive.manifest import Catalogue
    from runtime.logreader import LogReader, own_log

    catalogue = None if files is None else Catalogue(files, await own_log(settings))
    tail: dict[int, Chunk] = {}
    ticks = 0
    with err.status("reading what is not archived yet"):
        async with LogReader(settings) as reader:
            for partition in await reader.partitions(settings.ticks_topic):
                first, end = await reader.ends(settings.ticks_topic, partition)
                if catalogue is not None:
                    first = max(first, catalogue.progress(partition).next)
                found = []
                async for records in reader.read(settings.ticks_topic, partition, first, end - 1):
                    found += numbered_frames([(record.offset, record.value) for record in records])
                    ticks += sum(len(frame.ticks) for _, frame in found[-len(records) :])
                    if ticks > _MAX_TAIL_TICKS:
                        raise ArchiveBehind
                tail[partition] = found
    return catalogue, tail


async def _load_candles(settings: "Settings", connection: "DuckDBPyConnection") -> None:
    """Copy the minutes into a table; DuckDB has no client of PostgreSQL of its own, only one to download."""
    import tempfile

    from sink.db.session import SQL

    with tempfile.NamedTemporaryFile(suffix=".csv") as copied, err.status("reading candles"):
        async with (
            await open_database(settings) as database,
            database.cursor() as cursor,
            cursor.copy(SQL["copied_candles"]) as copy,
        ):
            async for data in copy:
                copied.write(data)
        copied.flush()
        connection.execute(
            # Said and not guessed: DuckDB guesses by the first rows, and names of instruments may hold anything.
            "CREATE TABLE candles AS SELECT * FROM read_csv(?, header = true, auto_detect = false, delim = ',', "
            "quote = '\"', escape = '\"', columns = {"
            "source: 'VARCHAR', symbol: 'VARCHAR', ts: 'TIMESTAMPTZ', open: 'DOUBLE', high: 'DOUBLE', low: 'DOUBLE', "
            "close: 'DOUBLE', volume: 'BIGINT', real_volume: 'DOUBLE', spread: 'BIGINT', closed: 'BOOLEAN'})",
            [copied.name],
        )
