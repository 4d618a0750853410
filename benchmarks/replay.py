"""A replay end to end against the fold alone: from the first tick that is folded to the last row that is stored.

`python -m benchmarks.replay` replays one tick per record; `--frame 200` frames of 200. Producer and EA are out of
it: the ticks are in the log, the group's offset is the beginning, the table is empty, the sink waits.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import psycopg

from benchmarks.fold import arguments, filled, folding, measured, new_worker
from benchmarks.rounds import Measured, run_rounds
from benchmarks.services import serving
from runtime.settings import Settings
from sink.progress import with_sink_group
from tests.kafka_log import group_lag
from tests.services import environment

SINK_PORT = 18_991


@contextmanager
def running_sink(settings: Settings) -> Iterator[psutil.Process]:
    """The process of a sink on these servers, once it is ready."""
    chosen = settings.model_copy(update={"sink_port": SINK_PORT, "log_level": "ERROR"})
    with serving({"sink": SINK_PORT}, environment(chosen)) as processes:
        yield processes["sink"]


def replaying(settings: Settings, sink: psutil.Process, ticks: int) -> Callable[[], Measured]:
    """A worker with a group of its own and the sink that runs, until every tick is in a row."""

    def run() -> Measured:
        with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:

            def stored() -> float:
                row = connection.execute("SELECT coalesce(sum(volume), 0)::float8 FROM market_data").fetchone()
                return float(row[0]) if row else 0.0

            # Candles of the round before may still be on their way.
            group = asyncio.run(with_sink_group(settings)).sink_group
            while asyncio.run(group_lag(settings, group, settings.candles_topic)):
                time.sleep(0.2)
            connection.execute("TRUNCATE market_data, pending_refolds")
            with new_worker(settings) as worker:
                outcome = measured(ticks, [worker, sink], stored)
            if stored() != ticks:
                raise SystemExit("the rows do not hold every tick of the topic once")
        return outcome

    return run


def main() -> None:
    """Measure, print, store."""
    options = arguments(__doc__)
    with filled(options) as (settings, ticks), running_sink(settings) as sink:
        contenders = {
            "fold": folding(settings, ticks),
            "replay end to end": replaying(settings, sink, ticks),
        }
        run_rounds(f"replay-frames-of-{options.frame}", contenders, rounds=options.rounds, unit="ticks")


if __name__ == "__main__":
    main()
