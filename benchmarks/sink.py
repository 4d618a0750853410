"""The sink against a bare binary COPY of the same rows and an upsert row by row, into a table with the same columns.

`python -m benchmarks.sink` writes the candles of 8 symbols to the topic once; in every round each contender begins with
an empty table. The sink is measured from its first candle to its last, with Kafka and PostgreSQL on the same machine.
"""

import argparse
import asyncio
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import httpx
import psutil
import psycopg
from psycopg.types.multirange import Int8Multirange
from psycopg.types.range import Int8Range

from benchmarks.fold import measured
from benchmarks.rounds import Contender, Measured, cpu_seconds, peak_bytes, run_rounds
from benchmarks.services import wait_ready
from marketdata.candle import Candle
from marketdata.offsets import spans
from marketdata.wire import candle_key, encode
from runtime.kafka import new_producer
from runtime.settings import Settings, load_settings
from runtime.topics import ensure_topics, wait_for_kafka
from sink.db.schema import migrate
from sink.times import utc
from tests import plainhttp
from tests.servers import EmbeddedServers

SYMBOLS = [f"SYM{i}" for i in range(8)]
SINK_PORT = 18_993
FIRST_MS = 1_704_067_200_000
MINUTE_MS = 60_000

_COLUMNS = (
    "ts, symbol, timeframe, open, high, low, close, volume, real_volume, spread, source, origin, closed, first_tick, "
    "last_tick, log, offsets, received_at"
)
_TYPES = (
    "timestamptz", "text", "text", "float8", "float8", "float8", "float8", "int8", "float8", "int4", "text", "text",
    "bool", "timestamptz", "timestamptz", "text", "int8multirange", "timestamptz",
)  # fmt: skip
_UPSERT = f"""
    INSERT INTO bare ({_COLUMNS}) VALUES ({", ".join(["%s"] * len(_TYPES))})
    ON CONFLICT (symbol, timeframe, ts, source) DO UPDATE SET
        open = EXCLUDED.open, high = EXCLUDED.high, low = EXCLUDED.low, close = EXCLUDED.close,
        volume = EXCLUDED.volume, closed = EXCLUDED.closed, offsets = EXCLUDED.offsets
"""  # noqa: S608 - constants of ours


def candles(count: int, log: str) -> Iterator[Candle]:
    """As a replay publishes them: minute after minute, each minute once."""
    for n in range(count):
        minute, place = divmod(n, len(SYMBOLS))
        ts, price = FIRST_MS + minute * MINUTE_MS, 1.1 + (minute % 1000) / 100_000
        yield Candle(
            source="bench", symbol=SYMBOLS[place], ts=ts, open=price, high=price + 0.0002, low=price - 0.0002,
            close=price + 0.0001, volume=95, real_volume=0.0, spread=2, first_tick=ts + 10, last_tick=ts + 59_900,
            log=log, offsets=((0, minute * 95, minute * 95 + 94),), closed=True, received=ts + 60_000,
            emitted=ts + 60_100,
        )  # fmt: skip


def row(candle: Candle) -> tuple[object, ...]:
    """The row of `market_data`."""
    offsets = Int8Multirange([Int8Range(first, last + 1) for first, last in spans(candle.offsets)])
    return (
        utc(candle.ts), candle.symbol, "M1", candle.open, candle.high, candle.low, candle.close, candle.volume,
        candle.real_volume, candle.spread, candle.source, "ticks", candle.closed, utc(candle.first_tick),
        utc(candle.last_tick), candle.log, offsets, utc(candle.received),
    )  # fmt: skip


async def fill(settings: Settings, count: int) -> str:
    """Write the candles to the topic; returns the log that they name."""
    await wait_for_kafka(settings)
    log = f"{await ensure_topics(settings)}/{settings.ticks_topic}"
    producer = new_producer(settings, linger_ms=20, max_batch_size=256 * 1024, compression_type="lz4")
    await producer.start()
    for candle in candles(count, log):
        await producer.send(settings.candles_topic, encode(candle), key=candle_key(candle))
    await producer.stop()
    return log


#: Runs while the process of this pid works.
During = Callable[[int], AbstractContextManager[None]]


def sinking(settings: Settings, count: int, during: During = lambda _: nullcontext()) -> Contender:
    """The sink's process with a group of its own, into the empty `market_data`."""
    numbers = itertools.count()
    url = settings.database_url.get_secret_value()

    def run() -> Measured:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("TRUNCATE market_data, sink_progress")
        environment = os.environ | {
            "TICKPIPE_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "TICKPIPE_KAFKA_PARTITIONS": "1",
            "TICKPIPE_DATABASE_URL": url,
            "TICKPIPE_SINK_GROUP": f"bench-{os.getpid()}-{next(numbers)}",
            "TICKPIPE_SINK_PORT": str(SINK_PORT),
            "TICKPIPE_LOG_LEVEL": "ERROR",
        }
        process = subprocess.Popen([sys.executable, "-m", "sink"], env=environment)
        try:
            wait_ready([SINK_PORT])
            with during(process.pid):
                return measured(count, [psutil.Process(process.pid)], _stored, _stored)
        finally:
            process.terminate()
            process.wait()

    return run


def _stored() -> float:
    try:
        text = plainhttp.get(f"http://127.0.0.1:{SINK_PORT}/metrics", timeout=5).text
    except httpx.HTTPError:
        return 0.0
    name = 'tickpipe_sink_rows_total{action="inserted"}'
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)), 0.0)


def copying(url: str, rows: list[tuple[object, ...]]) -> Contender:
    """COPY in PostgreSQL's binary form, in one transaction."""

    def load(connection: psycopg.Connection) -> None:
        with connection.cursor().copy(f"COPY bare ({_COLUMNS}) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(_TYPES)
            for one in rows:
                copy.write_row(one)

    return _loading(url, load, len(rows))


def upserting(url: str, rows: list[tuple[object, ...]]) -> Contender:
    """`executemany` of an upsert, a thousand rows a transaction."""

    def load(connection: psycopg.Connection) -> None:
        for start in range(0, len(rows), 1_000):
            connection.cursor().executemany(_UPSERT.encode(), rows[start : start + 1_000])
            connection.commit()

    return _loading(url, load, len(rows))


def _loading(url: str, load: Callable[[psycopg.Connection], None], count: int) -> Contender:
    def run() -> Measured:
        with psycopg.connect(url) as connection:
            connection.execute("DROP TABLE IF EXISTS bare")
            connection.execute("CREATE TABLE bare (LIKE market_data INCLUDING ALL)")
            connection.commit()
            process = psutil.Process()
            began, cpu_before = time.monotonic(), cpu_seconds(process, alone=True)
            load(connection)
            connection.commit()
            wall = time.monotonic() - began
            cpu = cpu_seconds(process, alone=True) - cpu_before
            return Measured(wall, cpu, peak_bytes(process, alone=True), count)

    return run


@contextmanager
def prepared(count: int) -> Iterator[tuple[Settings, str]]:
    """Settings of servers with so many candles in their topic and an empty table, and the log that the candles name."""
    with tempfile.TemporaryDirectory() as directory, EmbeddedServers(Path(directory)) as servers:
        settings = load_settings(
            kafka_bootstrap=servers.kafka_bootstrap, database_url=servers.database_url, kafka_partitions=1
        )
        asyncio.run(migrate(servers.database_url))
        yield settings, asyncio.run(fill(settings, count))


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candles", type=int, default=200_000, help="candles of a round (default: 200000)")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default: 5)")
    options = parser.parse_args()
    with prepared(options.candles) as (settings, log):
        url = settings.database_url.get_secret_value()
        rows = [row(candle) for candle in candles(options.candles, log)]
        contenders = {
            "binary COPY": copying(url, rows),
            "upsert by executemany": upserting(url, rows),
            "sink": sinking(settings, options.candles),
        }
        run_rounds("sink", contenders, rounds=options.rounds, unit="candles")


if __name__ == "__main__":
    main()
