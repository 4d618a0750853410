"""How the fold grows: over symbols, ticks a record, partitions, workers and the length of the history.

`python -m benchmarks.growth` measures all five, `python -m benchmarks.growth symbols frames` those that are named.
Every point has a topic of its own, filled before the clock runs.
"""

import argparse
import asyncio
import itertools
import signal
import uuid
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.curves import measure
from benchmarks.fold import STREAM_PORT, SYMBOLS, Record, folded, folding, measured, new_worker, records_of, write
from benchmarks.rounds import Contender, Measured
from benchmarks.services import wait_ready
from runtime.settings import Settings, load_settings
from tests.servers import EmbeddedServers

#: Ticks of each point, whatever is varied.
TICKS = 1_000_000

OVER_SYMBOLS = (1, 10, 100, 1_000, 10_000)
OVER_FRAMES = (1, 3, 10, 30, 100, 300, 1_000)
OVER_PARTITIONS = (1, 2, 3, 4)
OVER_WORKERS = (1, 2, 3, 4)
OVER_HISTORY = (250_000, 500_000, 1_000_000, 2_000_000, 4_000_000)

#: Of partitions and workers: enough symbols for equal shares, and frames that are written before a stopped worker is
#: missed.
MANY_SYMBOLS = [f"SYM{number}" for number in range(64)]
FRAME = 50


def topic(settings: Settings, name: str, partitions: int = 1) -> Settings:
    """The same servers with a topic of ticks of their own."""
    return settings.model_copy(update={"ticks_topic": f"ticks-{name}", "kafka_partitions": partitions})


def filled(settings: Settings, records: Iterable[Record], ticks: int) -> Contender:
    """The fold of a topic that holds these records."""
    asyncio.run(write(settings, records))
    return folding(settings, ticks)


def over_symbols(settings: Settings) -> dict[int, Contender]:
    """One tick a record, the same number of ticks in all."""
    return {
        count: filled(
            topic(settings, f"symbols-{count}"),
            records_of(TICKS // count, 1, [f"SYM{number}" for number in range(count)]),
            TICKS // count * count,
        )
        for count in OVER_SYMBOLS
    }


def over_frames(settings: Settings) -> dict[int, Contender]:
    """Eight symbols."""
    each = TICKS // len(SYMBOLS)
    return {
        size: filled(topic(settings, f"frames-{size}"), records_of(each, size, SYMBOLS), each * len(SYMBOLS))
        for size in OVER_FRAMES
    }


def over_history(settings: Settings) -> dict[int, Contender]:
    """Eight symbols, one tick a record, days and days."""
    return {
        ticks: filled(
            topic(settings, f"history-{ticks}"),
            records_of(ticks // len(SYMBOLS), 1, SYMBOLS),
            ticks // len(SYMBOLS) * len(SYMBOLS),
        )
        for ticks in OVER_HISTORY
    }


def over_partitions(settings: Settings) -> dict[int, Contender]:
    """One worker that owns all of them, one tick a record."""
    each = TICKS // len(MANY_SYMBOLS)
    return {
        count: filled(
            topic(settings, f"partitions-{count}", partitions=count),
            records_of(each, 1, MANY_SYMBOLS),
            each * len(MANY_SYMBOLS),
        )
        for count in OVER_PARTITIONS
    }


def over_workers(settings: Settings) -> dict[int, Contender]:
    """Four partitions; the workers share them before the ticks are there, so that none folds the share of another."""
    each = 4 * TICKS // len(MANY_SYMBOLS)
    records = list(records_of(each, FRAME, MANY_SYMBOLS))
    return {count: working(settings, count, records, each * len(MANY_SYMBOLS)) for count in OVER_WORKERS}


def working(settings: Settings, count: int, records: list[Record], ticks: int) -> Contender:
    """So many workers of one group."""
    numbers = itertools.count()

    def run() -> Measured:
        here = topic(settings, f"workers-{count}-{next(numbers)}", partitions=4)
        ports = [STREAM_PORT + number for number in range(count)]
        group = f"bench-{uuid.uuid4()}"
        with ExitStack() as stack:
            asyncio.run(write(here, ()))
            workers = [stack.enter_context(new_worker(here, port, group)) for port in ports]
            wait_ready(ports)
            for worker in workers:
                worker.send_signal(signal.SIGSTOP)
            asyncio.run(write(here, records))
            for worker in workers:
                worker.send_signal(signal.SIGCONT)

            def all_folded() -> float:
                return sum(map(folded, ports))

            return measured(ticks, workers, all_folded, all_folded)

    return run


CURVES: dict[str, tuple[str, Callable[[Settings], dict[int, Contender]], str]] = {
    "symbols": ("symbols", over_symbols, "A million ticks, one a record."),
    "frames": ("ticks a record", over_frames, "A million ticks of eight symbols."),
    "partitions": ("partitions", over_partitions, "A million ticks of 64 symbols, one a record; one worker."),
    "workers": ("workers", over_workers, f"Four million ticks of 64 symbols in frames of {FRAME}, four partitions."),
    "history": ("ticks in the log", over_history, "Eight symbols, one tick a record."),
}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", nargs="*", default=list(CURVES), metavar="CURVE", help=", ".join(CURVES))
    parser.add_argument("--rounds", type=int, default=3, help="of each point (default: 3)")
    options = parser.parse_args()
    if unknown := set(options.curves) - set(CURVES):
        parser.error(f"no such curve: {', '.join(sorted(unknown))}; there are {', '.join(CURVES)}")
    for name in options.curves:
        over, contenders, note = CURVES[name]
        with TemporaryDirectory() as directory, EmbeddedServers(Path(directory)) as servers:
            settings = load_settings(kafka_bootstrap=servers.kafka_bootstrap, database_url=servers.database_url)
            measure(f"growth-{name}", over, contenders(settings), rounds=options.rounds, notes=[note])


if __name__ == "__main__":
    main()
