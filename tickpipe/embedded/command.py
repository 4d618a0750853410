"""`tickpipe up` and `tickpipe down`: the whole pipeline on this machine."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from marketdata.errors import StackError, TickpipeError
from runtime import clock
from tickpipe.connection import DataDir, data_dir_option, data_directory, stack_on, without_password
from tickpipe.console import err, out

if TYPE_CHECKING:
    from tickpipe.embedded.stack import StackConfig, StackEvent
    from tickpipe.embedded.state import StackState

_STYLES = {"running": "green", "backoff": "yellow", "stopped": "dim"}

#: A service that starts gets its line when it is ready, or when it did not get there.
_UNSAID = ("starting",)


_ProducerHost = Annotated[
    str, typer.Option(help="Address to listen on; 0.0.0.0 lets EAs on other machines in, :: those of IPv6 as well.")
]
_DashboardHost = Annotated[
    str, typer.Option(help="Address of the chart; 0.0.0.0 shows it to other machines (TICKPIPE_DASHBOARD_PASSWORD).")
]
_PostgresHost = Annotated[
    str, typer.Option(help="Address of PostgreSQL; 0.0.0.0 lets other machines read it, see `tickpipe status`.")
]


class StartFailed(TickpipeError):
    """The stack did not start; the message names what stands in the way."""


def up(
    *,
    data_dir: DataDir = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when everything is ready.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="With a simulated EA: EURUSD and GBPUSD.")] = False,
    producer_host: _ProducerHost = "127.0.0.1",
    producer_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port that EAs post to; 0 takes a free one.")
    ] = 18_001,
    dashboard_host: _DashboardHost = "127.0.0.1",
    dashboard_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the chart; 0 takes 18080 if it is free.")
    ] = 0,
    postgres_host: _PostgresHost = "127.0.0.1",
    postgres_database: Annotated[str, typer.Option(help="Name of the database; a new name begins empty.")] = "market",
    postgres_reader: Annotated[str, typer.Option(help="Name of the role that may read, and do no more.")] = "reader",
    stream_workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that fold ticks.")] = 1,
    timeout: Annotated[float, typer.Option(min=1, help="With --detach: how long to wait (seconds).")] = 180.0,
) -> None:
    """Start Kafka, PostgreSQL and every service on this machine, without Docker.

    Everything lives in one data directory; other directories make other stacks beside it. The first start downloads
    Kafka. Ctrl-C stops everything cleanly, a second Ctrl-C kills it; with `--detach`, stop it with `tickpipe down`.

    Examples:

    * `tickpipe up --demo`
    * `tickpipe up --detach --producer-host 0.0.0.0`
    * `tickpipe up --data-dir ./second --producer-port 0`
    """
    from tickpipe.embedded.stack import StackConfig, run_stack, start_detached

    directory = data_directory(data_dir)
    _require_no_stack(directory)
    config = StackConfig(
        data_dir=directory,
        producer_host=producer_host,
        producer_port=producer_port,
        dashboard_host=dashboard_host,
        dashboard_port=dashboard_port,
        postgres_host=postgres_host,
        postgres_database=postgres_database,
        postgres_reader=postgres_reader,
        demo=demo,
        stream_workers=stream_workers,
    )
    watcher = _Watcher(config)
    try:
        if detach:
            _welcome(config, start_detached(config, timeout, watcher.tell))
            out.print(f"Stop it with: {program_name()} down{data_dir_option(directory)}", markup=False, soft_wrap=True)
        else:
            run_stack(config, watcher.tell_and_welcome)
            err.print("The stack is stopped.")
    except StackError as exc:
        raise StartFailed(str(exc)) from exc


def _require_no_stack(directory: Path) -> None:
    from tickpipe.embedded.state import is_locked

    if is_locked(directory):
        option = data_dir_option(directory)
        raise StackError(
            f"a stack runs on {directory} already: see `tickpipe status{option}`, or stop it with "
            f"`tickpipe down{option}`"
        )


class _Watcher:
    """Prints the events of the services, and the welcome when all of them are ready for the first time."""

    def __init__(self, config: "StackConfig") -> None:
        self._config = config
        self._started = time.monotonic()
        self._welcomed = False

    def tell(self, event: "StackEvent") -> None:
        if event.state in _UNSAID:
            return
        seconds = time.monotonic() - self._started
        style = _STYLES.get(event.state or "")
        name = event.service or "stack"
        message = event.message.removeprefix(f"{name} ")
        err.print(f"{seconds:7.1f} s  {name:<10} {message}", style=style, markup=False, soft_wrap=True)

    def tell_and_welcome(self, event: "StackEvent") -> None:
        self.tell(event)
        if event.state == "running" and not self._welcomed:
            state = stack_on(self._config.data_dir)
            if state is not None and state.is_ready:
                self._welcomed = True
                _welcome(self._config, state)
                out.print("Ctrl-C stops everything.")


def _welcome(config: "StackConfig", state: "StackState") -> None:
    option = data_dir_option(config.data_dir)
    program = program_name()
    tell_of_moved_page(config, state.dashboard_url)
    # With the demo EURUSD has a source already.
    symbol = "XAUUSD" if config.demo else "EURUSD"
    out.print("\n[bold green]Tickpipe runs.[/]")
    for what, value in (
        ("Chart", state.dashboard_url),
        ("Producer", state.producer_url),
        ("API docs", f"{state.producer_url}/docs"),
        ("API key", f"{state.api_key[:4]}…   ({program} status --key{option})"),
        ("Kafka", state.kafka_bootstrap),
        ("Database", f"{without_password(state.database_url)}   ({program} status --json{option})"),
        ("Logs", str(config.data_dir / "logs")),
    ):
        out.print(f"  {what:<10} {value}", markup=False, soft_wrap=True)
    out.print("\nPost a tick as an EA does:")
    out.print(
        f"  {curl_line(state.producer_url, f'$({program} status --key{option})', symbol)}", markup=False, soft_wrap=True
    )
    out.print("\nThen, in another terminal:")
    for command in (f"candles --symbol {symbol}", "status", "verify"):
        out.print(f"  {program} {command}{option}", markup=False, soft_wrap=True)
    out.print()


def tell_of_moved_page(config: "StackConfig", url: str) -> None:
    """Say that the chart is on another port than the one that is documented, unless the user chose that."""
    from tickpipe.embedded.services import DASHBOARD_PORT

    if config.dashboard_port == 0 and urlsplit(url).port not in (None, DASHBOARD_PORT):
        err.print(
            f"\nPort {DASHBOARD_PORT} is in use, so the chart is on {url} this time; "
            "choose its port with --dashboard-port.",
            style="bold yellow", markup=False, soft_wrap=True,
        )  # fmt: skip


def program_name() -> str:
    """How this program is called from a shell here: by its name where that finds it, else by its path."""
    ran = Path(sys.argv[0])
    found = shutil.which(ran.name)
    if found is not None and Path(found).resolve() == ran.resolve():
        return ran.name
    return shlex.quote(str(ran.absolute())) if ran.name == "tickpipe" else f"{shlex.quote(sys.executable)} -m tickpipe"


def curl_line(url: str, api_key: str, symbol: str) -> str:
    """A command that posts one tick of this moment, ready to paste into a shell; `api_key` may be a `$(…)` of it."""
    import msgspec

    from marketdata.contract.tick import posted_tick
    from marketdata.tick import Tick

    bid, ask = (2_650.25, 2_650.51) if symbol == "XAUUSD" else (1.16512, 1.16518)
    digits = 2 if symbol == "XAUUSD" else 5
    tick = Tick(clock.now_ms(), bid, ask, 0.0, 0.0, 6)
    body = msgspec.json.encode(
        {"ticks": [posted_tick(tick, symbol, digits=digits, point=float(f"1e-{digits}"))]}
    ).decode()
    words = ["-H", "Content-Type: application/json", "-d", body]
    return f'curl -sS {shlex.quote(f"{url}/ingest/tick")} -H "X-API-Key: {api_key}" {shlex.join(words)}'


def down(
    *,
    data_dir: DataDir = None,
    timeout: Annotated[float, typer.Option(min=1, help="How long to wait (seconds).")] = 60.0,
) -> None:
    """Stop the stack of the data directory; its data stays. Where none runs there is nothing to do.

    Examples:

    * `tickpipe down`
    * `tickpipe down --data-dir ./second`
    """
    from tickpipe.embedded.stack import stop_stack

    directory: Path = data_directory(data_dir)
    try:
        stopped = stop_stack(directory, timeout)
    except StackError as exc:
        raise StartFailed(str(exc)) from exc
    out.print("The stack is stopped." if stopped else f"No stack runs on {directory}.", markup=False, soft_wrap=True)
