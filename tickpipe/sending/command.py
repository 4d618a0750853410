"""`tickpipe send` and `tickpipe import`: post files of ticks and bars, and archives of requests, as an EA would."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tickpipe.connection import DataDir, data_directory, producer_address
from tickpipe.console import DONE, PROBLEM, TIME_HELP, err, out, print_table, time_option
from tickpipe.sending.options import (
    BarsTimeframeOption,
    BarTimesOption,
    ColumnsOption,
    DateFormatOption,
    DecimalOption,
    DigitsOption,
    DryRunOption,
    EncodingOption,
    FilesArgument,
    FilesSymbolOption,
    FromStartOption,
    KeyOption,
    PatienceOption,
    SkipRowsOption,
    SourceOption,
    StrictOption,
    SymbolColumnOption,
    Target,
    UrlOption,
    ZoneOption,
    said_of,
)

if TYPE_CHECKING:
    from tickpipe.sending.dialects import Said
    from tickpipe.sending.imports import Import


def send(
    file: Annotated[
        Path,
        typer.Argument(help="The tick file; - reads standard input, and posts what comes through a pipe as it comes."),
    ],
    *,
    symbol: Annotated[
        str | None,
        typer.Option("--symbol", "-s", help="Symbol of the ticks. Default: from the file's column or name."),
    ] = None,
    source: SourceOption = None,
    speed: Annotated[float, typer.Option(min=0, help="0 as fast as it goes, 1 real time, 60 a minute a second.")] = 0.0,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Most ticks of one request.")] = 200,
    skip: Annotated[int, typer.Option(min=0, help="Skip the first ticks: continue where a run stopped.")] = 0,
    from_: Annotated[
        datetime | None,
        typer.Option("--from", parser=time_option, metavar="T", help=f"Skip ticks before T: {TIME_HELP}."),
    ] = None,
    digits: DigitsOption = None,
    point: Annotated[float | None, typer.Option(help="Size of a point. Default: 10^-digits.")] = None,
    columns: ColumnsOption = None,
    skip_rows: SkipRowsOption = 0,
    date_format: DateFormatOption = None,
    decimal: DecimalOption = None,
    symbol_column: SymbolColumnOption = None,
    encoding: EncodingOption = None,
    zone: ZoneOption = None,
    strict: StrictOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    patience: PatienceOption = 300.0,
    data_dir: DataDir = None,
) -> None:
    """Post a tick file through the producer, in order, until every tick is confirmed.

    Read are CSV with `time_msc,bid,ask` or `timestamp,bid,ask`, MetaTrader's own tick export, and the files of many
    data sites, also compressed. MetaTrader's export is in the broker's time: --zone, or the zone of the source
    (TICKPIPE_SOURCE_ZONES), makes it UTC; a time with an offset is never shifted. Sending a file twice changes no
    candle. A line that cannot be used is skipped, listed, and stored with the rejected records. Exit code 1 when there
    was one, or when a tick was rejected.

    Examples:

    * `tickpipe send eurusd-ticks.csv.gz --symbol EURUSD`
    * `tickpipe send EURUSD_201902040000.csv --symbol EURUSD --source ICMarkets-Demo`
    * `tickpipe send eurusd-ticks.csv.gz --symbol EURUSD --speed 60 --from 2019-02-04T08:00`
    * `my-feed | tickpipe send - --symbol EURUSD --digits 5`
    """
    from tickpipe.sending.ticks import SendOptions, send_ticks

    if str(file) != "-" and not file.is_file():
        raise typer.BadParameter(f"there is no file {file}", param_hint="FILE")
    said = said_of(
        columns=columns, skip_rows=skip_rows, date_format=date_format, decimal=decimal, zone=zone,
        symbol_column=symbol_column, digits=digits, symbol=symbol, encoding=encoding,
    )  # fmt: skip
    address, api_key = producer_address(data_dir, url, key, source)
    target = Target(address, api_key, source, patience)
    outcome = send_ticks(file, target, SendOptions(said, speed, batch, skip, from_, point, strict))
    raise typer.Exit(PROBLEM if outcome.rejected or outcome.skipped else DONE)


#: Endings of names that are read where a folder is named; others in it are not looked at.
_READ = (".csv", ".txt", ".gz", ".zip", ".zst", ".parquet", ".feather", ".arrow", ".json", ".jsonl", ".ndjson")

#: How an argument begins that names a database, and the word that may stand before it.
_DATABASE = ("postgresql://", "postgres://")
_MARKET_DATA = "market-data"

#: Ticks of one request, of 150 bytes each: what a request costs besides hardly counts, and the threads that read and
#: post take turns seldom.
_BATCH_TICKS = 5_000


def import_files(
    files: FilesArgument,
    *,
    table: Annotated[str, typer.Option(help="Table of bars in a database.")] = "market_data",
    symbol: FilesSymbolOption = None,
    timeframe: BarsTimeframeOption = None,
    source: SourceOption = None,
    zone: ZoneOption = None,
    columns: ColumnsOption = None,
    skip_rows: SkipRowsOption = 0,
    date_format: DateFormatOption = None,
    decimal: DecimalOption = None,
    symbol_column: SymbolColumnOption = None,
    encoding: EncodingOption = None,
    digits: DigitsOption = None,
    bar_times: BarTimesOption = None,
    strict: StrictOption = False,
    from_start: FromStartOption = False,
    dry_run: DryRunOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    patience: PatienceOption = 300.0,
    data_dir: DataDir = None,
) -> None:
    """Import files of ticks and bars: of MetaTrader 4 and 5, of data sites, of scripts, and archives of EAs and relays.

    Ticks become candles. Bars are the broker's own: they are stored in `broker_bars` and fill `market_data` where no
    ticks are known. The first lines tell how a file is written: --dry-run shows it, and options say what they do not.

    Times are the broker's: --zone, or the zone of the source, makes them UTC. Importing a file twice changes nothing,
    and an interrupted import goes on where it ended. A line that cannot be used is skipped, listed, and stored with the
    rejected records. Exit code 1 when there was one, or when an item was rejected.

    Examples:

    * `tickpipe import --dry-run EURUSD_*.csv`
    * `tickpipe import ticks.txt --symbol EURUSD --columns time,ask,bid --date-format "%d/%m/%Y %H:%M:%S"`
    * `tickpipe import PDC_outbound_20251020.jsonl`
    * `tickpipe import market-data postgresql://trader@127.0.0.1/mt5_trading --source Broker`
    """
    said = said_of(
        columns=columns, skip_rows=skip_rows, date_format=date_format, decimal=decimal, zone=zone,
        symbol_column=symbol_column, digits=digits, symbol=symbol, timeframe=timeframe, encoding=encoding,
        bar_times=bar_times,
    )  # fmt: skip
    paths, copies = _paths(files, table, data_directory(data_dir), from_start)
    imports, unread = _recognised(paths, said, dry_run)
    if dry_run:
        wrong = _previewed(imports)
    else:
        address, api_key = producer_address(data_dir, url, key, source)
        target = Target(address, api_key, source, patience)
        wrong = sum(_post(each, target, data_directory(data_dir), from_start, strict) for each in imports) > 0
    if copies:
        from tickpipe.sending.table import discard

        discard(copies)
    raise typer.Exit(PROBLEM if unread or wrong else DONE)


def _paths(arguments: list[str], table: str, directory: Path, from_start: bool) -> tuple[list[Path], list[Path]]:
    """The files that are named, tables of databases among them as copies, and these copies alone.

    Raises:
        TableUnusable: see `copied`.
    """
    if not any(argument.startswith(_DATABASE) for argument in arguments):
        return [Path(argument) for argument in arguments], []
    from tickpipe.sending.table import copied, discard

    paths: list[Path] = []
    copies: list[Path] = []
    for number, argument in enumerate(arguments):
        if argument.startswith(_DATABASE):
            made = copied(argument, table, directory / "imports")
            if from_start:
                discard(made)
                made = copied(argument, table, directory / "imports")
            copies += made
            paths += made
        elif argument != _MARKET_DATA or not "".join(arguments[number + 1 : number + 2]).startswith(_DATABASE):
            paths.append(Path(argument))
    return paths, copies


def _recognised(files: list[Path], said: "Said", dry_run: bool) -> "tuple[list[Import], int]":
    """The files, those of folders and zips in the order of their names, and how many of those cannot be read.

    A dry run shows what is missing beside what was recognised.

    Raises:
        UnknownForm: when a file that was named itself is in no form that is read.
        typer.BadParameter: when something has to be said before it can be sent.
    """
    from tickpipe.sending.dialects import UnknownForm
    from tickpipe.sending.imports import recognised
    from tickpipe.sending.textfile import on_disk

    imports, unread = [], 0
    for path in files:
        if str(path) == "-" or (path.exists() and not path.is_file() and not path.is_dir()):
            why = f"{path} can be read only once; `tickpipe send -` reads what comes through a pipe"
            raise typer.BadParameter(why, param_hint="FILE")
        if not path.exists() and not on_disk(path).is_file():
            raise typer.BadParameter(f"there is no file {path}", param_hint="FILE")
        parts, damaged = _parts(path)
        unread += damaged
        for part in parts:
            try:
                found = recognised(part, said)
                if found.missing and not dry_run:
                    raise UnknownForm(found.missing)
                imports.append(found)
            except UnknownForm as exc:
                if len(parts) == 1 and not path.is_dir():
                    raise
                unread += 1
                err.print(f"not read: {exc}", markup=False, soft_wrap=True)
    if not imports:
        raise typer.BadParameter("there is no file to read", param_hint="FILE")
    return imports, unread


def _parts(path: Path) -> tuple[list[Path], int]:
    """The files that a folder or a zip holds, zips in the folder included, and how many of these are damaged.

    Raises:
        UnknownForm: when the zip that was named is.
    """
    from tickpipe.sending.dialects import UnknownForm
    from tickpipe.sending.textfile import unpacked

    if not path.is_dir():
        return (unpacked(path) if path.is_file() else [path]), 0
    parts, damaged = [], 0
    for file in _within(path):
        try:
            parts += unpacked(file)
        except UnknownForm as exc:
            damaged += 1
            err.print(f"not read: {exc}", markup=False, soft_wrap=True)
    return parts, damaged


def _within(folder: Path) -> list[Path]:
    """The files in a folder that have one of the endings that are read; the others are named.

    One that begins with an underscore describes the others, as in the folders of `tickpipe export`.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("_"))
    others = [path.name for path in files if path.suffix.lower() not in _READ]
    if others:
        err.print(f"{folder}: not read: {', '.join(others)}", markup=False, soft_wrap=True)
    return [path for path in files if path.suffix.lower() in _READ]


def _previewed(imports: "list[Import]") -> bool:
    """Show what would be sent; whether a line would be skipped."""
    from tickpipe.sending.imports import preview

    summaries = [preview(each) for each in imports]
    lacking = any(each.missing for each in imports)
    print_table(("file", "holds", "symbol", "items", "first", "last", "bad lines"), summaries)
    out.print("Nothing was sent. Without a zone, times are as they are written.")
    return lacking or any(summary[-1] for summary in summaries)


def _post(each: "Import", target: Target, directory: Path, from_start: bool, strict: bool) -> int:
    """Post one file; how many items and lines were rejected or skipped."""
    from tickpipe.sending.imports import ARCHIVE, send_archive, send_bars
    from tickpipe.sending.progress import SavedPlace
    from tickpipe.sending.ticks import SendOptions, send_ticks

    place = SavedPlace(directory, each.path, target, each.said)
    if from_start:
        place.forget()
    out.print(
        f"{each.path}: {each.holds}" + (f" of {each.symbol}" if each.symbol else ""), markup=False, soft_wrap=True
    )
    if place.items:
        out.print(f"  continues after {place.items:,} items that are on the server", markup=False)
    if each.kind == ARCHIVE:
        outcome = send_archive(each, target, place, strict)
    elif each.timeframe is not None:
        outcome = send_bars(each, target, place, strict)
    else:
        how = SendOptions(each.said, batch=_BATCH_TICKS, is_strict=strict)
        outcome = send_ticks(each.path, target, how, place)
    place.forget()
    return outcome.rejected + outcome.skipped
