"""What the relay stores and forwards a second, against the same work without the relay's part.

`python -m benchmarks.relay` measures requests of one tick over 64 connections against a route of the same server that
does nothing, and then forwarding on one core against reading the rows alone. What measures shares the machine.
"""

import argparse
import asyncio
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil

from benchmarks.rounds import Contender, Measured, cpu_seconds, peak_bytes, run_rounds
from marketdata.contract.times import Clock
from relay.api import Api
from relay.forwarder import BATCH, Forwarder
from relay.item import read_item
from relay.pending import COLUMNS, Pending
from relay.server import Server
from relay.service import http_server
from relay.store import Store
from runtime.settings import load_settings
from tests.ports import free_port

CONNECTIONS = 64

#: A tick as DataCollectorPRO posts it.
TICK = (
    b'{"ts":"2025-10-20T02:20:00Z","symbol":"EURUSD","bid":1.165120,"ask":1.165180,"last":0.000000,"volume":0,"flags":6,'
    b'"ts_msc":%d,"digits":5,"point":0.000010,"spread":0.000060,"meta":{"ea":"PDC","ver":"1.65","src":"tick",'
    b'"acct":12345,"srv":"Broker-Demo","build":3850}}'
)
FIRST_MSC = 1_760_926_800_000

#: What confirms a request without counting its items.
_QUEUED = b'{"ok":true,"queued":true}'
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: application/json\r\n\r\n%b" % (len(_QUEUED), _QUEUED)


# --- requests of one tick -------------------------------------------------------------------------------------------


def serve(db: Path, port: int) -> None:
    """The relay's server, with the route /empty beside its own."""
    with Store(db) as store:
        api = Api(store, load_settings())

        async def app(
            scope: MutableMapping[str, Any],
            receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
            send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
        ) -> None:
            if scope["path"] != "/empty":
                return await api(scope, receive, send)
            await receive()
            headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            return await send({"type": "http.response.body", "body": b"{}"})

        http_server(app, "127.0.0.1", port).run()


async def post_all(port: int, path: str, requests: int) -> None:
    """So many requests of one tick over the connections, each after the answer to the one before."""
    times = itertools.count(FIRST_MSC)
    left = iter(range(requests))

    async def post() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in left:
            body = b'{"ticks":[%b]}' % (TICK % next(times))
            writer.write(b"POST %b HTTP/1.1\r\nHost: relay\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)))
            writer.write(body)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"the relay answered {head.decode()}")
            await reader.readexactly(_length(head))
        writer.close()

    await asyncio.gather(*(post() for _ in range(CONNECTIONS)))


def posting(process: psutil.Process, port: int, path: str, requests: int) -> Contender:
    """Requests to one route of a running server."""

    def run() -> Measured:
        cpu, began = cpu_seconds(process), time.monotonic()
        asyncio.run(post_all(port, path, requests))
        wall = time.monotonic() - began
        return Measured(wall, cpu_seconds(process) - cpu, process.memory_info().rss, requests)

    return run


# --- forwarding -----------------------------------------------------------------------------------------------------


async def only_read(port: int) -> None:
    """A server that reads each request and knows nothing of it."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):  # the sender has closed
            while True:
                await reader.readexactly(_length(await reader.readuntil(b"\r\n\r\n")))
                writer.write(_OK)
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", port) as server:
        await server.serve_forever()


async def fill(store: Store, ticks: int) -> None:
    """Ticks of 8 symbols, in requests of 100."""
    clock = Clock(None, None)
    for start in range(0, ticks, 100):
        rows = []
        for n in range(start, start + 100):
            item = msgspec.json.decode(TICK % (FIRST_MSC + n)) | {"symbol": f"SYM{n % 8}"}
            rows.append(read_item(item, clock, utc_offset_seconds=None, source=None))
        await store.insert(rows)


def one_core(db: Path, url: str = "", packed: str = "") -> tuple[float, float, int, int]:
    """Read, or forward when there is an address, everything on one core: wall and CPU seconds, peak bytes, rows."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    process, done = psutil.Process(), 0
    with Store(db) as store:
        cpu, began = cpu_seconds(process), time.monotonic()
        if url:
            with Server(url, "key", packs_nearby=bool(packed)) as server:
                forwarder = Forwarder(store, server, Pending(store, f"bench {time.time_ns()}", limit=BATCH))
                while sent := forwarder.step():
                    done += sent
        else:
            query = f"SELECT {COLUMNS} FROM ticks WHERE id > ? ORDER BY id LIMIT {BATCH}"  # noqa: S608  # constants
            last = 0
            while page := store.connection.execute(query, [last]).fetchall():
                last = page[-1][0]
                done += len(page)
        return time.monotonic() - began, cpu_seconds(process) - cpu, peak_bytes(process), done


def forwarding(db: Path, *how: str) -> Contender:
    """A process that does it once."""

    def run() -> Measured:
        done = _own("--one-core", str(db), *how)
        output, _ = done.communicate(timeout=300)
        wall, cpu, peak, rows = map(float, output.split())
        return Measured(wall, cpu, int(peak), int(rows))

    return run


# --- running --------------------------------------------------------------------------------------------------------


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


def _own(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"NO_PROXY": "*", "TICKPIPE_LOG_LEVEL": "ERROR"}
    command = [sys.executable, "-m", "benchmarks.relay", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603  # our own


@contextmanager
def _running(port: int, *arguments: str) -> Iterator[psutil.Process]:
    process = _own(*arguments)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                asyncio.run(_connect(port))
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit("the server did not start") from None
                time.sleep(0.05)
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


async def _connect(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000, help="requests of a round (default: 20000)")
    parser.add_argument("--ticks", type=int, default=200_000, help="ticks to forward in a round (default: 200000)")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default: 5)")
    parser.add_argument("--serve", nargs=2, metavar=("DB", "PORT"), help=argparse.SUPPRESS)
    parser.add_argument("--only-read", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--one-core", nargs="+", metavar="DB", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.serve[0]), int(options.serve[1]))
    elif options.only_read:
        asyncio.run(only_read(options.only_read))
    elif options.one_core:
        print(*one_core(Path(options.one_core[0]), *options.one_core[1:]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            measure(Path(directory), options)


def measure(directory: Path, options: argparse.Namespace) -> None:
    """Both comparisons."""
    port = free_port()
    with _running(port, "--serve", str(directory / "requests.db"), str(port)) as process:
        contenders = {
            "a route that does nothing": posting(process, port, "/empty", options.requests),
            "one tick stored": posting(process, port, "/ingest/tick", options.requests),
        }
        run_rounds("relay-requests", contenders, rounds=options.rounds, unit="requests")
    with Store(directory / "forward.db") as store:
        asyncio.run(fill(store, options.ticks))
    with _running(port, "--only-read", str(port)):
        contenders = {
            "reading the rows alone": forwarding(directory / "forward.db"),
            "forwarding, plain": forwarding(directory / "forward.db", f"http://127.0.0.1:{port}"),
            "forwarding, packed": forwarding(directory / "forward.db", f"http://127.0.0.1:{port}", "packed"),
        }
        run_rounds("relay-forwarding", contenders, rounds=options.rounds, unit="ticks")


if __name__ == "__main__":
    main()
