"""How many live streams one dashboard serves: how far behind its clients are, and what they cost.

`python -m benchmarks.fanout` starts Kafka, PostgreSQL and all services, posts ticks of eight symbols at a steady rate
and opens more and more streams of all of them (`GET /stream`). The lag of an event is from the tick's own time, when it
was posted, to the moment at which a client has read it, so it holds the whole way. The clients share the machine.
"""

import argparse
import asyncio
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import quantiles

import psutil
from rich.console import Console

from benchmarks.ingest import read_answer, request_of, tick_of
from benchmarks.memory import SERVICES, variables
from benchmarks.outcome import Beginning
from benchmarks.report import table_of
from benchmarks.rounds import cpu_seconds
from benchmarks.services import serving
from runtime import clock
from tests.servers import EmbeddedServers

CLIENTS = (1, 50, 200, 500)
SYMBOLS = 8

#: Events of the first seconds are not counted: connections open (seconds).
WARM_UP_SECONDS = 3.0

#: The newest tick of a candle as the stream tells it.
_LAST_TICK = re.compile(rb'"last_tick":"([^"]+)"')


@dataclass(frozen=True)
class Row:
    """Of so many streams at once."""

    clients: int
    #: Events of a client in a second.
    events: float
    #: Lags (seconds).
    p50: float
    p99: float
    most: float
    #: Of the dashboard (cores).
    cores: float

    @property
    def clients_a_core(self) -> float:
        """As many streams as would fill a core at this rate."""
        return self.clients / self.cores


async def follow(port: int, lags: list[float], until: float, counts_from: float) -> None:
    """Read one stream to the end of the round and note the lag of each event (seconds).

    Raises:
        SystemExit: when the dashboard refuses the stream.
    """
    incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
    outgoing.write(b"GET /stream HTTP/1.1\r\nHost: bench\r\n\r\n")
    head = await incoming.readuntil(b"\r\n\r\n")
    first = head.split(b"\r\n")[0].decode()
    if " 200 " not in first:
        raise SystemExit(f"the dashboard refused a stream: {first}")
    while (now := time.time()) < until:
        try:
            piece = await asyncio.wait_for(incoming.read(1 << 20), until - now)
        except TimeoutError:
            break
        if (now := time.time()) >= counts_from:
            lags += [now - datetime.fromisoformat(text.decode()).timestamp() for text in _LAST_TICK.findall(piece)]
    outgoing.close()


async def post(port: int, rate: int, until: float) -> None:
    """A tick of each symbol in one request, so many requests a second.

    Raises:
        SystemExit: when one is refused.
    """
    incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
    began, turn = time.time(), 0
    while time.time() < until:
        ticks = b",".join(tick_of(number, clock.now_ms()) for number in range(SYMBOLS))
        outgoing.write(request_of(b'{"ticks":[%b]}' % ticks))
        await read_answer(incoming)
        turn += 1
        await asyncio.sleep(max(0.0, began + turn / rate - time.time()))
    outgoing.close()


async def round_of(clients: int, ports: dict[str, int], dashboard: psutil.Process, rate: int, seconds: float) -> Row:
    """Ticks and streams together for some seconds."""
    counts_from = time.time() + WARM_UP_SECONDS
    until = counts_from + seconds
    lags: list[float] = []

    async def processor() -> float:
        await asyncio.sleep(max(0.0, counts_from - time.time()))
        before = cpu_seconds(dashboard)
        await asyncio.sleep(seconds)
        return (cpu_seconds(dashboard) - before) / seconds

    using = asyncio.create_task(processor())
    await asyncio.gather(
        post(ports["producer"], rate, until),
        *(follow(ports["dashboard"], lags, until, counts_from) for _ in range(clients)),
    )
    if len(lags) < 100:
        raise SystemExit(f"{clients} streams told of {len(lags)} candles alone in {seconds:.0f} s")
    percentiles = quantiles(lags, n=100)
    return Row(clients, len(lags) / clients / seconds, percentiles[49], percentiles[98], max(lags), await using)


def lines_of(rows: Sequence[Row], rate: int) -> list[str]:
    """The table and what was done, as Markdown."""
    cells = [
        [
            f"{row.clients:,}", f"{row.events:.0f}",
            *(f"{lag * 1000:.0f}" for lag in (row.p50, row.p99, row.most)),
            f"{row.cores:.2f}", f"{row.clients_a_core:,.0f}",
        ]
        for row in rows
    ]  # fmt: skip
    heading = ["streams", "events a second, each", "p50 ms", "p99 ms", "most ms", "cores", "streams a core"]
    return [
        *table_of(heading, cells), "",
        f"{rate} ticks a second of each of {SYMBOLS} symbols, all of which each stream follows; the lag is from a "
        "tick's POST to the client.",
    ]  # fmt: skip


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=10, help="ticks a second of each symbol (default: 10)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each round, after its start (default: 15)")
    parser.add_argument("--port", type=int, default=18_975, help="of the producer; three more follow (default: 18975)")
    options = parser.parse_args()
    beginning, rows = Beginning.now(), []
    ports = {service: options.port + n for n, service in enumerate((*SERVICES, "dashboard"))}
    with tempfile.TemporaryDirectory() as directory, EmbeddedServers(Path(directory)) as servers:
        streams = {
            "TICKPIPE_DASHBOARD_PORT": str(ports["dashboard"]),
            # Half of them may come from one address.
            "TICKPIPE_DASHBOARD_MAX_STREAMS": str(2 * max(CLIENTS)),
        }
        with serving(ports, variables(servers, Path(directory), ports) | streams) as services:
            for clients in CLIENTS:
                row = asyncio.run(round_of(clients, ports, services["dashboard"], options.rate, options.seconds))
                Console().print(row, highlight=False)
                rows.append(row)
    beginning.store(
        "fanout", lines_of(rows, options.rate), {"rate": options.rate, "rows": [asdict(row) for row in rows]}
    )


if __name__ == "__main__":
    main()
