"""`tickpipe senders`: who sends."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from tickpipe.connection import DataDir, connected_settings, open_database
from tickpipe.console import TIME_HELP, Format, FormatOption, err, run, time_option, write_rows

if TYPE_CHECKING:
    from runtime.settings import Settings
    from sink.queries import SenderRow

#: How far back senders are shown unless told.
_SHOWN = timedelta(days=7)


def senders(
    *,
    since: Annotated[
        datetime | None,
        typer.Option(parser=time_option, metavar="T", help=f"Seen since T: {TIME_HELP}. Default: -7d."),
    ] = None,
    format_: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Show who sends: server, account, terminal build, EA and address of each sender, and how much it sent.

    First and last seen go by the receipt of requests, not by the time of ticks. `shared` names what several senders of
    one source differ in within the hour: their ticks become one candle, so each server and account needs a source of
    its own.

    Examples:

    * `tickpipe senders`
    * `tickpipe senders --since -1h --format json`
    """
    rows = run(_read(connected_settings(data_dir), since or datetime.now(UTC) - _SHOWN))
    for source, shared in sorted({(row.source, row.shared) for row in rows if row.shared}):
        err.print(
            f"Several {shared.replace(', ', ' and ')} send under the source {source}, and their ticks become one "
            "candle; give each a source of its own.",
            style="yellow", markup=False,
        )  # fmt: skip
    if not rows and format_ is Format.TABLE:
        err.print("Nobody has sent anything since then.", markup=False)
        return
    run(write_rows(_columns(), rows, format_))


def _columns() -> tuple[str, ...]:
    from sink.queries import SenderRow

    return SenderRow._fields


async def _read(settings: "Settings", since: datetime) -> "list[SenderRow]":
    from sink.queries import read_senders

    async with await open_database(settings) as connection:
        return await read_senders(connection, since)
