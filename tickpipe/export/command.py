"""`tickpipe export`: candles as partitioned files for DuckDB, pandas, polars and whatever reads Parquet or CSV."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import time
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketdata.errors import TickpipeError
from tickpipe.connection import DataDir, connected_settings, open_database
from tickpipe.console import INTERRUPTED, FromTime, TimeframeOption, ToTime, err, out, run

if TYPE_CHECKING:
    from runtime.settings import Settings
    from sink.queries import Exporting, Series
    from tickpipe.console import Bar

#: Rows between two updates of the progress bar.
_UPDATE_ROWS = 20_000

#: Timeframes shorter than this have a file for each year, the others one for each symbol.
_BY_YEAR_BELOW_MS = 3_600_000


class FileFormat(StrEnum):
    """How the files are written."""

    PARQUET = "parquet"
    CSV = "csv"


class NothingToExport(TickpipeError):
    """No candle is stored for that; nothing was written."""


def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty directory.")],
    *,
    format_: Annotated[FileFormat, typer.Option("--format", "-f", help="Parquet needs pyarrow.")] = FileFormat.PARQUET,
    symbol: Annotated[
        list[str] | None, typer.Option("--symbol", "-s", help="Only this symbol; may be given again. Default: all.")
    ] = None,
    timeframe: TimeframeOption = "M1",
    from_: FromTime = None,
    to: ToTime = None,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of an earlier export.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Write candles into partitioned files that DuckDB, pandas and polars read.

    `DIR/symbol=EURUSD/year=2019/M1.parquet`: M1 to M30 by symbol and year (UTC), the longer timeframes by symbol. M1
    has every column of the table, the proof too: log and offsets. Nothing is in DIR before all of it is
    written. docs/storage.md has the columns.

    Examples:

    * `tickpipe export history`
    * `tickpipe export --format csv --symbol EURUSD --symbol USDJPY --from 2019-01-01 --to 2020-01-01 year2019`
    * `tickpipe export --timeframe D1 --replace days`
    * then: `duckdb -c "SELECT symbol, count(*) FROM 'history/**/*.parquet' GROUP BY ALL"`
    """
    if from_ is not None and to is not None and to <= from_:
        raise typer.BadParameter("it is not after --from", param_hint="--to")
    settings = connected_settings(data_dir)
    wanted = _Wanted(directory.expanduser().absolute(), format_, timeframe, symbol, from_, to)
    started = time.monotonic()
    try:
        rows, files = run(_export(settings, wanted, replace=replace))
    except KeyboardInterrupt as exc:
        err.print("Interrupted; nothing was written.")
        raise typer.Exit(INTERRUPTED) from exc
    seconds = time.monotonic() - started
    out.print(f"{rows:,} candles in {files:,} files in {directory}, {seconds:.1f} s", markup=False, soft_wrap=True)


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


async def _export(settings: "Settings", wanted: _Wanted, *, replace: bool) -> tuple[int, int]:
    # Returns the numbers of rows and of files.
    from sink.queries import Exporting

    # Rows and files that were written.
    from tickpipe.console import Bar
    from tickpipe.export.files import whole_directory

    with whole_directory(wanted.directory, replace=replace) as partial:
        async with (
            await open_database(settings) as connection,
            Exporting(connection, wanted.timeframe) as exporting,
        ):
            series = await exporting.series(wanted.symbols, wanted.from_, wanted.to)
            if missing := sorted(set(wanted.symbols or ()) - {each.symbol for each in series}):
                raise NothingToExport(f"no candle of {', '.join(missing)} is stored for that time; nothing was written")
            total = sum((each.end - each.first).total_seconds() for each in series)
            with Bar("exporting", total) as bar:
                writing = _Writing(exporting, wanted, partial, bar)
                for symbol in sorted({each.symbol for each in series}):
                    await writing.symbol(symbol, [each for each in series if each.symbol == symbol])
            if not writing.rows:
                raise NothingToExport("no candle is stored for that time; nothing was written")
            writing.manifest()
    return writing.rows, writing.files


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
        from importlib.metadata import version

        from tickpipe.export.files import write_manifest

        content = {
            "format": 1,
            "tickpipe": version("tickpipe"),
            "exported_at": datetime.now(UTC),
            "file_format": self._wanted.format.value,
            "timeframe": self._wanted.timeframe,
            "columns": ["symbol", *(["year"] if self._wanted.by_year else []), *self._exporting.columns],
            "symbols": self._symbols,
            "from": self._wanted.from_,
            "to": self._wanted.to,
            "candles": self.rows,
            "files": self.files,
        }
        write_manifest(self._root, content)
