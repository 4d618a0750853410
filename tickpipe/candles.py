"""`tickpipe candles`, `query`, `fidelity`, `verify`: what the database holds, compared with bars and with the log."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketdata.errors import TickpipeError
from tickpipe.connection import DataDir, connected_settings, open_database
from tickpipe.console import (
    DONE,
    PROBLEM,
    AllRows,
    Format,
    FormatOption,
    FromTime,
    TimeframeOption,
    ToTime,
    err,
    out,
    print_head,
    print_json,
    print_table,
    run,
    write_rows,
)  # fmt: skip

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from runtime.settings import Settings
    from sink.queries import CandleRow
    from sink.verify import VerifyReport

COLUMNS = ("ts", "symbol", "timeframe", "open", "high", "low", "close", "volume", "source")

_NUMBERED = {
    "1": "The last 20 rows.",
    "2": "Rows and newest time of each symbol over 24 hours.",
    "3": "The newest row of each symbol, and how many minutes ago it began.",
    "4": "The structure of market_data.",
    "5": "Timeline of each symbol: first, last, rows.",
}

#: Rows of a table when no limit is given.
_TABLE_ROWS = 20

_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)

#: How far back the newest rows are looked for, step by step, so that a long table is not read for its last 20 rows.
_LOOK_BACK = (timedelta(hours=2), timedelta(days=2), timedelta(days=60))


def candles(
    *,
    symbol: Annotated[str, typer.Option("--symbol", "-s", help="For example EURUSD.")],
    from_: FromTime = None,
    to: ToTime = None,
    timeframe: TimeframeOption = "M1",
    source: Annotated[str | None, typer.Option(help="Only candles of this source.")] = None,
    format_: FormatOption = Format.TABLE,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the newest N. Default: 20 in a table without range, else all.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Show the stored candles of a symbol, in order of time.

    `ts` is the start of the candle in UTC. `--from` is included, `--to` is not: `--from 2019-02-04 --to 2019-02-05` is
    one day. Prices are written with all their digits. Where several sources have the symbol, `source` tells whose
    candle it is.

    Examples:

    * `tickpipe candles --symbol EURUSD`
    * `tickpipe candles --symbol EURUSD --from -1h`
    * `tickpipe candles --symbol EURUSD --timeframe H4`
    * `tickpipe candles --symbol EURUSD --from 2019-02-04 --to 2019-02-05 --format csv > day.csv`
    """
    if limit is None and format_ is Format.TABLE and from_ is None and to is None:
        limit = _TABLE_ROWS
    settings = connected_settings(data_dir)
    selection = _Selection(symbol, timeframe, source, from_ or _EARLIEST, to or _LATEST)
    run(_show(settings, selection, limit, format_))


class _Selection:
    """What of `market_data` is wanted."""

    def __init__(self, symbol: str, timeframe: str, source: str | None, from_: datetime, to: datetime) -> None:
        self.symbol, self.timeframe, self.source = symbol, timeframe, source
        self.from_, self.to = from_, to

    async def rows(self, connection: "AsyncConnection[Any]", from_: datetime) -> "AsyncGenerator[CandleRow]":
        """The rows from `from_` on, oldest first; close it before the connection."""
        from sink.queries import candles

        is_empty = True
        stored = candles(connection, self.symbol, from_, self.to, timeframe=self.timeframe, source=self.source)
        async with aclosing(stored) as found:
            async for row in found:
                is_empty = False
                yield row
        if is_empty and from_ == self.from_:
            await require_symbol(connection, self.symbol)
            err.print(f"No {self.timeframe} candle of {self.symbol} is stored for that time.", markup=False)

    async def newest(self, connection: "AsyncConnection[Any]", limit: int) -> "AsyncGenerator[CandleRow]":
        """The newest rows, at most `limit`, oldest first."""
        from sink.queries import newest_candles

        known = [candle.ts for candle in await newest_candles(connection, self.symbol)]
        end = min([self.to, *known])
        newest: deque[CandleRow] = deque(maxlen=limit)
        for begin in (*(max(self.from_, end - span) for span in _LOOK_BACK), self.from_):
            newest.clear()
            async for row in self.rows(connection, begin):
                newest.append(row)
            if len(newest) == limit or begin == self.from_:
                break
        for row in newest:
            yield row


class UnknownSymbol(TickpipeError):
    """No candle of the symbol is stored; the message names those that are written alike."""


async def require_symbol(connection: "AsyncConnection[Any]", symbol: str) -> None:
    """Raise UnknownSymbol when nothing of the symbol is stored."""
    from difflib import get_close_matches

    from sink.queries import known_symbols

    known = await known_symbols(connection)
    if symbol in known:
        return
    alike = [one for one in known if one.casefold() == symbol.casefold()]
    by_capitals = {one.upper(): one for one in known}
    alike = alike or [by_capitals[one] for one in get_close_matches(symbol.upper(), by_capitals, n=3)]
    hint = f"; did you mean {' or '.join(alike)}?" if alike else "; `tickpipe query latest` lists those that are"
    raise UnknownSymbol(f"nothing of {symbol} is stored{hint}")


async def _show(settings: "Settings", selection: _Selection, limit: int | None, format_: Format) -> None:
    async with await open_database(settings) as connection:
        found = selection.rows(connection, selection.from_) if limit is None else selection.newest(connection, limit)
        async with aclosing(found) as rows:
            await write_rows(COLUMNS, rows, format_)


def query(
    name: Annotated[str | None, typer.Argument(help="1 to 5, or the name of an analysis.")] = None,
    *,
    all_rows: AllRows = False,
    format_: FormatOption = Format.TABLE,
    data_dir: DataDir = None,
) -> None:
    """Run one of the five ready queries, or an analysis; without a name, list them.

    1 the last 20 rows; 2 rows and newest time per symbol over 24 hours; 3 newest row and minutes ago per symbol; 4 the
    structure of `market_data`; 5 timeline per symbol: first, last, rows. How long ticks take is `latency`.

    Examples:

    * `tickpipe query`
    * `tickpipe query 1`
    * `tickpipe query latency`
    * `tickpipe query 5 --format csv`
    """
    from sink.queries import analyses, purpose

    if name is None:
        listed = [*_NUMBERED.items(), *((each, purpose(each)) for each in analyses())]
        print_table(("name", "what it answers"), listed)
        return
    if name not in {*_NUMBERED, *analyses()}:
        raise typer.BadParameter(f"{name!r} is none of {', '.join([*_NUMBERED, *analyses()])}", param_hint="NAME")
    columns, rows = run(_query(connected_settings(data_dir), name))
    if format_ is Format.TABLE:
        print_head(columns, rows, all_rows=all_rows)
    else:
        run(write_rows(columns, rows, format_))


async def _query(settings: "Settings", name: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    from sink.queries import run_query

    async with await open_database(settings) as connection:
        return await run_query(connection, name)


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
    Below the table stands what probably happened, as far as the numbers tell.

    Examples:

    * `tickpipe fidelity --symbol EURUSD --from -1d`
    * `tickpipe fidelity --daily`
    """
    run(_compare(connected_settings(data_dir), symbol, from_, to, format_, daily=daily, all_minutes=all_minutes))


async def _compare(
    settings: "Settings",
    symbol: str | None,
    from_: datetime | None,
    to: datetime | None,
    format_: Format,
    *,
    daily: bool,
    all_minutes: bool,
) -> None:
    from sink.queries import compared, different_minutes
    from tickpipe.fidelity import diagnose

    async with await open_database(settings) as connection:
        found = compared(connection, symbol, from_, to, daily=daily, all_minutes=all_minutes)
        async with aclosing(found) as rows:
            columns = await anext(rows)
            if format_ is not Format.TABLE:
                await write_rows(columns, rows, format_)
                return
            shown = [row async for row in rows]
        if shown:
            print_table(columns, shown)
            if not daily:
                for diagnosis in diagnose(await different_minutes(connection, symbol, from_, to)):
                    err.print(str(diagnosis), markup=False, soft_wrap=True)
        else:
            await _say_why_nothing_is_shown(connection, symbol, daily=daily)


async def _say_why_nothing_is_shown(connection: "AsyncConnection[Any]", symbol: str | None, *, daily: bool) -> None:
    from sink.queries import has_broker_bars

    if symbol is not None:
        await require_symbol(connection, symbol)
    if not await has_broker_bars(connection, symbol):
        whose = "the broker" if symbol is None else f"the broker of {symbol}"
        said = (
            f"No bar of {whose} is stored: the EA sends them, and `tickpipe import` reads them from MetaTrader's files."
        )
    elif daily:
        said = "There is no time of which both the broker's bars and our candles are known."
    else:
        said = "Nothing differs, or nothing could be compared: `tickpipe fidelity --daily` shows which."
    err.print(said, markup=False, soft_wrap=True)


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
        typer.Option(
            "--complete",
            help="Read the whole log: also find what it holds and the table does not; check bars, hours and days.",
        ),
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
        _show_report(report, repair)
    nothing_proven = bool(report.unprovable) and not report.checked
    raise typer.Exit(PROBLEM if report.differences or _is_incomplete(report) or nothing_proven else DONE)


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


def _is_incomplete(report: "VerifyReport") -> bool:
    """Whether `--complete` has found anything."""
    return bool(report.missing or report.unfilled or report.wrong_roll_ups)


def _show_report(report: "VerifyReport", repair: bool) -> None:
    if report.differences:
        columns = ("source", "symbol", "ts", "field", "stored", "folded")
        shown = report.differences[:_SHOWN]
        print_table(columns, [(d.source, d.symbol, d.ts, d.field, d.stored, d.folded) for d in shown])
        if (more := len(report.differences) - len(shown)) > 0:
            out.print(f"… and {more:,} more; --json lists all.")
    out.print(
        f"{report.checked:,} candles checked, {report.equal:,} equal, {report.checked - report.equal:,} different"
    )
    for keys, said in (
        (report.missing, "candles are missing, or lack records that the log holds."),
        (report.unfilled, "bars of the broker are missing, or are not what the broker sent."),
        (report.wrong_roll_ups, "hours and days are not the roll-up of their minutes."),
    ):
        if keys:
            shown_keys = [(key.source, key.symbol, key.timeframe, key.ts) for key in keys[:_SHOWN]]
            print_table(("source", "symbol", "timeframe", "ts"), shown_keys)
            out.print(f"{len(keys):,} {said}")
    if repair:
        out.print(f"{report.repaired:,} candles repaired")
        if without_tick := sum(each.folded is None and each.field == "candle" for each in report.differences):
            out.print(
                f"{without_tick:,} rows name no tick of theirs. Where the log holds none of their minute, as after a "
                "symbol or a time was changed by hand, they stay until you delete them."
            )
    elif report.differences or _is_incomplete(report):
        out.print(f"Mend it with: tickpipe verify {'--complete ' if _is_incomplete(report) else ''}--repair")
    if report.pending:
        out.print(
            f"{len(report.pending):,} candles wait for a refold by the sink and were not checked; try again soon."
        )
    if report.unprovable:
        out.print(f"{len(report.unprovable):,} candles cannot be proven: the log no longer holds their offsets.")
