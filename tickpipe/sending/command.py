"""`tickpipe send`: posts a tick file to the producer, as if an EA had posted it."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from tickpipe.connection import DataDir, producer_address
from tickpipe.console import DONE, PROBLEM, TIME_HELP, time_option
from tickpipe.sending.options import (
    ColumnsOption,
    DateFormatOption,
    DecimalOption,
    DigitsOption,
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
        symbol_column=symbol_column, digits=digits, symbol=symbol,
    )  # fmt: skip
    address, api_key = producer_address(data_dir, url, key, source)
    target = Target(address, api_key, source, patience)
    outcome = send_ticks(file, target, SendOptions(said, speed, batch, skip, from_, point, strict))
    raise typer.Exit(PROBLEM if outcome.rejected or outcome.skipped else DONE)
