"""What one honest sender notices while another floods the producer: `python -m benchmarks.flood`.

Starts Kafka and a producer. A sender of its own address posts a tick fifty times a second, first alone and then beside
each flood, which comes from another address and from another process. Of each are stored the times of the sender's
requests, how many of them were refused, and the largest resident set of the producer; `--store` writes them to
docs/flood.json, and `python -m tests.faults.record` puts that into docs/reliability.md.
"""

import argparse
import asyncio
import gzip
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil
from rich.console import Console

from benchmarks.machine import busy_cores, this_machine
from benchmarks.services import serving
from tests.faults.record import FLOOD
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.waiting import wait_until

SENDER_KEY, FLOOD_KEY = "key-of-the-sender", "key-of-the-flood"

#: The sender's pace (seconds).
PACE_SECONDS = 0.02

#: Loopback addresses: what one address may have is bounded.
SENDER, FLOOD_FROM = "127.0.0.1", "127.0.0.2"


@dataclass(frozen=True)
class Noticed:
    """One flood, as the sender saw it."""

    flood: str
    #: Pieces that the flood has written meanwhile: requests, or lines of headers.
    pieces: int
    requests: int
    refused: int
    p50_ms: float
    p99_ms: float
    longest_ms: float
    memory_mb: int


def request(body: bytes, key: str, *lines: bytes, length: int | None = None) -> bytes:
    """A POST of ticks; `length` says another one than the body has."""
    size = len(body) if length is None else length
    head = (b"POST /ingest/tick HTTP/1.1", b"Host: flood", b"X-API-Key: " + key.encode(), *lines)
    return b"\r\n".join(head) + b"\r\nContent-Length: %d\r\n\r\n" % size + body


class Counter(Protocol):
    """How many pieces a flood has written, as both processes see it."""

    value: int


async def again_and_again(
    port: int, written: Counter, connections: int, piece: bytes, *, pause_seconds: float = 0.0
) -> None:
    """Write the piece over so many connections, each after the other's answer or pause; open again what is closed."""

    async def one() -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(FLOOD_FROM, 0))
                try:
                    while not (writer.is_closing() or reader.at_eof()):
                        writer.write(piece)
                        await writer.drain()
                        written.value += 1
                        if pause_seconds:
                            await asyncio.sleep(pause_seconds)
                        elif not await reader.read(65_536):
                            break
                finally:
                    writer.close()
            await asyncio.sleep(0.01)

    await asyncio.gather(*(one() for _ in range(connections)))


_TICK = b'{"symbol":"B","bid":1.1,"ask":1.2,"ts_msc":1760926800417}'

#: What is sent, over how many connections, and how long each waits for the next piece.
FLOODS: dict[str, Callable[[int, Counter], Coroutine[Any, Any, None]]] = {
    "wrong keys": lambda port, written: again_and_again(port, written, 16, request(_TICK, "wrong")),
    "2,500 connections that say nothing": lambda port, written: again_and_again(
        port, written, 2_500, b"", pause_seconds=5
    ),
    "500 heads, a header every second": lambda port, written: again_and_again(
        port, written, 500, b"X-A: b\r\n", pause_seconds=1
    ),
    "headers without end": lambda port, written: again_and_again(
        port, written, 16, b"X-A: " + b"b" * 60 + b"\r\n", pause_seconds=1e-9
    ),
    "800 bodies that never come": lambda port, written: again_and_again(
        port, written, 800, request(b"", FLOOD_KEY, length=1_000), pause_seconds=30
    ),
    "60 kB of unterminated strings": lambda port, written: again_and_again(
        port, written, 8, request(b'"' * 60_000, FLOOD_KEY)
    ),
    "gzip of 70 MB of spaces": lambda port, written: again_and_again(
        port, written, 4, request(gzip.compress(b" " * 70_000_000, 9), FLOOD_KEY)
    ),
    "gzip of 16 MB of quotation marks": lambda port, written: again_and_again(
        port, written, 4, request(gzip.compress(b"[" + b'"' * 16_000_000 + b"]", 9), FLOOD_KEY)
    ),
    "bodies of 2,000 ticks": lambda port, written: again_and_again(
        port, written, 8, request(b"[" + b",".join([_TICK] * 2_000) + b"]", FLOOD_KEY)
    ),
}


def flood(name: str, port: int, written: Counter) -> None:
    """Run a flood until the process is ended."""
    asyncio.run(FLOODS[name](port, written))


async def notice(name: str, port: int, seconds: float, producer: psutil.Process, written: Counter) -> Noticed:
    """What the sender and the producer's memory show for so long."""
    times: list[float] = []
    refused, peak, before = 0, 0, written.value
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(SENDER, 0))
    ends = time.monotonic() + seconds
    number = 0
    while (began := time.monotonic()) < ends:
        number += 1
        tick = b'{"symbol":"A","bid":1.1,"ask":1.2,"ts_msc":%d}' % (1_760_926_800_000 + number)
        writer.write(request(tick, SENDER_KEY))
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
        times.append(time.monotonic() - began)
        refused += not head.startswith(b"HTTP/1.1 200")
        peak = max(peak, producer.memory_info().rss)
        await asyncio.sleep(max(0.0, PACE_SECONDS - times[-1]))
    writer.close()
    p50, p99, longest = (
        round(seconds * 1_000, 1)
        for seconds in (statistics.median(times), statistics.quantiles(times * 2, n=100)[98], max(times))
    )
    return Noticed(name, written.value - before, len(times), refused, p50, p99, longest, round(peak / 1e6))


def measured(name: str, port: int, seconds: float, producer: psutil.Process) -> Noticed:
    """One flood, or none of an unknown name, and what was noticed while it ran."""
    spawning = multiprocessing.get_context("spawn")
    written: Counter = spawning.Value("q", lock=False)
    process = spawning.Process(target=flood, args=(name, port, written), daemon=True)
    if name in FLOODS:
        process.start()
        wait_until(lambda: written.value > 0, what="a flood that has begun")
        time.sleep(1)
    try:
        return asyncio.run(notice(name, port, seconds, producer, written))
    finally:
        if name in FLOODS:
            process.kill()
            process.join()
            time.sleep(1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="of each flood (default: 15)")
    parser.add_argument("--only", choices=tuple(FLOODS), nargs="+", help="these floods; all, unless given")
    parser.add_argument("--store", action="store_true", help="write docs/flood.json")
    options = parser.parse_args()
    console, port = Console(), free_port()
    with tempfile.TemporaryDirectory() as directory, EmbeddedServers(Path(directory)) as servers:
        variables = {
            "TICKPIPE_KAFKA_BOOTSTRAP": servers.kafka_bootstrap,
            "TICKPIPE_API_KEYS": json.dumps({"sender": SENDER_KEY, "flood": FLOOD_KEY}),
            "TICKPIPE_PRODUCER_HOST": "127.0.0.1",
            "TICKPIPE_PRODUCER_PORT": str(port),
            "TICKPIPE_LOG_LEVEL": "ERROR",
        }
        with serving({"producer": port}, variables) as processes:
            found = []
            for name in ("nobody else", *(options.only or FLOODS)):
                found.append(measured(name, port, options.seconds, processes["producer"]))
                console.print(found[-1])
    stored = {"machine": str(this_machine()), "busy_cores": round(busy_cores(), 1), "floods": list(map(asdict, found))}
    if options.store and not options.only:
        FLOOD.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
