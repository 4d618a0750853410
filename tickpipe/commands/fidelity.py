"""`tickpipe fidelity`: our candles against the broker's own bars."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickpipe.connection import DataDir, connected_settings, open_database
from tickpipe.console import err, run
from tickpipe.output import Format, FormatOption, print_table, write_csv, write_json
from tickpipe.times import FromTime, ToTime

if TYPE_CHECKING:
    from runtime.settings import Settings


def fidelity(
    *,
    symbol: Annotated[str | None, typer.Option("--symbol", "-s", help="Only this one, for example EURUSD.")] = None,
    from_: FromTime = None,
    to: ToTime = None,
    daily: Annotated[bool, typer.Option("--daily", help="A summary of each trading day instead of minutes.")] = False,
    all_minutes: Annotated[bool, typer.Option("--all", help="Minutes that are equal as well.")] = False,
    format_: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Compare our M1 candles with the bars that the broker computed, and show the minutes that are not equal.

    `differs` names the fields, and the differences are ours minus the broker's; `no_bar`: the broker has no bar of the
    minute; `no_candle`: we have no ticks of it. Compared is the span in which both are known, closed minutes only.

    Examples:

    * `tickpipe fidelity --symbol EURUSD --from -1d`
    * `tickpipe fidelity --daily`
    """
    run(_show(connected_settings(data_dir), symbol, from_, to, format_, daily=daily, all_minutes=all_minutes))


async def _show(
    settings: "Settings",
    symbol: str | None,
    from_: datetime | None,
    to: datetime | None,
    format_: Format,
    *,
    daily: bool,
    all_minutes: bool,
) -> None:
    from sink.queries import compared

    async with await open_database(settings) as connection:
        found = compared(connection, symbol, from_, to, daily=daily, all_minutes=all_minutes)
        async with aclosing(found) as rows:
            columns = await anext(rows)
            if format_ is Format.CSV:
                await write_csv(columns, rows)
            elif format_ is Format.JSON:
                await write_json(columns, rows)
            else:
                await _table(columns, rows)


async def _table(columns: tuple[str, ...], rows: AsyncIterator[tuple[Any, ...]]) -> None:
    shown = [row async for row in rows]
    if shown:
        print_table(columns, shown)
    else:
        err.print("Nothing differs, or nothing could be compared: `tickpipe fidelity --daily` tells.", markup=False)
