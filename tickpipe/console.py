"""What every command shares: where output goes, how errors are told, how asynchronous work is run."""

import os
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from marketdata.errors import SettingsError, StackError, TickpipeError

T = TypeVar("T")

#: Exit codes of every command.
DONE, PROBLEM, WRONG_USE = 0, 1, 2
#: What a shell reports for a command that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130

#: Results; nothing else goes to the standard output, so that it can be piped.
out = Console(highlight=False)
#: Progress, notes and errors.
err = Console(stderr=True, highlight=False)


def run(work: Coroutine[Any, Any, T]) -> T:
    """The one door from typer's synchronous commands to asynchronous work."""
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
            told = explain(exc)
            if told is None or ctx.params.get("debug"):
                raise
            message, code = told
            err.print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)
            raise typer.Exit(code) from exc


def explain(exc: Exception) -> tuple[str, int] | None:
    """The sentence and the exit code of an expected error; None for one that nobody foresaw."""
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
        if type(exc).__name__ == "UndefinedTable":
            return f"PostgreSQL: {text}; run `tickpipe db migrate`", PROBLEM
        # libpq's own question is replaced by one that names the setting.
        text = text.partition(" Is the server running")[0]
        return f"PostgreSQL: {text}; is it running? (TICKPIPE_DATABASE_URL, `tickpipe status`)", PROBLEM
    if origin == "aiokafka":
        return f"Kafka: {text}; see `tickpipe status`", PROBLEM
    if isinstance(exc, OSError):
        return text, PROBLEM
    return None
