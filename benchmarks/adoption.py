"""`tickpipe db adopt` of a million rows of an older table, against a bare COPY of the same rows, in turn.

`python -m benchmarks.adoption`. A round is of a database of its own on one PostgreSQL. The adoption counts without the
start of its process; CPU is that of the benchmark's process and of PostgreSQL's.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil
import psycopg

from benchmarks.rounds import Measured, NotMeasured, cpu_seconds, run_rounds
from sink.db.adoption import adopt
from tests.integration.sink.db.editions import database_on
from tests.operations.older_table import make_older_table
from tests.servers import EmbeddedServers

ROWS: Final = 1_000_000


def copy(url: str) -> None:
    """A bare COPY of the table into another of its shape."""
    with (
        psycopg.connect(url) as reading,
        psycopg.connect(url) as writing,
    ):
        writing.execute("CREATE TABLE yardstick (LIKE market_data INCLUDING INDEXES)")
        with (
            reading.cursor().copy("COPY market_data TO STDOUT") as source,
            writing.cursor().copy("COPY yardstick FROM STDIN") as target,
        ):
            for data in source:
                target.write(data)


def taken_over(url: str) -> None:
    """The adoption, which stores every row."""
    found = asyncio.run(adopt(url, "Old", []))
    if found.stored != ROWS:
        raise NotMeasured(f"{found.stored} of {ROWS} rows were stored")


def contender(database_url: str, work: Callable[[str], None]) -> Callable[[], Measured]:
    """A round of the work on a new older table."""
    # The processes of PostgreSQL are children of a process of this one's.
    this = psutil.Process()

    def run() -> Measured:
        with database_on(database_url) as url:
            make_older_table(url, ROWS)
            before, began = cpu_seconds(this), time.perf_counter()
            work(url)
            wall = time.perf_counter() - began
            return Measured(wall, cpu_seconds(this) - before, this.memory_info().rss, ROWS)

    return run


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (default: 5)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers(Path(folder)) as servers:
        contenders = {"bare COPY": contender(servers.database_url, copy)}
        contenders["tickpipe db adopt"] = contender(servers.database_url, taken_over)
        run_rounds("adoption", contenders, rounds=options.rounds, unit="rows")


if __name__ == "__main__":
    main()
