"""`tickpipe relay`: the Windows side, which stores an EA's ticks on this machine and forwards them."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import logging
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from marketdata.errors import SettingsError
from tickpipe.console import DONE, INTERRUPTED, PROBLEM, err, explain, out

if TYPE_CHECKING:
    from relay.exporter import Export, Report
    from runtime.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Store an EA's ticks on this machine and forward them to the server.")


class _Aggregate(StrEnum):
    AUTO = "auto"
    NONE = "none"
    M1 = "M1"


#: Rows that a run sends when nothing says which.
_NEWEST_ROWS = 200

#: The server's key, so that it need not stand in a command line.
_KEY_VARIABLE = "TICKPIPE_RELAY_FORWARD_KEY"

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)", re.I)
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def duration(text: str | float) -> float:
    """Seconds of `7d`, `12h`, `5m`, `30s` or a plain number of seconds."""
    found = _DURATION.fullmatch(str(text).strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration; use for example 30s, 5m, 12h or 7d")
    return float(found[1]) * _SECONDS[found[2].lower()]


def retention(text: str | float) -> float:
    """Seconds of a duration, infinity for `forever`."""
    return math.inf if str(text).strip().lower() == "forever" else duration(text)


_OFFSET = re.compile(r"([+-])(\d{1,2}):(\d\d)")


def broker_offset(text: str) -> int | str | None:
    """Seconds of `+02:00`; None for `quotes`, and `server` as it is."""
    if (word := text.strip().lower()) in ("quotes", "server"):
        return None if word == "quotes" else word
    if (found := _OFFSET.fullmatch(word)) is None:
        raise typer.BadParameter(f"{text!r} is no clock; use quotes, server, or an offset from UTC such as +02:00")
    return (int(found[2]) * 3_600 + int(found[3]) * 60) * (-1 if found[1] == "-" else 1)


Db = Annotated[Path, typer.Option("--db", metavar="FILE", help="The database of ticks; created when missing.")]
Keep = Annotated[
    float | None,
    typer.Option(
        "--keep",
        parser=retention,
        metavar="TIME",
        help="Delete rows so long after the server confirmed them: 7d, 12h, forever. Default: 7d, but forever in a file"
        " that was there before the relay's first start.",
    ),
]

Host = Annotated[str, typer.Option(help="Address to listen on; others than 127.0.0.1 need a key.")]
ForwardTo = Annotated[
    str | None, typer.Option("--forward", metavar="URL", help="Server to forward to. Default: only store.")
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file", metavar="FILE", help=f"The server's key is its first line. Default: the variable {_KEY_VARIABLE}."
    ),
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        "--log-file", metavar="FILE", help="Write the log there, in UTF-8; at 5 MB it becomes FILE.1. Default: stderr."
    ),
]


@app.command()
def serve(
    *,
    db: Db = Path("ea.db"),
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port that EAs post to.")] = 18_000,
    forward_to: ForwardTo = None,
    keep: Keep = None,
    key_file: KeyFile = None,
    log_file: LogFile = None,
) -> None:
    """Store what EAs post, on disk before each answer, and forward it at once when --forward names a server.

    The server's key is the first line of --key-file, or TICKPIPE_RELAY_FORWARD_KEY. The first line of the log says
    which rows will be deleted, and when; without a server's confirmation none ever is. The state is shown on
    http://127.0.0.1:18000.

    Examples:

    * `tickpipe relay serve --db C:\\ticks\\ea.db`
    * `tickpipe relay serve --db ea.db --forward https://ticks.example.com --keep 7d`
    """
    with _Extra():
        from relay.server import Server
        from relay.service import serve as run

    with _settings(log_file) as settings:
        if forward_to is None:
            raise typer.Exit(run(settings, db, host=host, port=port, server=None, retention_seconds=keep))
        with Server(forward_to, _key(key_file)) as server:
            raise typer.Exit(run(settings, db, host=host, port=port, server=server, retention_seconds=keep))


@app.command()
def collect(
    *,
    db: Db = Path("ea.db"),
    symbols: Annotated[
        str, typer.Option(metavar="NAMES", help="Names or wildcards by comma: EURUSD,XAU*. Default: the Market Watch.")
    ] = "",
    since: Annotated[
        float,
        typer.Option(
            parser=duration, metavar="TIME", help="Begin a new symbol so long before its newest tick: 12h, 7d."
        ),
    ] = "0s",  # type: ignore[assignment]  # typer hands defaults to the parser
    clock: Annotated[
        str, typer.Option(help="The broker's clock: by its quotes, `server` (the server knows the zone), or +02:00.")
    ] = "quotes",
    terminal: Annotated[str, typer.Option(metavar="EXE", help="terminal64.exe, where the PC has several.")] = "",
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the status page, and for EAs.")] = 18_000,
    forward_to: ForwardTo = None,
    keep: Keep = None,
    key_file: KeyFile = None,
    log_file: LogFile = None,
) -> None:
    """Collect ticks from this PC's MetaTrader 5 without an EA, store and forward them. Windows only.

    It needs the official package (`pip install MetaTrader5`) and a terminal that is logged in. It does all that
    `tickpipe relay serve` does as well; run one of the two on a file.

    Examples:

    * `tickpipe relay collect --db C:\\ticks\\ea.db --forward https://ticks.example.com --key-file key.txt`
    * `tickpipe relay collect --symbols "EURUSD,XAU*" --since 7d`
    """
    with _Extra():
        from relay.collector import Collector
        from relay.server import Server
        from relay.service import serve as run
        from relay.terminal import Terminal, official_package

    offset = broker_offset(clock)
    wanted = [name.strip() for name in symbols.split(",") if name.strip()]
    with _settings(log_file) as settings:
        reads = Terminal(official_package(), terminal)
        collector = partial(Collector, terminal=reads, wanted=wanted, since_seconds=since, offset=offset)
        with nullcontext() if forward_to is None else Server(forward_to, _key(key_file)) as server:
            code = run(
                settings, db, host=host, port=port, server=server, retention_seconds=keep, collect=collector
            )  # fmt: skip
            raise typer.Exit(code)


@app.command()
def forward(
    *,
    to: Annotated[str, typer.Option("--to", metavar="URL", help="Server to forward to.")],
    db: Db = Path("ea.db"),
    every: Annotated[
        float, typer.Option("--every", parser=duration, metavar="TIME", help="Pause between two looks.")
    ] = "5m",  # type: ignore[assignment]  # typer hands defaults to the parser
    keep: Keep = None,
    key_file: KeyFile = None,
    log_file: LogFile = None,
) -> None:
    """Forward what another program stores in the database, every few minutes, until Ctrl-C.

    Examples:

    * `tickpipe relay forward --every 5m --db C:\\ticks\\ea.db --to https://ticks.example.com`
    """
    with _Extra():
        from relay.database import forwarding_alone
        from relay.forwarder import BATCH, Forwarder, Retention
        from relay.pending import Pending
        from relay.server import Server
        from relay.store import Store

    with (
        _settings(log_file),
        Server(to, _key(key_file)) as server,
        Store(_existing(db)) as store,
        forwarding_alone(db),
    ):
        rows = Retention(store, keep)
        _say(f"{db} goes to {server.url}. {rows.plan()}", log_file)
        forwarder = Forwarder(store, server, Pending(store, limit=BATCH), retention=rows)
        try:
            forwarder.run(every)
        except KeyboardInterrupt:
            raise typer.Exit(DONE) from None


@app.command()
def check(
    *,
    to: Annotated[str, typer.Option("--to", metavar="URL", help="Server that ticks are to be forwarded to.")],
    source: Annotated[
        str | None, typer.Option(help="Source that an EA names (X-Source). Default: the server says which.")
    ] = None,
    relay: Annotated[
        str | None, typer.Option(metavar="URL", help="Also try the relay there, for example http://127.0.0.1:18000.")
    ] = None,
    key_file: KeyFile = None,
) -> None:
    """Check whether ticks would get from here to the server: relay, network, clock, key, source, a test tick.

    The test tick is stored nowhere. Exit code 1 when something is wrong.

    Examples:

    * `tickpipe relay check --to https://ticks.example.com`
    * `tickpipe relay check --to https://ticks.example.com --relay http://127.0.0.1:18000`
    """
    with _Extra():
        from relay.api import KEY_VARIABLE
        from relay.server import Server, check_relay
        from relay.server import check as run

    is_good = True
    with Server(to, _key(key_file), user_agent="tickpipe-check") as server:
        nearby = check_relay(relay, server.url, os.environ.get(KEY_VARIABLE, "")) if relay else ()
        for finding in (*nearby, *run(server, source)):
            is_good = is_good and finding.is_good
            sign = "ok   " if finding.is_good else "WRONG"
            out.print(f"{sign} {finding.what}: {finding.text}", markup=False, soft_wrap=True)
    raise typer.Exit(DONE if is_good else PROBLEM)


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


@app.command()
def export(
    *,
    api: Annotated[str, typer.Option("--api", metavar="URL", help="Server to send to.")],
    db: Db = Path("ea.db"),
    token: Annotated[str | None, typer.Option(help=f"The server's key. Default: {_KEY_VARIABLE}.")] = None,
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
    with _Extra():
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
        _settings(log_file),
        Server(address, "" if dry_run else _key(key_file, token), user_agent="tickpipe-export") as server,
        Store(_existing(db)) as store,
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
        _say(f"{run.report.sent:,} rows were sent. With --all the same command continues.", log_file)
        raise typer.Exit(INTERRUPTED) from None
    if report.why_bars:
        _say(f"{report.why_bars}: M1 bars were sent instead of ticks", log_file)
    what = f"{report.bars:,} bars" if report.bars else f"{report.sent:,} rows"
    outcome = f"{what} sent, {report.rejected:,} rejected"
    if log_file is not None:
        _say(outcome, log_file)
    out.print(outcome, markup=False)
    return report


def _say(text: str, log_file: Path | None) -> None:
    if log_file is None:
        err.print(text, markup=False, soft_wrap=True)
    else:
        logging.getLogger(__name__).info(text)


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
        _say(f"{why}; next try in {seconds:.1f} s", self._log_file)


class _Extra:
    """Turns a missing package into a sentence."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, exc: object, _traceback: object) -> None:
        if isinstance(exc, ModuleNotFoundError):
            raise SettingsError(
                f"{exc.name} is not installed; install what requirements.txt of the kit lists (`tickpipe kit DIR`)"
            ) from exc


@contextmanager
def _settings(log_file: Path | None) -> "Iterator[Settings]":
    """The settings; an error that ends the command is logged where a file was named: nobody sees a task's console."""
    from runtime.logs import configure_logs
    from runtime.settings import Settings, load_settings

    if log_file is not None:
        configure_logs(Settings.model_construct(), log_file)
    try:
        settings = load_settings()
        configure_logs(settings, log_file)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        yield settings
    except (typer.Exit, typer.BadParameter):
        raise
    except Exception as exc:
        if log_file is not None:
            explained = explain(exc)
            logging.getLogger(__name__).error(
                explained[0] if explained else "The command failed; this is a bug.", exc_info=None if explained else exc
            )
        raise


def _key(file: Path | None, token: str | None = None) -> str:
    """The server's key, from wherever it was said.

    Raises:
        SettingsError: when it was not, or the file cannot be read.
    """
    key = token or (_first_line(file) if file is not None else os.environ.get(_KEY_VARIABLE, ""))
    if not key:
        raise SettingsError(
            f"no key for the server: name a --key-file, or set {_KEY_VARIABLE} to what the server knows"
        )
    return key


def _first_line(file: Path) -> str:
    try:
        content = file.read_bytes()
    except OSError as exc:
        raise SettingsError(f"the key cannot be read: {exc}") from exc
    # Windows PowerShell's > and Notepad may write UTF-16.
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    key = content.decode(encoding, "replace").partition("\n")[0].strip()
    if not key:
        raise SettingsError(f"{file} is empty; write the server's key into its first line")
    return key


def _existing(db: Path) -> Path:
    if not db.exists():
        raise SettingsError(f"{db} does not exist; name the EA's database with --db")
    return db
