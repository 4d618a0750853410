"""`tickpipe verify`: every stored candle is folded again from the log and compared."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tickpipe.connection import DataDir, connected_settings
from tickpipe.console import DONE, PROBLEM, FromTime, ToTime, err, out, print_json, print_table, run

if TYPE_CHECKING:
    from runtime.settings import Settings
    from sink.verify import VerifyReport

#: Differences that a table shows; --json has all of them.
_SHOWN = 50


def verify(
    *,
    symbol: Annotated[str | None, typer.Option("--symbol", "-s", help="Only this symbol.")] = None,
    source: Annotated[str | None, typer.Option(help="Only this source.")] = None,
    from_: FromTime = None,
    to: ToTime = None,
    json: Annotated[bool, typer.Option("--json", help="Write the report as JSON.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Store the fold where it differs, or is missing.")] = False,
    complete: Annotated[
        bool,
        typer.Option("--complete", help="Read the whole log: also find what it holds and the table does not."),
    ] = False,
    distrust: Annotated[
        bool,
        typer.Option(
            "--distrust",
            help="With --repair: also fold candles of other logs from what this log holds of their minutes.",
        ),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Prove the stored candles: fold each again from the log offsets it carries and compare every field.

    Exit code 1 when a candle differs or is missing (also when `--repair` mended it), or when none of the candles can be
    proven because the log no longer holds their offsets. Candles that wait for a refold are not checked, only counted.

    Examples:

    * `tickpipe verify`
    * `tickpipe verify --symbol EURUSD --from -1d`
    * `tickpipe verify --repair`
    * `tickpipe verify --complete --from -7d`
    """
    settings = connected_settings(data_dir)
    report = run(
        _verify(
            settings, symbol=symbol, source=source, from_=from_, to=to, repair=repair, complete=complete,
            distrust=distrust,
        )
    )  # fmt: skip
    if json:
        print_json(asdict(report))
    else:
        _show(report, repair)
    nothing_proven = bool(report.unprovable) and not report.checked
    raise typer.Exit(PROBLEM if report.differences or report.missing or nothing_proven else DONE)


async def _verify(
    settings: "Settings",
    *,
    symbol: str | None,
    source: str | None,
    from_: datetime | None,
    to: datetime | None,
    repair: bool,
    complete: bool,
    distrust: bool,
) -> "VerifyReport":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from sink import verify as sink_verify

    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=err, transient=True,
    )  # fmt: skip
    with progress:
        bar = progress.add_task("candles", total=None)
        return await sink_verify.verify(
            settings,
            symbol=symbol,
            source=source,
            from_=from_,
            to=to,
            on_total=lambda total: progress.update(bar, total=total),
            on_progress=lambda count: progress.advance(bar, count),
            repair=repair,
            complete=complete,
            distrust=distrust,
        )


def _show(report: "VerifyReport", repair: bool) -> None:
    if report.differences:
        columns = ("source", "symbol", "ts", "field", "stored", "folded")
        shown = report.differences[:_SHOWN]
        print_table(columns, [(d.source, d.symbol, d.ts, d.field, d.stored, d.folded) for d in shown])
        if (more := len(report.differences) - len(shown)) > 0:
            out.print(f"… and {more:,} more; --json lists all.")
    out.print(
        f"{report.checked:,} candles checked, {report.equal:,} equal, {report.checked - report.equal:,} different"
    )
    if report.missing:
        shown_keys = report.missing[:_SHOWN]
        print_table(("source", "symbol", "ts"), [(key.source, key.symbol, key.ts) for key in shown_keys])
        out.print(f"{len(report.missing):,} candles are missing, or lack records that the log holds.")
    if repair:
        out.print(f"{report.repaired:,} candles repaired")
    elif report.differences or report.missing:
        out.print("Store the folds with: tickpipe verify --repair")
    if report.pending:
        out.print(
            f"{len(report.pending):,} candles wait for a refold by the sink and were not checked; try again soon."
        )
    if report.unprovable:
        out.print(f"{len(report.unprovable):,} candles cannot be proven: the log no longer holds their offsets.")
