"""`tickpipe relay export`: one run that sends stored ticks, or M1 bars folded from them."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from tickpipe.console import DONE, INTERRUPTED, PROBLEM, err, out
from tickpipe.relay.options import KEY_VARIABLE, Db, Extra, KeyFile, LogFile, existing, key_of, say, settings_for

if TYPE_CHECKING:
    from relay.exporter import Export, Report


class _Aggregate(StrEnum):
    AUTO = "auto"
    NONE = "none"
    M1 = "M1"


#: Rows that a run sends when nothing says which.
_NEWEST_ROWS = 200

Limit = Annotated[
    int | None,
    typer.Option(
        min=1, help="Without --all: send the newest rows, at most so many. Default: 200; none with --since-minutes."
    ),
]
SinceMinutes = Annotated[
    int | None, typer.Option(min=1, help="Without --all: all rows that were stored in the last N minutes.")
]
AggregateTo = Annotated[_Aggregate, typer.Option(help="M1 sends bars; auto does when the server knows no ticks (404).")]
WrapItems = Annotated[
    bool,
    typer.Option(
        "--wrap-items", help='For older scripts; changes nothing: bodies always are {"ticks": […]} or {"items": […]}.'
    ),
]
Fallback = Annotated[
    bool,
    typer.Option(
        "--fallback-aggregate-on-404", help="For older scripts: the same as --aggregate-to auto, the default."
    ),
]


def export(
    *,
    api: Annotated[str, typer.Option("--api", metavar="URL", help="Server to send to.")],
    db: Db = Path("ea.db"),
    token: Annotated[str | None, typer.Option(help=f"The server's key. Default: {KEY_VARIABLE}.")] = None,
    limit: Limit = None,
    since_minutes: SinceMinutes = None,
    all_rows: Annotated[bool, typer.Option("--all", help="Send what no earlier run with --all has sent.")] = False,
    from_start: Annotated[bool, typer.Option(help="With --all: send everything again.")] = False,
    batch: Annotated[int, typer.Option(min=1, max=20_000, help="Most rows of one request.")] = 200,
    page_size: Annotated[int, typer.Option(min=1, max=100_000, help="Rows read from the database at once.")] = 1_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be sent, and send nothing.")] = False,
    endpoint: Annotated[str, typer.Option(metavar="PATH", help="Where the server takes ticks.")] = "/ingest/tick",
    aggregate_to: AggregateTo = _Aggregate.AUTO,
    wrap_items: WrapItems = False,
    fallback: Fallback = False,
    key_file: KeyFile = None,
    log_file: LogFile = None,
) -> None:
    """Send stored ticks once, for example from the Task Scheduler. Sending ticks twice changes no candle.

    A run with --all remembers how far it came; the next continues there. Exit code 1 when an item was rejected.

    Examples:

    * `tickpipe relay export --db C:\\ticks\\ea.db --api https://ticks.example.com --all`
    * `tickpipe relay export --db ea.db --api http://127.0.0.1:18001 --since-minutes 10`
    * `tickpipe relay export --db ea.db --api http://127.0.0.1:18001 --all --dry-run`
    """
    with Extra():
        from relay.exporter import Choice, Export
        from relay.pending import restart
        from relay.server import Server
        from relay.store import Store
        from runtime.exchange import address_of

    if fallback and aggregate_to is _Aggregate.NONE:
        raise typer.BadParameter("--aggregate-to none and --fallback-aggregate-on-404 contradict each other")
    address = address_of(api.rstrip("/").removesuffix(endpoint))
    if limit is None and since_minutes is None:
        limit = _NEWEST_ROWS
    choice = Choice(all_rows=all_rows, limit=limit, since_minutes=since_minutes, page=page_size)
    with (
        settings_for(log_file),
        Server(address, "" if dry_run else key_of(key_file, token), user_agent="tickpipe-export") as server,
        Store(existing(db)) as store,
        _Bar(log_file) as bar,
    ):
        run = Export(store, server, choice, endpoint=endpoint, batch=batch, on_progress=bar.update, on_wait=bar.wait)
        if from_start and not dry_run:
            restart(store, run.cursor)
        total = store.counts().by_symbol.total() if from_start and dry_run else run.count()
        if dry_run:
            out.print(f"{total:,} rows would be sent to {address}{endpoint}", markup=False, soft_wrap=True)
            raise typer.Exit(DONE)
        bar.begin(total)
        report = _finish(run, aggregate_to, log_file)
    raise typer.Exit(PROBLEM if report.rejected else DONE)


def _finish(run: "Export", aggregate_to: _Aggregate, log_file: Path | None) -> "Report":
    """Run an export to its end, and say what it did."""
    try:
        report = run.run(aggregate_to.value)
    except KeyboardInterrupt:
        say(f"{run.report.sent:,} rows were sent. With --all the same command continues.", log_file)
        raise typer.Exit(INTERRUPTED) from None
    if report.why_bars:
        say(f"{report.why_bars}: M1 bars were sent instead of ticks", log_file)
    what = f"{report.bars:,} bars" if report.bars else f"{report.sent:,} rows"
    outcome = f"{what} sent, {report.rejected:,} rejected"
    if log_file is not None:
        say(outcome, log_file)
    out.print(outcome, markup=False)
    return report


class _Bar:
    """The progress bar of an export."""

    def __init__(self, log_file: Path | None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._log_file = log_file
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=err, transient=True, disable=log_file is not None,
        )  # fmt: skip
        self._task = self._progress.add_task("rows", total=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, total: int) -> None:
        self._progress.update(self._task, total=total)
        self._progress.start()

    def update(self, sent: int) -> None:
        self._progress.update(self._task, completed=sent)

    def wait(self, why: str, seconds: float) -> None:
        say(f"{why}; next try in {seconds:.1f} s", self._log_file)
