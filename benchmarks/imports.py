"""What `tickpipe import` posts a second on one core, against what the producer accepts in bodies of 200 ticks.

`python -m benchmarks.imports` starts Kafka and one process of the producer, as `benchmarks.ingest` does, and sends it
bodies of 200 ticks over 64 connections, and imports files of as many ticks in turn: CSV, MetaTrader's export, Parquet,
and an EA's archive. CPU seconds are those of the importing process alone, its start included, and those of the producer
where the bodies are sent to it. An import reads some batches ahead of the request that is on its way; the next one goes
when the last was answered.

With `--gigabytes 10` one file of that size is imported instead, into the producer, and every ten seconds what both
hold is looked at. Kafka's records are deleted meanwhile, so that only the file takes space. After `--minutes` the
import is ended, and what was seen until then is stored.
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psutil
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition
from pyarrow import csv, parquet

from benchmarks.ingest import KEY, SERVER, TICKS, body_of, posting, variables
from benchmarks.outcome import Beginning
from benchmarks.report import table_of
from benchmarks.rounds import Contender, Measured, cpu_seconds, peak_bytes, run_rounds
from benchmarks.services import serving
from tests.servers import EmbeddedServers

#: 2019-02-04, of which each tick is 97 ms after the last (epoch milliseconds).
FIRST_MSC = 1_549_238_400_000
STEP_MS = 97

#: What an import may hold whatever the size of the file (bytes).
HELD_GOAL_BYTES = 200_000_000

#: Seconds between two looks at what is held, and lines that are written at a time.
LOOK_SECONDS = 10.0
BLOCK_LINES = 10_000


class Look(NamedTuple):
    """What an import and the producer had read, held and used at one time."""

    seconds: float
    read_bytes: int
    importer_bytes: int
    producer_bytes: int
    importer_cpu: float
    producer_cpu: float


class Held(NamedTuple):
    """One import of a large file: the looks at it, its exit code, and what it printed."""

    looks: list[Look]
    code: int | None
    output: str


def csv_lines(ticks: int) -> Iterator[str]:
    """Ticks as scripts write them."""
    yield "time_msc,bid,ask\n"
    for number in range(ticks):
        bid = 1.14 + number * 7 % 500 / 1e5
        yield f"{FIRST_MSC + number * STEP_MS},{bid:.5f},{bid + 0.00002:.5f}\n"


def metatrader_lines(ticks: int) -> Iterator[str]:
    """The same as MetaTrader 5 exports them."""
    yield "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\n"
    for number in range(ticks):
        second, ms = divmod(FIRST_MSC + number * STEP_MS, 1000)
        bid = 1.14 + number * 7 % 500 / 1e5
        at = datetime.fromtimestamp(second, UTC).strftime("%Y.%m.%d\t%H:%M:%S")
        yield f"{at}.{ms:03d}\t{bid:.5f}\t{bid + 0.00002:.5f}\t\t\t6\n"


def write_files(folder: Path, ticks: int) -> dict[str, Path]:
    """The files that are imported, by what they are."""
    files = {
        "CSV": folder / "EURUSD-ticks.csv",
        "MetaTrader's export": folder / "EURUSD_201902040000_201902052359.csv",
        "Parquet": folder / "EURUSD.parquet",
        "an EA's archive": folder / "PDC_outbound_20190204.jsonl",
    }
    csv_path, metatrader, columns, archive = files.values()
    for path, lines in ((csv_path, csv_lines), (metatrader, metatrader_lines)):
        with path.open("w") as file:
            file.writelines(lines(ticks))
    parquet.write_table(csv.read_csv(csv_path), columns)
    with archive.open("wb") as file:
        for number in range(ticks // TICKS):
            file.write(b'{"ts":"2019-02-04T00:00:00Z","kind":"tick","body":%b}\n' % body_of(number, TICKS))
    return files


def write_quotes(path: Path, size_bytes: int) -> int:
    """Quotes as Polygon's flat files have them, until the file has that size; how many."""
    quotes = 0
    with path.open("wb") as file:
        file.write(
            b"ticker,ask_exchange,ask_price,ask_size,bid_exchange,bid_price,bid_size,conditions,indicators,"
            b"participant_timestamp,sequence_number,sip_timestamp,tape,trf_timestamp\n"
        )
        while file.tell() < size_bytes:
            lines = []
            for number in range(quotes, quotes + BLOCK_LINES):
                bid, at = 17_010 + number * 7 % 500, (FIRST_MSC + number * STEP_MS) * 1_000_000
                lines.append(
                    b"AAPL,12,%d.%02d,3,11,%d.%02d,2,1,604,%d,%d,%d,3,0\n"
                    % (*divmod(bid + 2, 100), *divmod(bid, 100), at + 356_417, number, at + 512_933)
                )
            file.write(b"".join(lines))
            quotes += BLOCK_LINES
    return quotes


def importing(path: Path, port: int, ticks: int) -> Contender:
    """One import of the file by a process of its own."""
    command = [sys.executable, "-m", "tickpipe", "import", str(path), "--key", KEY]

    def run() -> Measured:
        began, peak, ended, status = time.monotonic(), 0, 0, 0
        process = subprocess.Popen(  # noqa: S603 - our own
            [*command, "--url", f"http://127.0.0.1:{port}"], stdout=subprocess.DEVNULL
        )
        while not ended:
            # What wait4 tells as the peak may be that of this process, which the new one was forked from.
            # Its children, which it has none of, are not looked for: that reads all of /proc and slows the import.
            peak = max(peak, peak_bytes(psutil.Process(process.pid), alone=True))
            time.sleep(0.02)
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"the import ended with code {process.returncode}")
        return Measured(time.monotonic() - began, used.ru_utime + used.ru_stime, peak, ticks)

    return run


async def delete_records(bootstrap: str, until: asyncio.Event) -> None:
    """Delete every half a minute what the topic of ticks holds."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        while not until.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), 30)
            described = await admin.describe_topics(["ticks"])
            partitions = [part["partition"] for topic in described for part in topic["partitions"]]
            await admin.delete_records(
                {TopicPartition("ticks", partition): RecordsToDelete(-1) for partition in partitions}
            )
    finally:
        await admin.close()


async def watch_import(path: Path, port: int, bootstrap: str, producer: psutil.Process, minutes: float) -> Held:
    """Import the file, and look at what the import and the producer hold."""
    done = asyncio.Event()
    deleting = asyncio.create_task(delete_records(bootstrap, done))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tickpipe", "import", str(path), "--key", KEY, "--url", f"http://127.0.0.1:{port}",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    output = asyncio.create_task(process.communicate())
    importer, looks, began = psutil.Process(process.pid), [], time.monotonic()
    try:
        while process.returncode is None:
            with suppress(psutil.Error):
                read = next((f.position for f in importer.open_files() if Path(f.path) == path), 0)
                looks.append(Look(
                    time.monotonic() - began, read, importer.memory_info().rss, producer.memory_info().rss,
                    cpu_seconds(importer), cpu_seconds(producer),
                ))  # fmt: skip
                print(looks[-1], flush=True)
            if time.monotonic() - began > minutes * 60:
                process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), LOOK_SECONDS)
    finally:
        done.set()
        await deleting
    return Held(looks, process.returncode, (await output)[0].decode())


def hold(gigabytes: float, minutes: float, port: int) -> None:
    """Import a file of that size; print and store what was held."""
    beginning = Beginning.now()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, EmbeddedServers(Path(directory)) as servers:
        path = Path(directory) / "quotes.csv"
        quotes = write_quotes(path, int(gigabytes * 1e9))
        known = variables(servers.kafka_bootstrap, port) | {"TICKPIPE_KAFKA_PARTITIONS": "1"}
        with serving({"producer": port}, known) as processes:
            held = asyncio.run(watch_import(path, port, servers.kafka_bootstrap, processes["producer"], minutes))
    confirmed = max((int(found.replace(",", "")) for found in re.findall(r"([0-9,]+) ticks", held.output)), default=0)
    print(held.output)
    step = max(1, len(held.looks) // 10)
    rows = [
        [
            f"{look.seconds:,.0f}", f"{look.read_bytes / 1e9:.2f}", f"{look.importer_bytes / 1e6:.0f}",
            f"{look.producer_bytes / 1e6:.0f}", f"{look.importer_cpu:,.0f}", f"{look.producer_cpu:,.0f}",
        ]
        for look in [*held.looks[:-1][::step], held.looks[-1]]
    ]  # fmt: skip
    peak = max(look.importer_bytes for look in held.looks)
    lines = [
        *table_of(["after s", "read GB", "import MB", "producer MB", "import CPU s", "producer CPU s"], rows), "",
        f"{quotes:,} quotes in {gigabytes:g} GB; "
        # An import that was ended after --minutes does not tell.
        f"{f'{confirmed:,} confirmed; ' if confirmed else ''}the import ended with code {held.code}; "
        f"its largest resident set was {peak / 1e6:.0f} MB, the goal is {HELD_GOAL_BYTES / 1e6:.0f}.",
    ]  # fmt: skip
    figures = {"quotes": quotes, "gigabytes": gigabytes, "confirmed": confirmed, "code": held.code}
    beginning.store("imports-held", lines, figures | {"looks": [look._asdict() for look in held.looks]})


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=1_000_000, help="of a file (default: 1000000)")
    parser.add_argument("--bodies", type=int, default=3_000, help="of 200 ticks in a round (default: 3000)")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default: 5)")
    parser.add_argument("--port", type=int, default=18_993, help="of the measured server (default: 18993)")
    parser.add_argument("--gigabytes", type=float, help="import one file of this size and see what is held")
    parser.add_argument("--minutes", type=float, default=600.0, help="after which that is stopped (default: 600)")
    options = parser.parse_args()
    if options.gigabytes:
        hold(options.gigabytes, options.minutes, options.port)
        return
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedServers(Path(directory)) as servers,
        serving({SERVER: options.port}, variables(servers.kafka_bootstrap, options.port)) as processes,
    ):
        bodies = [body_of(number, TICKS) for number in range(options.bodies)]
        contenders = {
            "bodies of 200 ticks": posting(processes[SERVER], options.port, "/ingest/tick", bodies, TICKS),
            **{
                f"import of {name}": importing(path, options.port, options.ticks)
                for name, path in write_files(Path(directory), options.ticks).items()
            },
        }
        run_rounds("imports", contenders, rounds=options.rounds, unit="ticks", ours=list(contenders)[1:])


if __name__ == "__main__":
    main()
