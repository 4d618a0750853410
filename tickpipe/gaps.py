"""`tickpipe gaps`: where ticks are missing, by the broker's bars and by the hours in which the symbol trades."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from tickpipe.connection import DataDir, connected_settings, open_database
from tickpipe.console import (
    DONE,
    PROBLEM,
    TIME_HELP,
    AllRows,
    Format,
    FormatOption,
    FromTime,
    ToTime,
    err,
    out,
    print_head,
    run,
    time_option,
    write_rows,
)  # fmt: skip

if TYPE_CHECKING:
    from runtime.settings import Settings
    from sink.gaps import Gap

#: Looked at without --from.
_DEFAULT_SPAN = timedelta(days=7)

#: The newest minute may still come: its candle waits for late ticks, then for the sink.
_NEWEST = timedelta(minutes=2)

_COLUMNS = ("symbol", "source", "from", "to", "state", "minutes", "broker_ticks", "error")

app = typer.Typer()


@app.callback(invoke_without_command=True)
def gaps(
    context: typer.Context,
    *,
    symbol: Annotated[str | None, typer.Option("--symbol", "-s", help="Only this one, for example EURUSD.")] = None,
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    from_: FromTime = None,
    to: ToTime = None,
    least: Annotated[
        int, typer.Option(min=1, help="Leave out silences in which fewer minutes than this would usually have ticks.")
    ] = 10,
    closed: Annotated[
        bool,
        typer.Option("--closed", help="Closed markets, and where the broker had none, as well."),
    ] = False,
    suggest: Annotated[bool, typer.Option("--suggest", help="Say for each gap how its ticks are brought in.")] = False,
    all_rows: AllRows = False,
    format_: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Find the times of which ticks are missing: of the last seven days, or from `--from` on.

    * `missing`: the broker has bars of it (the EA sends them), and we have no tick; `minutes` are those of its bars
    * `unknown`: neither ticks nor bars, though the symbol usually has some at these hours of the week (learned from the
      four weeks before the end); a holiday looks like this
    * `failed`: a sender was asked for it and could not fill it; `error` says why
    * `none`, with `--closed`: a sender has sent all that its terminal has, so the broker had no tick
    * `closed`, with `--closed`: the broker does not quote the symbol then, `tickpipe gaps close` says so, or it usually
      has none

    Senders that can are asked for what is missing by themselves (docs/ticks.md). Nothing is missing before a symbol's
    first tick. Minutes with too few ticks are found by `tickpipe fidelity`.
    Exit code 1 when something is missing, unknown or failed.

    Examples:

    * `tickpipe gaps`
    * `tickpipe gaps --symbol EURUSD --from 2024-01-01 --suggest`
    * `tickpipe gaps --format json`
    * `tickpipe gaps close --symbol EURUSD --from 2025-12-25 --to 2025-12-26`
    """
    if context.invoked_subcommand is not None:
        return
    settings = connected_settings(data_dir)
    end = min(to or datetime.max.replace(tzinfo=UTC), datetime.now(UTC).replace(second=0, microsecond=0) - _NEWEST)
    begin = from_ or end - _DEFAULT_SPAN
    found = run(_find(settings, (begin, end), symbol, source, least))
    lacking = [gap for gap in found if gap.state not in ("closed", "none")]
    _write(found if closed else lacking, format_, all_rows=all_rows)
    if suggest:
        for line in _suggestions(settings, lacking):
            (out if format_ is Format.TABLE else err).print(line, markup=False, soft_wrap=True)
    raise typer.Exit(PROBLEM if lacking else DONE)


_Symbol = Annotated[str, typer.Option("--symbol", "-s", help="For example EURUSD.")]
_Source = Annotated[str | None, typer.Option(help="Only of this source; otherwise of all that send the symbol.")]
_From = Annotated[datetime, typer.Option("--from", parser=time_option, metavar="T", help=f"From T: {TIME_HELP}.")]
_To = Annotated[datetime, typer.Option("--to", parser=time_option, metavar="T", help="Up to T, not included.")]


@app.command()
def close(*, symbol: _Symbol, from_: _From, to: _To, source: _Source = None, data_dir: DataDir = None) -> None:
    """Enter that the market is closed, now or in the future: a holiday. Nothing of it is missing, or asked for.

    Example: `tickpipe gaps close --symbol EURUSD --from 2025-12-25 --to 2025-12-26`
    """
    sources = run(_enter("close", connected_settings(data_dir), symbol, source, (from_, to)))
    out.print(f"{symbol} of {', '.join(sources)} is closed from {from_:%Y-%m-%d %H:%M} to {to:%Y-%m-%d %H:%M} UTC.")


@app.command()
def reopen(*, symbol: _Symbol, from_: _From, to: _To, source: _Source = None, data_dir: DataDir = None) -> None:
    """Take back `tickpipe gaps close`, and what senders said of the time: it is looked at, and asked for, again.

    Example: `tickpipe gaps reopen --symbol EURUSD --from 2025-12-25T13:00 --to 2025-12-25T18:00`
    """
    sources = run(_enter("reopen", connected_settings(data_dir), symbol, source, (from_, to)))
    out.print(f"{symbol} of {', '.join(sources)} is open from {from_:%Y-%m-%d %H:%M} to {to:%Y-%m-%d %H:%M} UTC.")


async def _enter(
    what: str, settings: "Settings", symbol: str, source: str | None, span: tuple[datetime, datetime]
) -> "list[str]":
    from sink import ledger
    from sink.gaps import sources_of
    from tickpipe.candles import require_symbol

    from_, to = (moment.replace(second=0, microsecond=0) for moment in span)
    if from_ >= to:
        raise typer.BadParameter("it must be at least a minute after --from", param_hint="--to")
    async with await open_database(settings) as connection, connection.transaction():
        await require_symbol(connection, symbol)
        sources = [source] if source is not None else await sources_of(connection, symbol)
        for name in sources:
            await getattr(ledger, what)(connection, (symbol, name), from_, to)
    return sources


async def _find(
    settings: "Settings", span: tuple[datetime, datetime], symbol: str | None, source: str | None, least: int
) -> "list[Gap]":
    from sink.gaps import find_gaps
    from tickpipe.candles import require_symbol

    async with await open_database(settings) as connection:
        if symbol is not None:
            await require_symbol(connection, symbol)
        return await find_gaps(
            connection, *span, symbol=symbol, source=source, least=least, zones=settings.zones
        )  # fmt: skip


def _write(found: "Sequence[Gap]", format_: Format, *, all_rows: bool) -> None:
    rows = [
        (gap.symbol, gap.source, gap.begins, gap.ends, gap.state.value, gap.minutes, gap.ticks, gap.error)
        for gap in found
    ]  # fmt: skip
    if format_ is not Format.TABLE:
        run(write_rows(_COLUMNS, rows, format_))
    elif rows:
        print_head(_COLUMNS, rows, all_rows=all_rows)
    else:
        err.print("No gap was found.")


def _suggestions(settings: "Settings", found: "Sequence[Gap]") -> Iterator[str]:
    """For each gap what to export from MetaTrader, by the broker's clock, and the command that brings it in."""
    for gap in found:
        # The producer knows the clock of the source, so the command need not say it again.
        zone = settings.zones.get(gap.source, UTC)
        begins, ends = (moment.astimezone(zone).replace(tzinfo=None) for moment in (gap.begins, gap.ends))
        yield (
            f"{gap.symbol} of {gap.source}: in MetaTrader, View > Symbols > {gap.symbol} > Ticks, {begins} to {ends} "
            "by the broker's clock, Export Ticks; then"
        )
        yield f"  tickpipe import TICKS.csv --symbol {quote(gap.symbol)} --source {quote(gap.source)}"
