"""`tickpipe export`: candles and ticks as partitioned files for whatever reads Parquet or CSV."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketdata.errors import TickpipeError
from tickpipe.connection import DataDir, connected_settings, open_database
from tickpipe.console import INTERRUPTED, PROBLEM, FromTime, TimeframeOption, ToTime, epoch_ms, err, moment_of, out, run

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from runtime.settings import Settings
    from sink.queries import Exporting, Series
    from tickpipe.console import Bar
    from tickpipe.export.files import TickWriter

#: Rows between two updates of the progress bar.
_UPDATE_ROWS = 20_000

#: Timeframes shorter than this have a file for each year, the others one for each symbol.
_BY_YEAR_BELOW_MS = 3_600_000


class FileFormat(StrEnum):
    """How the files are written."""

    PARQUET = "parquet"
    CSV = "csv"
    MT5 = "mt5"


class NothingToExport(TickpipeError):
    """Nothing is stored for that; nothing was written."""


def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty directory.")],
    *,
    ticks: Annotated[bool, typer.Option("--ticks", help="Ticks instead of candles, each once.")] = False,
    format_: Annotated[
        FileFormat,
        typer.Option("--format", "-f", help="Parquet needs pyarrow; mt5 is MetaTrader 5's own CSV of ticks."),
    ] = FileFormat.PARQUET,
    symbol: Annotated[
        list[str] | None, typer.Option("--symbol", "-s", help="Only this symbol; may be given again. Default: all.")
    ] = None,
    timeframe: TimeframeOption = "M1",
    from_: FromTime = None,
    to: ToTime = None,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of an earlier export.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Write candles, or ticks, into partitioned files that DuckDB, pandas and polars read.

    `DIR/symbol=EURUSD/year=2019/M1.parquet`: M1 to M30 by symbol and year (UTC), the longer timeframes by symbol. M1
    has every column of the table, the proof too: log and offsets. Nothing is in DIR before all of it is
    written. docs/storage.md has the columns.

    With `--ticks`: `DIR/source=ICMarkets/symbol=EURUSD/date=2019-02-04/ticks.parquet`, the ticks that candles count, as
    `tickpipe ticks` gives them. In MetaTrader's CSV all days of a symbol are one file, for its custom symbols.
    Exit code 1 when the log no longer holds some of the minutes; they are named.

    Examples:

    * `tickpipe export history`
    * `tickpipe export --format csv --symbol EURUSD --symbol USDJPY --from 2019-01-01 --to 2020-01-01 year2019`
    * `tickpipe export --timeframe D1 --replace days`
    * `tickpipe export --ticks --symbol EURUSD --from 2019-02-01 --to 2019-03-01 february`
    * `tickpipe export --ticks --format mt5 --from -30d for-tester`
    * then: `duckdb -c "SELECT symbol, count(*) FROM 'history/**/*.parquet' GROUP BY ALL"`
    """
    if from_ is not None and to is not None and to <= from_:
        raise typer.BadParameter("it is not after --from", param_hint="--to")
    if ticks and timeframe != "M1":
        raise typer.BadParameter("ticks have none", param_hint="--timeframe")
    if format_ is FileFormat.MT5 and not ticks:
        raise typer.BadParameter("mt5 is a form of ticks; add --ticks", param_hint="--format")
    settings = connected_settings(data_dir)
    wanted = _Wanted(directory.expanduser().absolute(), format_, timeframe, symbol, from_, to)
    started = time.monotonic()
    try:
        rows, files, gone = run((_export_ticks if ticks else _export)(settings, wanted, replace=replace))
    except KeyboardInterrupt as exc:
        err.print("Interrupted; nothing was written.")
        raise typer.Exit(INTERRUPTED) from exc
    what, seconds = "ticks" if ticks else "candles", time.monotonic() - started
    out.print(f"{rows:,} {what} in {files:,} files in {directory}, {seconds:.1f} s", markup=False, soft_wrap=True)
    if gone:
        from tickpipe.export.ticks import say_gone

        say_gone(gone)
        raise typer.Exit(PROBLEM)


@dataclass(frozen=True)
class _Wanted:
    directory: Path
    format: FileFormat
    timeframe: str
    symbols: list[str] | None
    from_: datetime | None
    to: datetime | None

    @property
    def by_year(self) -> bool:
        """Whether each year has a file of its own."""
        from marketdata.timeframes import TIMEFRAMES

        width_ms = TIMEFRAMES[self.timeframe].width_ms
        return width_ms is not None and width_ms < _BY_YEAR_BELOW_MS


#: The numbers of rows and of files, and the minutes that the log lost.
_Written = tuple[int, int, list[int]]


async def _export(settings: "Settings", wanted: _Wanted, *, replace: bool) -> _Written:
    from sink.queries import Exporting
    from tickpipe.console import Bar
    from tickpipe.export.files import whole_directory

    with whole_directory(wanted.directory, replace=replace) as partial:
        async with (
            await open_database(settings) as connection,
            Exporting(connection, wanted.timeframe) as exporting,
        ):
            series = await _series(exporting, wanted)
            total = sum((each.end - each.first).total_seconds() for each in series)
            with Bar("exporting", total) as bar:
                writing = _Writing(exporting, wanted, partial, bar)
                for symbol in sorted({each.symbol for each in series}):
                    await writing.symbol(symbol, [each for each in series if each.symbol == symbol])
            if not writing.rows:
                raise NothingToExport("no candle is stored for that time; nothing was written")
            writing.manifest()
    return writing.rows, writing.files, []


async def _series(exporting: "Exporting", wanted: _Wanted) -> "list[Series]":
    series = await exporting.series(wanted.symbols, wanted.from_, wanted.to)
    if missing := sorted(set(wanted.symbols or ()) - {each.symbol for each in series}):
        raise NothingToExport(f"no candle of {', '.join(missing)} is stored for that time; nothing was written")
    return series


async def _export_ticks(settings: "Settings", wanted: _Wanted, *, replace: bool) -> _Written:
    from sink.queries import Exporting
    from tickpipe.console import Bar
    from tickpipe.export.files import whole_directory

    with whole_directory(wanted.directory, replace=replace) as partial:
        async with await open_database(settings) as connection:
            async with Exporting(connection, wanted.timeframe) as exporting:
                series = await _tick_series(exporting, wanted)
            total = sum((each.end - each.first).total_seconds() for each in series)
            with Bar("exporting", total) as bar:
                writing = _WritingTicks(settings, connection, wanted, partial, bar)
                for each in series:
                    await writing.series(each)
        if not writing.ticks:
            raise NothingToExport("no tick is in the log for that time; nothing was written")
        if missing := sorted(set(wanted.symbols or ()) - writing.symbols):
            raise NothingToExport(f"no tick of {', '.join(missing)} is in the log for that time; nothing was written")
        _write_manifest(
            partial, wanted, timeframe=None, columns=writing.columns, symbols=sorted(writing.symbols),
            ticks=writing.ticks, files=writing.files, gone=[moment_of(ts) for ts in writing.gone],
        )  # fmt: skip
    return writing.ticks, writing.files, writing.gone


async def _tick_series(exporting: "Exporting", wanted: _Wanted) -> "list[Series]":
    """What is to be read: up to now, for the newest ticks may be in no candle that is stored."""
    stored = await exporting.series(wanted.symbols, None, None)
    if missing := sorted(set(wanted.symbols or ()) - {each.symbol for each in stored}):
        raise NothingToExport(f"nothing of {', '.join(missing)} is stored; nothing was written")
    end = wanted.to or datetime.now(UTC)
    read = [replace(each, first=wanted.from_ or each.first, end=end) for each in stored]
    return [each for each in read if each.first < each.end]


class _WritingTicks:
    """Writes the ticks of one source and symbol after the other, a file a day, or one for MetaTrader."""

    def __init__(
        self, settings: "Settings", connection: "AsyncConnection[Any]", wanted: _Wanted, root: Path, bar: "Bar"
    ) -> None:
        self.ticks = self.files = 0
        self.gone: list[int] = []
        #: Those of which there are ticks, or were some.
        self.symbols: set[str] = set()
        self._settings, self._connection, self._wanted, self._root, self._bar = settings, connection, wanted, root, bar
        self._done_seconds = 0.0

    @property
    def columns(self) -> list[str]:
        """Those of the files, and before them those of their paths."""
        from marketdata.refold import columns_of

        is_mt5 = self._wanted.format is FileFormat.MT5
        return ["source", "symbol", *([] if is_mt5 else ["date", *columns_of(raw=False)])]

    async def series(self, series: "Series") -> None:
        """All files of one source and symbol."""
        from sink.queries import digits_of
        from sink.ticks import TickRange, TickReader

        wanted = self._wanted
        first, end = series.first, series.end
        range_ = TickRange(series.source, series.symbol, epoch_ms(first), epoch_ms(end))

        @asynccontextmanager
        async def reading() -> "AsyncIterator[AsyncConnection[Any]]":
            yield self._connection

        digits = await digits_of(self._connection, series.source, series.symbol)
        day, stack, writer = None, ExitStack(), None
        with stack:
            async with TickReader(self._settings, reading, range_) as reader, aclosing(reader.batches()) as batches:
                async for batch in batches:
                    if batch.is_gone or len(batch):
                        self.symbols.add(series.symbol)
                    if batch.is_gone:
                        self.gone.append(batch.ts)
                    if not len(batch):
                        continue
                    date = moment_of(batch.ts).date()
                    if writer is None or (day != date and wanted.format is not FileFormat.MT5):
                        stack.close()
                        day = date
                        writer = stack.enter_context(self._file(series, batch.ts, digits))
                    writer.write(batch)
                    self.ticks += len(batch)
                    seconds = (moment_of(batch.ts) - first).total_seconds()
                    self._bar.update(self._done_seconds + seconds, f"{series.symbol}  {self.ticks:,} ticks")
        self._done_seconds += (end - first).total_seconds()

    @contextmanager
    def _file(self, series: "Series", ts: int, digits: int | None) -> Iterator["TickWriter"]:
        from tickpipe.export.files import partition_folder, writer_for

        format_ = self._wanted.format
        date = {} if format_ is FileFormat.MT5 else {"date": moment_of(ts).date().isoformat()}
        folder = partition_folder(self._root, source=series.source, symbol=series.symbol, **date)
        suffix = "parquet" if format_ is FileFormat.PARQUET else "csv"
        with (folder / f"ticks.{suffix}").open("xb") as stream:
            writer = writer_for(format_.value, stream, raw=False, digits=digits)
            yield writer
            writer.finish()
        self.files += 1


class _Writing:
    """Writes one series after the other and shows on the bar how much of their time is done."""

    def __init__(self, exporting: "Exporting", wanted: _Wanted, root: Path, bar: "Bar") -> None:
        self.rows = self.files = 0
        self._exporting, self._wanted, self._root, self._bar = exporting, wanted, root, bar
        self._symbols: list[str] = []
        self._done_seconds = 0.0

    async def symbol(self, symbol: str, series: "list[Series]") -> None:
        """All files of one symbol."""
        from sink.queries import years

        first, end = min(each.first for each in series), max(each.end for each in series)
        if self._wanted.by_year:
            for year, begins, ends in years(first, end):
                await self._file(symbol, series, year, begins, ends)
        else:
            await self._file(symbol, series, None, first, end)

    async def _file(
        self, symbol: str, series: "list[Series]", year: int | None, begins: datetime, ends: datetime
    ) -> None:
        from tickpipe.export.files import CsvFile, ParquetFile, partition_path

        kind = ParquetFile if self._wanted.format is FileFormat.PARQUET else CsvFile
        path = partition_path(self._root, symbol, year, f"{self._wanted.timeframe}.{kind.suffix}")
        before = self.rows
        with kind(path, self._exporting.columns) as file:
            for each in series:
                first, end = max(each.first, begins), min(each.end, ends)
                if first < end:
                    await self._rows(file, each, first, end)
        if self.rows == before:
            # A year without a candle within the history.
            path.unlink()
            path.parent.rmdir()
        else:
            self.files += 1
            if symbol not in self._symbols:
                self._symbols.append(symbol)

    async def _rows(self, file: Any, series: "Series", first: datetime, end: datetime) -> None:
        ts_at = self._exporting.columns.index("ts")
        async with aclosing(self._exporting.rows(series, first, end)) as rows:
            async for row in rows:
                file.write(row)
                self.rows += 1
                if self.rows % _UPDATE_ROWS == 0:
                    self._show(series.symbol, (row[ts_at] - first).total_seconds())
        self._done_seconds += (end - first).total_seconds()
        self._show(series.symbol, 0.0)

    def _show(self, symbol: str, seconds: float) -> None:
        self._bar.update(self._done_seconds + seconds, f"{symbol}  {self.rows:,} candles")

    def manifest(self) -> None:
        """Write the manifest, which describes the files."""
        wanted = self._wanted
        columns = ["symbol", *(["year"] if wanted.by_year else []), *self._exporting.columns]
        _write_manifest(
            self._root, wanted, timeframe=wanted.timeframe, columns=columns, symbols=self._symbols, candles=self.rows,
            files=self.files,
        )  # fmt: skip


def _write_manifest(root: Path, wanted: _Wanted, **content: Any) -> None:
    from importlib.metadata import version

    from tickpipe.export.files import write_manifest

    about = {
        "format": 1,
        "tickpipe": version("tickpipe"),
        "exported_at": datetime.now(UTC),
        "file_format": wanted.format.value,
        "from": wanted.from_,
        "to": wanted.to,
    }
    write_manifest(root, about | content)
