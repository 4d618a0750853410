"""`tickpipe relay`: the Windows side, which stores an EA's ticks on this machine and forwards them."""

# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tickpipe.console import DONE, PROBLEM, out
from tickpipe.relay.export import export
from tickpipe.relay.options import (
    Db,
    Extra,
    ForwardTo,
    Host,
    Keep,
    KeyFile,
    LogFile,
    broker_offset,
    duration,
    existing,
    key_of,
    say,
    settings_for,
)

app = typer.Typer(no_args_is_help=True, help="Store an EA's ticks on this machine and forward them to the server.")


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
    with Extra():
        from relay.server import Server
        from relay.service import serve as run

    with settings_for(log_file) as settings:
        if forward_to is None:
            raise typer.Exit(run(settings, db, host=host, port=port, server=None, retention_seconds=keep))
        with Server(forward_to, key_of(key_file)) as server:
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

    It needs the official package, which the kit for the trading PC installs, and a terminal that is logged in. It does
    all that `tickpipe relay serve` does as well; run one of the two on a file.

    Examples:

    * `tickpipe relay collect --db C:\\ticks\\ea.db --forward https://ticks.example.com --key-file key.txt`
    * `tickpipe relay collect --symbols "EURUSD,XAU*" --since 7d`
    """
    with Extra():
        from relay.collector import Collector
        from relay.server import Server
        from relay.service import serve as run
        from relay.terminal import Terminal, official_package

    offset = broker_offset(clock)
    wanted = [name.strip() for name in symbols.split(",") if name.strip()]
    with settings_for(log_file) as settings:
        reads = Terminal(official_package(), terminal)
        collector = partial(Collector, terminal=reads, wanted=wanted, since_seconds=since, offset=offset)
        with nullcontext() if forward_to is None else Server(forward_to, key_of(key_file)) as server:
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
    with Extra():
        from relay.back_channel import Reports
        from relay.database import forwarding_alone
        from relay.forwarder import BATCH, Forwarder, Retention
        from relay.pending import Pending
        from relay.server import Server
        from relay.store import Store

    with (
        settings_for(log_file),
        Server(to, key_of(key_file)) as server,
        Store(existing(db)) as store,
        forwarding_alone(db),
    ):
        rows = Retention(store, keep)
        say(f"{db} goes to {server.url}. {rows.plan()}", log_file)
        forwarder = Forwarder(store, server, Pending(store, limit=BATCH), retention=rows, reports=Reports(store))
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
    with Extra():
        from relay.api import KEY_VARIABLE
        from relay.server import Server, check_relay
        from relay.server import check as run

    is_good = True
    with Server(to, key_of(key_file), user_agent="tickpipe-check") as server:
        nearby = check_relay(relay, server.url, os.environ.get(KEY_VARIABLE, "")) if relay else ()
        for finding in (*nearby, *run(server, source)):
            is_good = is_good and finding.is_good
            sign = "ok   " if finding.is_good else "WRONG"
            out.print(f"{sign} {finding.what}: {finding.text}", markup=False, soft_wrap=True)
    raise typer.Exit(DONE if is_good else PROBLEM)


app.command()(export)
