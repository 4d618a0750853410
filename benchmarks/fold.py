"""The fold stage against reading alone: one partition, one worker, a day of ticks as 8 symbols.

`python -m benchmarks.fold` folds one tick per record; `--frame 200` folds frames of 200.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from aiokafka import TopicPartition

from benchmarks.peers.installed import CONFLUENT, python_with
from benchmarks.rounds import Measured, cpu_seconds, measured_child, peak_bytes, run_rounds
from marketdata.tick import DAY_MS, Frame
from marketdata.wire import encode, frame_key
from runtime.kafka import log_ends, new_consumer, new_producer
from runtime.settings import Settings, load_settings
from runtime.topics import wait_for_kafka
from tests import plainhttp
from tests.days import EURUSD_COUNT, eurusd_ticks
from tests.servers import EmbeddedServers
from tests.services import environment as environment_of

_READ_WITH_CONFLUENT = Path(__file__).parent / "peers" / "read_with_confluent.py"

SYMBOLS = [f"SYM{i}" for i in range(8)]
STREAM_PORT = 18_992

#: A worker that shows no progress for so long has failed (seconds).
STALL_SECONDS = 60.0

#: How often a service is asked how far it is (seconds). It answers in the process that is measured: fifty times a
#: second took a fifth of the sink's time.
ASK_SECONDS = 0.1


#: Key and value of a record.
Record = tuple[bytes, bytes]


def records_of(ticks_per_symbol: int, frame_size: int, symbols: Sequence[str]) -> Iterator[Record]:
    """Frames of the generated day's ticks for each symbol; every lap of the day is a day later."""
    ticks, day = eurusd_ticks() * 2, len(eurusd_ticks())
    for start in range(0, ticks_per_symbol, frame_size):
        shift_ms = start // day * DAY_MS
        part = [
            type(tick)(tick.time_msc + shift_ms, tick.bid, tick.ask, 0.0, 0.0, 6)
            for tick in ticks[start % day : start % day + min(frame_size, ticks_per_symbol - start)]
        ]
        for symbol in symbols:
            frame = Frame(
                v=1, source="bench", symbol=symbol, mode="bid", point=0.00001, request=f"r{start:012}",
                received=1_700_000_000_000, ticks=part,
            )  # fmt: skip
            yield frame_key("bench", symbol), encode(frame)


async def write(settings: Settings, records: Iterable[Record]) -> None:
    """Write records to the ticks topic, which is made when it is not there."""
    await wait_for_kafka(settings)
    producer = new_producer(settings, linger_ms=20, max_batch_size=256 * 1024)
    await producer.start()
    for key, value in records:
        await producer.send(settings.ticks_topic, value, key=key)
    await producer.stop()


def folding(settings: Settings, ticks: int) -> Callable[[], Measured]:
    """A worker process with a group of its own, from the first tick it folded to the last."""

    def run() -> Measured:
        with new_worker(settings) as worker:
            return measured(ticks, [worker])

    return run


@contextmanager
def new_worker(settings: Settings, port: int = STREAM_PORT, group: str = "") -> Iterator[psutil.Process]:
    """A worker process that folds the topic from its beginning, in a group of its own unless `group` names one."""
    changed = {"stream_group": group or f"bench-{uuid.uuid4()}", "stream_port": port, "log_level": "ERROR"}
    environment = environment_of(settings.model_copy(update=changed))
    process = subprocess.Popen([sys.executable, "-m", "stream_app"], env=environment)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def measured(
    ticks: int,
    processes: Sequence[psutil.Process],
    done: Callable[[], float] | None = None,
    begun: Callable[[], float] | None = None,
) -> Measured:
    """What `processes` spent from the first tick that `begun` counts until `done` counts all; by default the fold.

    Raises:
        SystemExit: when a count stands still.
    """
    before = until_counted(begun or folded, 1, 0.0)
    began, cpu_before = time.monotonic(), sum(map(cpu_seconds, processes))
    until_counted(done or folded, ticks, before)
    wall = time.monotonic() - began
    cpu = sum(map(cpu_seconds, processes)) - cpu_before
    return Measured(wall, cpu, sum(map(peak_bytes, processes)), ticks - int(before))


def until_counted(
    count: Callable[[], float], enough: int, seen: float = 0.0, *, every_seconds: float = ASK_SECONDS
) -> float:
    """Wait until the count is enough; what it is then.

    Raises:
        SystemExit: when the count stands still.
    """
    moved = time.monotonic()
    while (counted := count()) < enough:
        if counted > seen:
            seen, moved = counted, time.monotonic()
        if time.monotonic() - moved > STALL_SECONDS:
            raise SystemExit(f"{counted:,.0f} of {enough:,} are done and nothing moves")
        time.sleep(every_seconds)
    return counted


def folded(port: int = STREAM_PORT) -> float:
    """Ticks that the worker on that port has folded; 0 while it does not answer."""
    try:
        text = plainhttp.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
    except httpx.HTTPError:
        return 0.0
    return next(
        (float(line.split()[1]) for line in text.splitlines() if line.startswith("tickpipe_stream_ticks_total")), 0.0
    )


def reading(settings: Settings, ticks: int) -> Callable[[], Measured]:
    """aiokafka reading the same records in a process of its own and doing nothing with them."""

    def run() -> Measured:
        command = [sys.executable, "-m", "benchmarks.fold", "--read", settings.kafka_bootstrap]
        return measured_child(command, ticks)[0]

    return run


def reading_by_confluent(settings: Settings, ticks: int) -> Callable[[], Measured]:
    """librdkafka reading the same records by confluent-kafka's `consume(n)`, in an environment of its own."""

    def run() -> Measured:
        python = python_with(CONFLUENT, (3, 13))
        command = [python, str(_READ_WITH_CONFLUENT), settings.kafka_bootstrap, settings.ticks_topic]
        return measured_child(command, ticks)[0]

    return run


async def read_alone(settings: Settings) -> tuple[float, float, int]:
    """Read the whole topic; wall seconds, CPU seconds, peak bytes."""
    consumer = new_consumer(settings, max_poll_records=5_000)
    ends = await log_ends(settings, settings.ticks_topic)
    await consumer.start()
    tp = TopicPartition(settings.ticks_topic, 0)
    consumer.assign([tp])
    await consumer.seek_to_beginning(tp)
    process, seen = psutil.Process(), 0
    began, cpu_before = time.monotonic(), cpu_seconds(process)
    while seen < ends[0][1]:
        for batch in (await consumer.getmany(timeout_ms=1_000)).values():
            seen = batch[-1].offset + 1
    outcome = time.monotonic() - began, cpu_seconds(process) - cpu_before, peak_bytes(process)
    await consumer.stop()
    return outcome


def arguments(description: str | None, child: str = "") -> argparse.Namespace:
    """Of the command line; `child` is the hidden option by which the benchmark calls itself with a broker's address."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frame", type=int, default=1, help="ticks of one record (default: 1)")
    parser.add_argument(
        "--ticks", type=int, default=EURUSD_COUNT, help="ticks of each of the 8 symbols (default: one day)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default: 5)")
    if child:
        parser.add_argument(child, metavar="BOOTSTRAP", help=argparse.SUPPRESS)
    return parser.parse_args()


@contextmanager
def filled(options: argparse.Namespace) -> Iterator[tuple[Settings, int]]:
    """Settings of servers whose topic of one partition holds the ticks that are asked for, and their number."""
    with tempfile.TemporaryDirectory() as directory, EmbeddedServers(Path(directory)) as servers:
        settings = load_settings(
            kafka_bootstrap=servers.kafka_bootstrap, database_url=servers.database_url, kafka_partitions=1
        )
        asyncio.run(write(settings, records_of(options.ticks, options.frame, SYMBOLS)))
        yield settings, options.ticks * len(SYMBOLS)


def main() -> None:
    """Measure, print, store."""
    options = arguments(__doc__, "--read")
    if options.read:
        print(*asyncio.run(read_alone(load_settings(kafka_bootstrap=options.read))))
        return
    with filled(options) as (settings, ticks):
        contenders = {
            "reading alone": reading(settings, ticks),
            "reading alone, confluent-kafka": reading_by_confluent(settings, ticks),
            "fold": folding(settings, ticks),
        }
        run_rounds(f"fold-frames-of-{options.frame}", contenders, rounds=options.rounds, unit="ticks")


if __name__ == "__main__":
    main()
