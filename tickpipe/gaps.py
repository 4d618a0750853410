"""`tickpipe gaps`: where ticks are missing, and how they are brought in afterwards."""
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
    AllRows,
    Format,
    FormatOption,
    FromTime,
    ToTime,
    err,
    out,
    print_head,
    run,
    write_rows,
)  # fmt: skip

if TYPE_CHECKING:
    from runtime.settings import Settings
    from sink.gaps import Gap

#: Looked at without --from.
_DEFAULT_SPAN = timedelta(days=7)

#: The newest minute may still come: its candle waits for late ticks, then for the sink.
_NEWEST = timedelta(minutes=2)

_COLUMNS = ("symbol", "source", "from", "to", "state", "minutes", "broker_ticks")


def gaps(
    *,
    symbol: Annotated[str | None, typer.Option("--symbol", "-s", help="Only this one, for example EURUSD.")] = None,
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    from_: FromTime = None,
    to: ToTime = None,
    least: Annotated[
        int, typer.Option(min=1, help="Leave out silences in which fewer minutes than this would usually have ticks.")
    ] = 10,
    closed: Annotated[bool, typer.Option("--closed", help="Closed markets as well: nights, weekends, pauses.")] = False,
    suggest: Annotated[bool, typer.Option("--suggest", help="Say for each gap how its ticks are brought in.")] = False,
    all_rows: AllRows = False,
    format_: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Find the times of which ticks are missing: of the last seven days, or from `--from` on.

    * `missing`: the broker has bars of it (the EA sends them), and we have no tick; `minutes` are those of its bars
    * `unknown`: neither ticks nor bars, though the symbol usually has some at these hours of the week (learned from the
      four weeks before the end); a holiday looks like this
    * `closed`, with `--closed`: neither, and it usually has none

    Nothing is missing before a symbol's first tick. Minutes with too few ticks are found by `tickpipe fidelity`.
    Exit code 1 when something is missing or unknown.

    Examples:

    * `tickpipe gaps`
    * `tickpipe gaps --symbol EURUSD --from 2024-01-01 --suggest`
    * `tickpipe gaps --format json`
    """
    settings = connected_settings(data_dir)
    end = min(to or datetime.max.replace(tzinfo=UTC), datetime.now(UTC).replace(second=0, microsecond=0) - _NEWEST)
    begin = from_ or end - _DEFAULT_SPAN
    found = run(_find(settings, (begin, end), symbol, source, least))
    lacking = [gap for gap in found if gap.state != "closed"]
    _write(found if closed else lacking, format_, all_rows=all_rows)
    if suggest:
        for line in _suggestions(settings, lacking):
            (out if format_ is Format.TABLE else err).print(line, markup=False, soft_wrap=True)
    raise typer.Exit(PROBLEM if lacking else DONE)


async def _find(
    settings: "Settings", span: tuple[datetime, datetime], symbol: str | None, source: str | None, least: int
) -> "list[Gap]":
    from sink.gaps import find_gaps
    from tickpipe.candles import require_symbol

    async with await open_database(settings) as connection:
        if symbol is not None:
            await require_symbol(connection, symbol)
        return await find_gaps(connection, *span, symbol=symbol, source=source, least=least)


def _write(found: "Sequence[Gap]", format_: Format, *, all_rows: bool) -> None:
    rows = [(gap.symbol, gap.source, gap.begins, gap.ends, gap.state.value, gap.minutes, gap.ticks) for gap in found]
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
