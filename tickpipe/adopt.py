"""`tickpipe db adopt`: a table of candles that another collector made becomes Tickpipe's."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tickpipe.connection import DataDir, connected_settings
from tickpipe.console import Bar, ask, out, print_json, print_table, run

if TYPE_CHECKING:
    from sink.db.adoption import Adopted

#: What the numbers of the report mean.
_MEANING = {
    "rows": "in the older table",
    "stored": "in market_data now",
    "duplicates": "of one symbol, timeframe and time: the row with the most ticks is stored",
    "zeros": "all prices are 0; stored as they are",
    "unfit": "no or impossible prices, or a minute that does not begin at :00; not stored",
    "other_timeframes": "not asked for; not stored",
}


def adopt(
    *,
    source: Annotated[
        str | None, typer.Option(help="Who sent these candles; the name that your EA or relay sends by.")
    ] = None,
    timeframe: Annotated[
        list[str] | None, typer.Option("--timeframe", "-t", help="Only these timeframes; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count; change nothing.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Give the older table its name back.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --undo: drop the candles that came since.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Take over a table market_data that another collector made, with all its candles.

    The table needs the columns ts, symbol, timeframe, open, high, low, close and volume or tick_volume. Its rows become
    bars of the broker `--source`; folded ticks replace them minute by minute where you send the ticks. The older table
    is renamed to market_data_adopted and stays as it is: drop it when you are content. Times without a zone count as
    UTC. Interrupted, run it again: it goes on. To leave the older table alone, set TICKPIPE_DATABASE_SCHEMA instead.

    Examples:

    * `tickpipe db adopt --source ICMarkets-Demo --dry-run`
    * `tickpipe db adopt --source ICMarkets-Demo`
    * `tickpipe db adopt --source ICMarkets-Demo --timeframe M1 --timeframe H1`
    * `tickpipe db adopt --undo`
    """
    if not (source or undo):
        raise typer.BadParameter("name who sent these candles", param_hint="--source")
    from sink.db import adoption
    from sink.db.session import database_conninfo

    conninfo = database_conninfo(connected_settings(data_dir))
    if undo:
        run(adoption.undo(conninfo, lambda candles: _confirm(candles, yes)))
        out.print("The older table is market_data again; Tickpipe's tables, views and functions are gone.")
        return
    if dry_run:
        adopted = run(adoption.preview(conninfo, timeframe or []))
    else:
        with Bar("adopting", total=1) as bar:
            adopted = run(adoption.adopt(conninfo, source or "", timeframe or [], bar.update))
    _show(adopted, dry_run, json)


async def _confirm(candles: int, yes: bool) -> None:
    if candles:
        ask(f"{candles:,} candles came after the adoption and would be dropped; the log still holds their ticks.", yes)


def _show(adopted: "Adopted", dry_run: bool, json: bool) -> None:
    if json:
        print_json(asdict(adopted))
        return
    print_table(("what", "rows", ""), [(name, count, _MEANING[name]) for name, count in asdict(adopted).items()])
    if dry_run:
        out.print("Nothing was changed.")
    else:
        out.print("The older table is market_data_adopted; go back with: tickpipe db adopt --undo")
