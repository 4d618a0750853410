"""`tickpipe import`: posts files of ticks and bars that MetaTrader exported, as if an EA had posted them."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import time
from dataclasses import dataclass
from datetime import tzinfo
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tickpipe.connection import DataDir, producer_address
from tickpipe.console import DONE, INTERRUPTED, PROBLEM, err, iso_utc, moment_of, out, print_table
from tickpipe.sending.command import (
    FileBar,
    KeyOption,
    PatienceOption,
    SendOptions,
    SourceOption,
    Target,
    UrlOption,
    ZoneOption,
    add_skipped,
    report,
    send_ticks,
    zone_named,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickpipe.sending.history import Bar
    from tickpipe.sending.sender import Outcome

#: Bars of one request: far below the producer's limit of 10 MB.
_BATCH_BARS = 1_000


@dataclass(frozen=True)
class _Import:
    """A file and its contents: bars of a timeframe, or ticks when there is none."""

    path: Path
    symbol: str
    timeframe: str | None
    #: Of the clock of the file; None when the producer knows it.
    zone: tzinfo | None


def import_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of ticks or bars.")],
    *,
    symbol: Annotated[
        str | None, typer.Option("--symbol", "-s", help="Symbol of all files. Default: from MetaTrader's file names.")
    ] = None,
    timeframe: Annotated[
        str | None, typer.Option(help="Timeframe of the bars. Default: from MetaTrader's file names.")
    ] = None,
    source: SourceOption = None,
    zone: ZoneOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read every file and say what would be sent.")] = False,
    url: UrlOption = None,
    key: KeyOption = None,
    patience: PatienceOption = 300.0,
    data_dir: DataDir = None,
) -> None:
    """Import what MetaTrader 5 exported: bars and ticks (Symbols, Bars or Ticks, Export), or a file `send` reads.

    Ticks become candles. Bars are the broker's own: they are stored in `broker_bars`, compared with our candles
    (`tickpipe fidelity`), and fill `market_data` where no ticks are known. Which of both a file holds is told by its
    first line; symbol and timeframe by names such as `EURUSD_M1_201902040000_201902042359.csv`.

    Times are the broker's: --zone, or the zone of the source (TICKPIPE_SOURCE_ZONES), makes them UTC. Importing a file
    twice changes nothing. A line that cannot be used is skipped and listed. Exit code 1 when there was one,
    or when an item was rejected.

    Examples:

    * `tickpipe import --dry-run EURUSD_*.csv`
    * `tickpipe import EURUSD_M1_201902040000_201902042359.csv --source ICMarkets-Demo`
    * `tickpipe import bars.csv --symbol EURUSD --timeframe H1`
    """
    clock = zone_named(zone)
    imports = [_recognised(path, symbol, timeframe, clock) for path in files]
    if dry_run:
        columns = ("file", "holds", "symbol", "items", "first", "last", "bad lines")
        scanned = [_scanned(each) for each in imports]
        print_table(columns, scanned)
        out.print("Nothing was sent. Without --zone, times are as they are written.")
        raise typer.Exit(PROBLEM if any(row[-1] for row in scanned) else DONE)
    address, api_key = producer_address(data_dir, url, key, source)
    target = Target(address, api_key, source, patience)
    rejected = 0
    for each in imports:
        out.print(f"{each.path}: {_kind(each)} of {each.symbol}", markup=False, soft_wrap=True)
        if each.timeframe is None:
            outcome = send_ticks(each.path, target, SendOptions(each.symbol, zone=each.zone))
        else:
            outcome = _send_bars(each, each.timeframe, target)
        rejected += outcome.rejected + outcome.skipped
    raise typer.Exit(PROBLEM if rejected else DONE)


def _recognised(path: Path, symbol: str | None, timeframe: str | None, zone: tzinfo | None) -> _Import:
    from marketdata.contract.names import timeframe_of
    from marketdata.errors import InvalidItem
    from tickpipe.sending.columnfile import UnknownForm
    from tickpipe.sending.history import BarFile, TickFile, parse_file_name

    if not path.is_file():
        raise typer.BadParameter(f"there is no file {path}", param_hint="FILE")
    named = parse_file_name(path)
    symbol = symbol or named.symbol
    if symbol is None:
        raise typer.BadParameter(f"the name of {path} does not tell the symbol; pass --symbol", param_hint="--symbol")
    try:
        with TickFile(path):
            return _Import(path, symbol, None, zone)
    except UnknownForm as not_ticks:
        try:
            with BarFile(path):
                pass
        except UnknownForm as not_bars:
            raise UnknownForm(f"{not_ticks}; {BarFile.forms}") from not_bars
    named_timeframe = timeframe or named.timeframe
    if named_timeframe is None:
        raise typer.BadParameter(f"the name of {path} does not tell the timeframe", param_hint="--timeframe")
    try:
        return _Import(path, symbol, timeframe_of(named_timeframe), zone)
    except InvalidItem as exc:
        raise typer.BadParameter(f"{path}: {exc.message}", param_hint="--timeframe") from exc


def _kind(each: _Import) -> str:
    return "ticks" if each.timeframe is None else f"{each.timeframe} bars"


def _scanned(each: _Import) -> tuple[object, ...]:
    # The whole file is read, so that what is wrong with it is reported before anything is sent.
    from tickpipe.sending.history import BarFile, TickFile

    count, first, last = 0, None, None
    form = TickFile if each.timeframe is None else BarFile
    with form(each.path, symbol=each.symbol, zone=each.zone) as items:
        for item in items:
            count += 1
            last = item.time_msc
            first = last if first is None else first
    shown = (None if time_ms is None else iso_utc(moment_of(time_ms)).removesuffix("Z") for time_ms in (first, last))
    for reason in items.reasons:
        err.print(f"  {reason}", markup=False, soft_wrap=True)
    return (each.path, _kind(each), each.symbol, count, *shown, items.skipped)


def _send_bars(each: _Import, timeframe: str, target: Target) -> "Outcome":
    from tickpipe.sending.history import BarFile
    from tickpipe.sending.sender import BarSender

    started = time.monotonic()
    with BarFile(each.path, symbol=each.symbol, zone=each.zone) as bars:
        first = list(islice(bars, _BATCH_BARS))
        _check_timeframe(each, timeframe, first)
        shown = FileBar(each.symbol, bars, started, "bars")
        sender = BarSender(
            target.address, target.api_key, each.symbol, timeframe, are_instants=bars.are_instants,
            source=target.source,
            patience_seconds=target.patience_seconds, on_wait=shown.wait, user_agent="tickpipe-import",
        )  # fmt: skip
        try:
            with shown, sender:
                group = first
                while group:
                    sender.send(group)
                    shown.update(sender.outcome, group[-1].time_msc)
                    group = list(islice(bars, _BATCH_BARS))
        except (Exception, KeyboardInterrupt) as exc:
            if sender.outcome.sent:
                report(sender.outcome, "bars", time.monotonic() - started)
            if isinstance(exc, KeyboardInterrupt):
                err.print("Interrupted; run the same command again, bars that are there already change nothing.")
                raise typer.Exit(INTERRUPTED) from exc
            raise
        add_skipped(sender.outcome, bars)
    report(sender.outcome, "bars", time.monotonic() - started)
    return sender.outcome


def _check_timeframe(each: _Import, timeframe: str, first: "Sequence[Bar]") -> None:
    from marketdata.timeframes import TIMEFRAMES
    from tickpipe.sending.history import inferred_timeframe

    inferred = inferred_timeframe(first)
    names = list(TIMEFRAMES)
    if inferred is not None and names.index(inferred) > names.index(timeframe):
        raise typer.BadParameter(
            f"the opening times in {each.path} are those of {inferred}, not of {timeframe}", param_hint="--timeframe"
        )
