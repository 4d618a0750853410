"""`tickpipe relay serve`: the local API in the foreground, the forwarder in a thread of its own."""

import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import uvicorn

from marketdata.errors import SettingsError
from relay.api import KEY_VARIABLE, Api
from relay.back_channel import Reports, Wishes
from relay.collector import Collector
from relay.damage import is_damaged
from relay.database import explained, forwarding_alone, storing_alone
from relay.forwarder import BATCH, Forwarder, Retention
from relay.pending import Pending
from relay.server import Server
from relay.store import Store
from runtime.addresses import is_loopback, require_listenable
from runtime.asgi import OwnNames
from runtime.health import Guard, Health
from runtime.request_body import Application
from runtime.serving import KEEP_ALIVE_SECONDS, run_server, server_config
from runtime.settings import Settings

log = structlog.get_logger(__name__)

#: Pause after an unexpected error (seconds).
_AFTER_FAILURE_SECONDS: Final = 10.0

#: How long a thread may hold the interpreter while another wants it (seconds).
_SWITCH_SECONDS: Final = 0.001

#: Requests under way get this long to finish (seconds).
_GRACEFUL_SECONDS: Final = 5
_COLLECTOR_SECONDS: Final = 2


def serve(
    settings: Settings,
    db: Path,
    *,
    host: str,
    port: int,
    server: Server | None,
    retention_seconds: float | None,
    collect: Callable[[Store], Collector] | None = None,
) -> int:
    """Serve until Ctrl-C or SIGTERM; the exit code. `retention_seconds` is as for `Retention`.

    `collect` makes what takes ticks from this PC's terminal, in a thread of its own.

    Raises:
        SettingsError: when the address can be reached by others and there is no key, or cannot be listened on.
        StoreUnusable, StoreUnavailable: when the database cannot be opened, or another relay has it.
    """
    key = _key_of_senders(host)
    health = Health()
    guard = Guard(health)
    alone = nullcontext() if server is None else forwarding_alone(db)
    with Store(db, guard=guard) as store, storing_alone(db), alone:
        stop, forwarder, wishes = threading.Event(), None, Wishes()
        if server is not None:
            retention = Retention(store, retention_seconds)
            forwarder = _forwarder(store, server, retention, wishes, stop)
        totals, url = (forwarder.totals, forwarder.server_url) if forwarder else (None, "")
        collector = collect(store) if collect else None
        if collector is not None:
            collector.fill(wishes)
        collected = collector.collected if collector else None
        api = Api(
            store, settings, key=key, totals=totals, health=health, server_url=url, collected=collected, wishes=wishes
        )
        require_listenable(host, port)
        http = http_server(OwnNames(api, settings.allowed_hosts), host, port)
        threads = []
        if forwarder:
            # Whatever is under way at the end is sent again at the next start.
            threads.append((guard.thread("forwarder", partial(_forward, forwarder, store, stop)), _GRACEFUL_SECONDS))
        if collector is not None:
            # A call of the terminal may wait for its broker; what it would have brought is read at the next start.
            threads.append((guard.thread("collector", partial(collector.run, stop)), _COLLECTOR_SECONDS))
        for thread, _ in threads:
            thread.start()
        # Two threads work at each request; with Python's 5 ms they wait for each other longer than for the disk.
        sys.setswitchinterval(_SWITCH_SECONDS)
        log.info(
            f"EAs post to http://{host}:{port}/ingest/tick; ticks are in {db}, "
            + (f"and go on to {server.url}. {retention.plan()}" if server else "and stay there (no --forward)."),
            action="relay_started",
        )
        try:
            return run_server(http, guard)
        finally:
            stop.set()
            if forwarder is not None:
                forwarder.wake.set()
            for thread, seconds in reversed(threads):
                thread.join(seconds)
            store.end_reading()
            api.close()


def _forwarder(store: Store, server: Server, retention: Retention, wishes: Wishes, stop: threading.Event) -> Forwarder:
    server.can_fill, server.on_answer = wishes.has_sender, wishes.take
    pending = Pending(store, limit=BATCH)
    forwarder = Forwarder(store, server, pending, stop=stop, retention=retention, reports=Reports(store, wishes.counts))
    store.on_insert = forwarder.wake.set
    return forwarder


def _key_of_senders(host: str) -> str:
    key = os.environ.get(KEY_VARIABLE, "")
    if not key and not is_loopback(host):
        raise SettingsError(
            f"{host} can be reached from other machines, so senders must show a key: set {KEY_VARIABLE},"
            " or leave out --host to serve this machine only"
        )
    return key


def _forward(forwarder: Forwarder, store: Store, stop: threading.Event) -> None:
    is_current = True
    while not stop.is_set():
        try:
            if not is_current:
                # It has rows in hand that are not confirmed; to go on with it would leave them out.
                forwarder.pending = Pending(store, limit=BATCH)
                is_current = True
            forwarder.run()
        except Exception as exc:
            is_current = False
            is_disk = isinstance(exc, sqlite3.DatabaseError)
            text = str(explained(exc)) if is_disk else f"forwarding failed ({exc!r})"
            forwarder.totals.fail(text, "store" if is_disk else "failed")
            log.error(
                f"{text} Forwarding begins again where it was confirmed.", action="forward_failed",
                exc_info=None if is_disk else exc,
            )  # fmt: skip
            if is_damaged(exc):
                store.mend()
            stop.wait(_AFTER_FAILURE_SECONDS)


def http_server(api: Application, host: str, port: int) -> uvicorn.Server:
    """A server of `api`, not started."""
    config = server_config(
        api, host, port,
        graceful_seconds=_GRACEFUL_SECONDS, extensions=False, lifespan="off", timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )  # fmt: skip
    return uvicorn.Server(config)
