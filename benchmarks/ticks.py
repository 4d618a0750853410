"""A day of ticks (137,000) out again: `GET /ticks` in each form, and `tickpipe ticks`, from Kafka and from the archive.

`python -m benchmarks.ticks`. Each request waits for the one before. CPU is that of the dashboard's process, or of the
command with its start.
"""

import argparse
import asyncio
import http.client
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from benchmarks.archive import emptied
from benchmarks.outcome import Beginning
from benchmarks.report import table_of
from runtime.logreader import wait_for_log
from runtime.settings import Settings
from sink.db.connection import connect
from sink.db.schema import migrate
from sink.metrics import Metrics
from sink.writer import LogEnds, Writer
from tests.conftest import own_settings
from tests.days import EURUSD_COUNT
from tests.integration.sink.flow import Flow, day_frames
from tests.servers import EmbeddedServers
from tests.services import environment, running
from tickpipe.replay.engine import set_offsets

QUERY = "symbol=EURUSD&from=2019-02-04&to=2019-02-05&limit=200000"

FORMS = ("arrow", "csv", "json")
COMMAND_FORMS = ("parquet", "csv", "json")


async def fill(settings: Settings) -> None:
    """Write the day to the log and its minutes to the table, as if workers and sink had done it."""
    await migrate(settings.database_url.get_secret_value())
    log_name = await wait_for_log(settings)
    async with Flow(settings, log_name) as flow, await connect(settings.database_url.get_secret_value()) as connection:
        logged = await flow.log_frames(day_frames())
        writer = Writer(LogEnds(settings, log_name), Metrics(CollectorRegistry()))
        await writer.write(connection, flow.candles(logged))
    await set_offsets(settings, settings.stream_group, {TopicPartition(settings.ticks_topic, 0): len(logged)})


def ask(address: str, path: str) -> tuple[float, float, int]:
    """Seconds to the first byte of the content and to the last, and how many bytes there are."""
    connection = http.client.HTTPConnection(address, timeout=120)
    begin = time.perf_counter()
    connection.request("GET", path)
    response = connection.getresponse()
    content = response.read1(1)
    first = time.perf_counter() - begin
    size = len(content) + len(response.read())
    if response.status != 200:
        raise SystemExit(f"{path}: {response.status}")
    connection.close()
    return first, time.perf_counter() - begin, size


def requests(settings: Settings, rounds: int) -> dict[str, dict[str, Any]]:
    """By form what `GET /ticks` takes."""
    found = {}
    with running(settings, "dashboard") as (dashboard,):
        process = psutil.Process(dashboard.pid)
        for form in FORMS:
            path = f"/ticks?{QUERY}&format={form}"
            ask(dashboard.url.removeprefix("http://"), path)
            one = []
            for _ in range(rounds):
                before = process.cpu_times()
                first, whole, size = ask(dashboard.url.removeprefix("http://"), path)
                after = process.cpu_times()
                one.append((first, whole, after.user + after.system - before.user - before.system))
            firsts, wholes, cpus = map(list, zip(*one, strict=True))
            found[f"GET /ticks, {form}"] = {"first": firsts, "whole": wholes, "cpu": cpus, "bytes": size}
        found["dashboard"] = {"peak_mb": dashboard.peak_memory_mb()}
    return found


def commands(settings: Settings, rounds: int) -> dict[str, dict[str, Any]]:
    """By format what `tickpipe ticks` takes."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for form in COMMAND_FORMS:
            output = Path(folder) / form
            command = [sys.executable, "-m", "tickpipe", "ticks", "-s", "EURUSD", "--from", "2019-02-04"]
            command += ["--to", "2019-02-05", "--format", form, "--output", str(output)]
            wholes, cpus = [], []
            for _ in range(rounds):
                begin, before = time.perf_counter(), os.times()
                subprocess.run(command, env=environment(settings), check=True, stdout=subprocess.DEVNULL)  # noqa: S603
                after = os.times()
                wholes.append(time.perf_counter() - begin)
                cpus.append(after.children_user + after.children_system - before.children_user - before.children_system)
            found[f"command, {form}"] = {"whole": wholes, "cpu": cpus, "bytes": output.stat().st_size}
    return found


def _ms(seconds: list[float] | None) -> str:
    if not seconds:
        return ""
    return f"{median(seconds) * 1000:.0f} / {quantiles(seconds, n=20)[-1] * 1000:.0f}"


def lines_of(figures: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """The figures as Markdown."""
    rows = [
        [what, place, _ms(one.get("first")), _ms(one["whole"]), _ms(one["cpu"]), f"{one['bytes'] / 1e6:.1f}"]
        for place, of_place in figures.items()
        for what, one in of_place.items()
        if what != "dashboard"
    ]
    head = ["a day of ticks", "read from", "first byte, p50 / p95, ms", "whole, ms", "CPU, ms", "MB"]
    return [*table_of(head, rows), ""]


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="requests of each form (default: 20)")
    parser.add_argument("--commands", type=int, default=3, help="runs of the command in each format (default: 3)")
    options = parser.parse_args()
    beginning, figures = Beginning.now(), {}
    with tempfile.TemporaryDirectory() as directory, EmbeddedServers(Path(directory) / "servers") as servers:
        warm = own_settings(servers, "bench_ticks", data_dir=Path(directory) / "data", kafka_partitions=1)
        asyncio.run(fill(warm))
        cold = warm.model_copy(
            update={"archive": str(Path(directory) / "cold"), "archive_flush_seconds": 1}
        )  # fmt: skip
        for place, settings in {"Kafka": warm, "the archive": cold}.items():
            if settings is cold:
                asyncio.run(emptied(cold))
            figures[place] = requests(settings, options.rounds)
            print(*lines_of(figures), sep="\n")
            if options.commands:
                figures[place] |= commands(settings, options.commands)
    beginning.store("ticks", lines_of(figures), {"ticks": EURUSD_COUNT, "figures": figures})


if __name__ == "__main__":
    main()
