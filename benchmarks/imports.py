"""What `tickpipe import` posts a second on one core, against what the producer accepts in bodies of 200 ticks.

`python -m benchmarks.imports` starts Kafka and one process of the producer, as `benchmarks.ingest` does, and sends it
bodies of 200 ticks over 64 connections, a file of CSV and MetaTrader's export of the same ticks in turn. CPU seconds
are those of the importing process alone, its start included, and those of the producer where the bodies are sent to it.
An import reads some batches ahead of the request that is on its way; the next one goes when the last was answered.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks.ingest import KEY, SERVER, TICKS, body_of, posting, variables
from benchmarks.rounds import Contender, Measured, peak_bytes, run_rounds
from benchmarks.services import serving
from tests.servers import EmbeddedServers

#: 2019-02-04, of which each tick is 97 ms after the last (epoch milliseconds).
FIRST_MSC = 1_549_238_400_000
STEP_MS = 97


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


def importing(path: Path, port: int, ticks: int) -> Contender:
    """One import of the file by a process of its own."""
    command = [sys.executable, "-m", "tickpipe", "import", str(path), "--symbol", "EURUSD", "--key", KEY]

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


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=1_000_000, help="of a file (default: 1000000)")
    parser.add_argument("--bodies", type=int, default=3_000, help="of 200 ticks in a round (default: 3000)")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default: 5)")
    parser.add_argument("--port", type=int, default=18_993, help="of the measured server (default: 18993)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedServers(Path(directory)) as servers,
        serving({SERVER: options.port}, variables(servers.kafka_bootstrap, options.port)) as processes,
    ):
        files = {name: Path(directory) / f"{name}.csv" for name in ("csv", "metatrader")}
        for path, lines in zip(files.values(), (csv_lines, metatrader_lines), strict=True):
            with path.open("w") as file:
                file.writelines(lines(options.ticks))
        bodies = [body_of(number, TICKS) for number in range(options.bodies)]
        contenders = {
            "bodies of 200 ticks": posting(processes[SERVER], options.port, "/ingest/tick", bodies, TICKS),
            "import of CSV": importing(files["csv"], options.port, options.ticks),
            "import of MetaTrader's export": importing(files["metatrader"], options.port, options.ticks),
        }
        run_rounds("imports", contenders, rounds=options.rounds, unit="ticks", ours=list(contenders)[1:])


if __name__ == "__main__":
    main()
