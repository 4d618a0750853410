"""What each service holds in memory while a thousand symbols tick five times a second, and whether it grows.

`python -m benchmarks.memory --minutes 10` starts Kafka, PostgreSQL, the producer, one stream worker and the sink, posts
every 200 ms one tick of each symbol in bodies of 100, and looks at the resident sets every second. `growth` compares
the median of the last fifth of the run with that of the fifth in its middle, when every minute has been open once.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import httpx
import psutil
from rich.progress import Progress

from benchmarks.outcome import Beginning
from benchmarks.report import table_of
from benchmarks.rounds import peak_bytes
from benchmarks.services import serving
from runtime import clock
from tests.servers import EmbeddedServers

KEY = "benchmark"
SERVICES = ("producer", "stream_app", "sink")
#: The goals (bytes): what a small box has for each service.
GOALS = {"producer": 150_000_000, "stream_app": 200_000_000, "sink": 120_000_000}

TICKS_PER_SECOND = 5
TICKS_PER_BODY = 100


@dataclass(frozen=True)
class Held:
    """Resident sets of one service (bytes), one each second."""

    samples: list[int]
    peak_bytes: int

    @property
    def settled_bytes(self) -> float:
        """In the middle fifth of the run."""
        fifth = max(1, len(self.samples) // 5)
        middle = len(self.samples) // 2
        return median(self.samples[middle - fifth // 2 : middle + fifth // 2 + 1])

    @property
    def last_bytes(self) -> float:
        """In the last fifth of the run."""
        return median(self.samples[-max(1, len(self.samples) // 5) :])


def variables(servers: EmbeddedServers, directory: Path, ports: Mapping[str, int]) -> dict[str, str]:
    """What the services have to know."""
    return {
        "TICKPIPE_KAFKA_BOOTSTRAP": servers.kafka_bootstrap,
        "TICKPIPE_KAFKA_PARTITIONS": "1",
        "TICKPIPE_DATABASE_URL": servers.database_url,
        "TICKPIPE_API_KEYS": json.dumps({"bench": KEY}),
        "TICKPIPE_DATA_DIR": str(directory),
        "TICKPIPE_PRODUCER_HOST": "127.0.0.1",
        "TICKPIPE_LOG_LEVEL": "ERROR",
        "TICKPIPE_PRODUCER_PORT": str(ports["producer"]),
        "TICKPIPE_STREAM_PORT": str(ports["stream_app"]),
        "TICKPIPE_SINK_PORT": str(ports["sink"]),
    }


async def post_ticks(port: int, symbols: int, seconds: float) -> int:
    """One tick of each symbol at a time, `TICKS_PER_SECOND` times a second; how many were acknowledged."""
    began, acknowledged = time.monotonic(), 0
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
        for turn in range(int(seconds * TICKS_PER_SECOND)):
            await asyncio.sleep(max(0.0, began + turn / TICKS_PER_SECOND - time.monotonic()))
            if time.monotonic() - began > seconds:
                break
            price = 1.1 + turn % 100 / 100_000
            for first in range(0, symbols, TICKS_PER_BODY):
                count = min(TICKS_PER_BODY, symbols - first)
                body = {"ticks": [
                    {
                        "symbol": f"SYM{first + n}", "time_msc": clock.now_ms(), "bid": price,
                        "ask": price + 0.00002, "flags": 6, "digits": 5,
                    }
                    for n in range(count)
                ]}  # fmt: skip
                (await client.post("/ingest/tick", json=body, headers={"X-API-Key": KEY})).raise_for_status()
                acknowledged += count
    return acknowledged


async def watch(processes: dict[str, psutil.Process], seconds: float) -> dict[str, Held]:
    """The resident sets, looked at every second."""
    samples: dict[str, list[int]] = {name: [] for name in processes}
    with Progress() as progress:
        task = progress.add_task("measuring", total=seconds)
        for _ in range(int(seconds)):
            await asyncio.sleep(1)
            progress.advance(task)
            for name, process in processes.items():
                samples[name].append(process.memory_info().rss)
    return {name: Held(samples[name], peak_bytes(process)) for name, process in processes.items()}


async def measure(
    processes: dict[str, psutil.Process], port: int, symbols: int, seconds: float
) -> tuple[dict[str, Held], int]:
    """What the services held, and the ticks that were acknowledged meanwhile."""
    held, acknowledged = await asyncio.gather(watch(processes, seconds), post_ticks(port, symbols, seconds))
    return held, acknowledged


def show(held: dict[str, Held], symbols: int, ticks_per_second: float, beginning: Beginning) -> None:
    """Print and store."""
    heading = ["service", "settled MB", "last MB", "growth", "peak MB", "goal MB"]
    rows = [
        [
            name, f"{one.settled_bytes / 1e6:.0f}", f"{one.last_bytes / 1e6:.0f}",
            f"{one.last_bytes / one.settled_bytes - 1:+.1%}", f"{one.peak_bytes / 1e6:.0f}", f"{GOALS[name] / 1e6:.0f}",
        ]
        for name, one in held.items()
    ]  # fmt: skip
    minutes = len(next(iter(held.values())).samples) / 60
    lines = [
        *table_of(heading, rows), "",
        f"{symbols:,} symbols, {ticks_per_second:,.0f} ticks/s acknowledged, {minutes:.0f} minutes.",
    ]  # fmt: skip
    planned = symbols * TICKS_PER_SECOND
    if ticks_per_second < 0.95 * planned:
        lines.append(f"The machine did not keep up: {planned:,} ticks/s were meant to be posted.")
    figures = {
        "symbols": symbols,
        "ticks_per_second": ticks_per_second,
        "services": {name: asdict(one) for name, one in held.items()},
    }
    beginning.store("memory", lines, figures)


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of ticks (default: 10)")
    parser.add_argument("--symbols", type=int, default=1_000, help="that tick (default: 1000)")
    parser.add_argument("--port", type=int, default=18_995, help="of the producer; two more follow (default: 18995)")
    options = parser.parse_args()
    if options.minutes * 60 < 5:
        parser.error("--minutes: at least 0.1, for there must be fifths to compare")
    beginning = Beginning.now()
    seconds = options.minutes * 60
    ports = {service: options.port + n for n, service in enumerate(SERVICES)}
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedServers(Path(directory) / "servers") as servers,
        serving(ports, variables(servers, Path(directory), ports)) as processes,
    ):
        held, acknowledged = asyncio.run(measure(processes, options.port, options.symbols, seconds))
    show(held, options.symbols, acknowledged / seconds, beginning)


if __name__ == "__main__":
    main()
