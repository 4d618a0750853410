"""How long it takes to be back: after kill -9 over open minutes, and after an hour without the stream worker.

`python -m benchmarks.recovery` measures both; `kill` or `outage` one of them. A worker that was killed folds every open
minute again from its first tick on, so the time grows with the records that came since the oldest open minute began.
"""

import argparse
import asyncio
import itertools
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.curves import measure
from benchmarks.fold import Record, folded, new_worker, until_counted, write
from benchmarks.growth import topic
from benchmarks.replay import replaying, running_sink
from benchmarks.rounds import Contender, Measured, cpu_seconds, peak_bytes
from marketdata.tick import MINUTE_MS, Frame, Tick, period_of
from marketdata.wire import encode, frame_key
from runtime import clock
from runtime.settings import Settings, load_settings
from tests.servers import EmbeddedServers

#: Records of open minutes, of a thousand symbols.
OVER_RECORDS = (1_000, 10_000, 100_000, 300_000)
SYMBOLS = 1_000

#: Symbols that tick once a second for the hour.
OVER_SYMBOLS = (10, 100, 1_000)
HOUR_SECONDS = 3_600

#: Monday 2024-03-04 00:00 UTC (epoch milliseconds).
LONG_AGO_MS = 1_709_510_400_000


def single_ticks(symbols: int, each: int, first_ms: int, step_ms: int) -> Iterator[Record]:
    """One tick a record: `each` of every symbol, all symbols in turn."""
    for number in range(each):
        tick = Tick(first_ms + number * step_ms, 1.1 + number % 100 / 100_000, 1.2, 0.0, 0.0, 6)
        for symbol in range(symbols):
            name = f"SYM{symbol}"
            frame = Frame(
                v=1, source="bench", symbol=name, mode="bid", point=0.00001, request=f"r{number}",
                received=first_ms, ticks=[tick],
            )  # fmt: skip
            yield frame_key("bench", name), encode(frame)


def killed(settings: Settings, records: int) -> Contender:
    """From the start of the next process until all open minutes are in its memory again."""
    numbers = itertools.count()

    def run() -> Measured:
        # With a lasting name, as the deployments give it: the group does not wait for the dead one.
        here = topic(settings, f"kill-{records}-{next(numbers)}").model_copy(update={"stream_instance": "bench"})
        group = f"bench-{uuid.uuid4()}"
        # The clock does not reach the minute while this runs, so it stays open.
        ahead_ms = period_of(clock.now_ms()) + 3 * MINUTE_MS
        asyncio.run(write(here, single_ticks(SYMBOLS, records // SYMBOLS, ahead_ms, 1)))
        with new_worker(here, group=group):
            until_counted(folded, records, every_seconds=0.02)
            # Long enough for candles and commits to be out.
            time.sleep(2)
        began = time.monotonic()
        with new_worker(here, group=group) as worker:
            until_counted(folded, records, every_seconds=0.02)
            wall = time.monotonic() - began
            return Measured(wall, cpu_seconds(worker), peak_bytes(worker), records)

    return run


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("kill", "outage"), help="by default both")
    parser.add_argument("--rounds", type=int, default=3, help="of each point (default: 3)")
    options = parser.parse_args()
    with TemporaryDirectory() as directory, EmbeddedServers(Path(directory)) as servers:
        settings = load_settings(kafka_bootstrap=servers.kafka_bootstrap, database_url=servers.database_url)
        if options.what != "outage":
            kills = {records: killed(settings, records) for records in OVER_RECORDS}
            measure(
                "recovery-kill", "records of open minutes", kills, rounds=options.rounds,
                notes=["From the start of the process until a thousand open minutes are as they were."],
                seconds="seconds to recover",
            )  # fmt: skip
        if options.what != "kill":
            topics = {count: topic(settings, f"outage-{count}") for count in OVER_SYMBOLS}
            for count, here in topics.items():
                asyncio.run(write(here, single_ticks(count, HOUR_SECONDS, LONG_AGO_MS, 1_000)))
            # It waits for the log that it is told to read, which has to be one of these.
            with running_sink(topics[OVER_SYMBOLS[0]]) as sink:
                outages = {count: replaying(here, sink, count * HOUR_SECONDS) for count, here in topics.items()}
                measure(
                    "recovery-outage", "symbols", outages, rounds=options.rounds,
                    notes=["An hour of one tick a second of each symbol, until the last of it is in a row."],
                    seconds="seconds to catch up",
                )  # fmt: skip


if __name__ == "__main__":
    main()
