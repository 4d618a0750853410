"""`tickpipe ticks`: the ticks behind the candles, read from the log."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from marketdata.errors import TickpipeError
from tickpipe.candles import require_symbol
from tickpipe.connection import DataDir, connected_settings, open_database
from tickpipe.console import (
    INTERRUPTED,
    PROBLEM,
    TIME_HELP,
    ToTime,
    epoch_ms,
    err,
    iso_utc,
    moment_of,
    print_table,
    run,
    time_option,
)

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick


if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from marketdata.refold import TickRow
    from runtime.settings import Settings
    from sink.ticks import TickBatch, TickRange
    from tickpipe.console import Bar

#: Rows of a table.
_TABLE_ROWS = 50

#: Spans of lost minutes that are listed.
_SPANS = 10


class TickFormat(StrEnum):
    """How ticks are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"
    MT5 = "mt5"


class SeveralSources(TickpipeError):
    """Several sources send the symbol; the message names them."""

    is_wrong_use = True


@dataclass(frozen=True)
class _Wanted:
    symbol: str
    source: str | None
    from_: datetime
    to: datetime
    raw: bool
    format: TickFormat
    output: Path | None


def ticks(
    *,
    symbol: Annotated[str, typer.Option("--symbol", "-s", help="For example EURUSD.")],
    from_: Annotated[
        datetime, typer.Option("--from", parser=time_option, metavar="T", help=f"From T, included: {TIME_HELP}.")
    ],
    to: ToTime = None,
    source: Annotated[str | None, typer.Option(help="The source; needed where several send the symbol.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Every record's ticks, resends too, with their place in the log.")
    ] = False,
    format_: Annotated[
        TickFormat,
        typer.Option("--format", "-f", help="Table for people; mt5 is MetaTrader 5's own CSV; parquet needs pyarrow."),
    ] = TickFormat.TABLE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write into FILE instead of standard output.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Show the ticks of a symbol, in order of time, read from the log of ticks.

    Each tick comes once, and exactly those that the candles count: what a sender sent again is left out. With `--raw`
    every record's ticks come, minute by minute in the order of the log. `--from` is included, `--to` is not; without
    `--to` they come up to now. A table shows the first 50 and counts the rest. FILE is there only when it is whole.

    Exit code 1 when the log no longer holds some of the minutes; they are named.

    Examples:

    * `tickpipe ticks --symbol EURUSD --from -5m`
    * `tickpipe ticks --symbol EURUSD --from 2019-02-04 --to 2019-02-05 --format parquet --output day.parquet`
    * `tickpipe ticks --symbol EURUSD --from -1d --format mt5 --output EURUSD_ticks.csv`
    * `tickpipe ticks --symbol EURUSD --from 2019-02-04T10:30 --to 2019-02-04T10:31 --raw`
    """
    to = to or datetime.now(UTC)
    if to <= from_:
        raise typer.BadParameter("it is not after --from", param_hint="--to")
    if raw and format_ is TickFormat.MT5:
        raise typer.BadParameter("MetaTrader's file has no place for records; use another format", param_hint="--raw")
    if output is not None and format_ is TickFormat.TABLE:
        raise typer.BadParameter("a table is for the terminal; add --format", param_hint="--output")
    if format_ is TickFormat.PARQUET and output is None and sys.stdout.isatty():
        raise typer.BadParameter("Parquet is no text; name a file, or pipe it", param_hint="--output")
    wanted = _Wanted(symbol, source, from_, to, raw, format_, output)
    settings = connected_settings(data_dir)
    try:
        is_whole = run(_ticks(settings, wanted))
    except KeyboardInterrupt as exc:
        err.print("Interrupted" if output is None else "Interrupted; nothing was written.")
        raise typer.Exit(INTERRUPTED) from exc
    if not is_whole:
        raise typer.Exit(PROBLEM)


async def _ticks(settings: "Settings", wanted: _Wanted) -> bool:
    # Returns whether the log holds every minute.
    from sink.queries import count_minutes, digits_of
    from sink.ticks import TickRange, TickReader
    from tickpipe.console import Bar

    async with await open_database(settings) as connection:

        @asynccontextmanager
        async def reading() -> "AsyncIterator[AsyncConnection[Any]]":
            yield connection

        source = await only_source(connection, wanted.symbol, wanted.source)
        range_ = TickRange(source, wanted.symbol, epoch_ms(wanted.from_), epoch_ms(wanted.to))
        # A bar between the lines of a terminal would spoil both.
        is_quiet = wanted.format is not TickFormat.TABLE and wanted.output is None and sys.stdout.isatty()
        with nullcontext() if is_quiet else Bar("ticks", await count_minutes(connection, range_)) as bar:
            reader = TickReader(settings, reading, range_, raw=wanted.raw, on_progress=_advance(bar))
            output = _Output(wanted, await digits_of(connection, source, wanted.symbol))
            async with reader, aclosing(reader.batches()) as batches:
                gone = await output.take(batches)
        output.show_table()
        if not output.ticks and not gone:
            await _say_why_there_is_nothing(connection, range_)
    say_gone(gone)
    return not gone


def _advance(bar: "Bar | None") -> Any:
    done = 0

    def advance(minutes: int) -> None:
        nonlocal done
        done += minutes
        if bar is not None:
            bar.update(done, f"{done:,} minutes")

    return advance


async def only_source(connection: "AsyncConnection[Any]", symbol: str, named: str | None) -> str:
    """The source that was named, or the only one that sends the symbol.

    Raises:
        UnknownSymbol, SeveralSources: when there is not exactly one.
    """
    from sink.queries import sources_of

    if named is not None:
        return named
    sources = await sources_of(connection, symbol)
    if not sources:
        await require_symbol(connection, symbol)
    if len(sources) != 1:
        raise SeveralSources(f"{symbol} comes from {' and '.join(sources)}; name one with --source")
    return sources[0]


class _Output:
    """Writes the ticks, or holds the first ones for a table, and counts them."""

    def __init__(self, wanted: _Wanted, digits: int | None) -> None:
        self._wanted = wanted
        self._digits = digits
        self._head: list[TickRow] = []
        self.ticks = 0

    async def take(self, batches: "AsyncIterator[TickBatch]") -> list[int]:
        """Write every tick; returns the minutes that the log lost."""
        gone: list[int] = []
        wanted = self._wanted
        if wanted.format is TickFormat.TABLE:
            async for batch in batches:
                self._head += batch.rows[: _TABLE_ROWS - len(self._head)]
                self._note(batch, gone)
            return gone
        from tickpipe.export.files import writer_for

        with _stream(wanted.output) as stream:
            writer = writer_for(wanted.format, stream, raw=wanted.raw, digits=self._digits)
            async for batch in batches:
                writer.write(batch)
                self._note(batch, gone)
            writer.finish()
        return gone

    def _note(self, batch: "TickBatch", gone: list[int]) -> None:
        self.ticks += len(batch)
        if batch.is_gone:
            gone.append(batch.ts)

    def show_table(self) -> None:
        """Print the first ticks, where a table is wanted, and how many more there are."""
        if self._wanted.format is TickFormat.TABLE and self.ticks:
            from marketdata.refold import columns_of, shown

            print_table(columns_of(raw=self._wanted.raw), map(shown, self._head))
            if more := self.ticks - len(self._head):
                err.print(f"… and {more:,} more of {self.ticks:,}; the other formats have them all.", markup=False)


@contextmanager
def _stream(output: Path | None) -> Iterator[IO[bytes]]:
    from tickpipe.export.files import whole_file

    if output is not None:
        with whole_file(output.expanduser().absolute()) as stream:
            yield stream
    else:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()


async def _say_why_there_is_nothing(connection: "AsyncConnection[Any]", range_: "TickRange") -> None:
    from sink.queries import sources_of

    sources = await sources_of(connection, range_.symbol)
    if not sources:
        await require_symbol(connection, range_.symbol)
    said = f"No tick of {range_.symbol} from {range_.source} is in the log for that time."
    if range_.source not in sources:
        said += f" It comes from {' and '.join(sources)}."
    err.print(said, markup=False, soft_wrap=True)


def say_gone(gone: list[int]) -> None:
    """Name the minutes whose records the log no longer holds, if there are any."""
    from sink.ticks import missing_spans

    if not gone:
        return
    spans = missing_spans(gone)
    listed = [f"{iso_utc(moment_of(first))} to {iso_utc(moment_of(end))}" for first, end in spans[:_SPANS]]
    more = f", and {len(spans) - _SPANS:,} spans more" if len(spans) > _SPANS else ""
    err.print(
        f"Left out are {len(gone):,} minutes whose records the log no longer holds: {', '.join(listed)}{more}.",
        markup=False, soft_wrap=True,
    )  # fmt: skip
