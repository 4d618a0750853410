"""Pages of candles from ten years of M1: how long they take for every timeframe, and what materialised hours cost.

`python -m benchmarks.timeframes` makes 10 symbols × 10 years inside a PostgreSQL of its own, which takes some minutes
and 12 GB; `--database-url` names a database that is there (TimescaleDB, say), which should be empty.
"""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from marketdata.timeframes import TIMEFRAMES
from sink.db.connection import connect
from sink.db.schema import edition, migrate
from tests.integration.sink.fixed import new_writer
from tests.servers import EmbeddedServers
from tests.unit.sink.candles import candle

Connection = psycopg.Connection[tuple[Any, ...]]

FIRST_YEAR: Final = 2014

#: Foreign exchange: Sunday 22:00 to Friday 22:00 UTC.
_FILL: Final = """
INSERT INTO market_data (
    ts, symbol, timeframe, open, high, low, close, volume, real_volume, spread, source, origin, closed,
    first_tick, last_tick, log, offsets, received_at, stored_at
)
SELECT
    t, %(symbol)s, 'M1', p, p + 0.0004, p - 0.0003, p + 0.0001, 20 + n %% 60, 0, n %% 9, 'Broker-Demo', 'ticks', true,
    t, t + interval '59.9 seconds', 'k3jq0WqTQ9mZ0l2u7b6n1A/ticks', int8multirange(int8range(n, n + 40)),
    t + interval '60 seconds', t + interval '60.2 seconds'
FROM (
    SELECT
        t, extract(epoch FROM t)::bigint / 60 AS n,
        round((1.1 + 0.1 * sin(extract(epoch FROM t) / 86400))::numeric, 5)::double precision AS p
    FROM generate_series(%(first)s::timestamptz, %(end)s::timestamptz - interval '1 minute', '1 minute') AS t
    WHERE extract(isodow FROM t - interval '22 hours') NOT IN (5, 6)
) AS m
"""


_COUNT: Final = "SELECT count(*) FROM market_data"


@contextmanager
def took(what: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - begin:,.2f} s", flush=True)


def value(connection: Connection, query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def fill(connection: Connection, symbols: list[str], years: int) -> None:
    """The M1 rows, a quarter at a time, and nothing materialised."""
    # A replica's session fires no triggers: half a million stale hours would be rolled up one by one.
    connection.execute(b"SET session_replication_role = replica")
    connection.execute(b"UPDATE candle_settings SET materialised_from = 'infinity'")
    for quarter in range(years * 4):
        first = datetime(FIRST_YEAR + quarter // 4, quarter % 4 * 3 + 1, 1, tzinfo=UTC)
        end = datetime(FIRST_YEAR + (quarter + 1) // 4, (quarter + 1) % 4 * 3 + 1, 1, tzinfo=UTC)
        for symbol in symbols:
            connection.execute(_FILL.encode(), {"symbol": symbol, "first": first, "end": end})
    connection.execute(b"RESET session_replication_role")
    connection.execute(b"VACUUM ANALYZE market_data")


def until_materialised(connection: Connection) -> None:
    while value(connection, "SELECT materialise_candles()::text") != "-infinity":
        pass
    connection.execute(b"VACUUM ANALYZE candle_hours, candle_days, stale_hours")


def report(what: str, seconds: list[float]) -> None:
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    p50, p95, longest = (1000 * each for each in (cuts[9], cuts[18], max(seconds)))
    print(f"  {what:<40} p50 {p50:8.1f} ms   p95 {p95:8.1f} ms   max {longest:8.1f} ms", flush=True)


def pages(connection: Connection, symbols: list[str], years: int, rounds: int) -> None:
    """500 bars before random moments, and whole histories."""
    dice = random.Random(2019)  # noqa: S311  # the same pages in every run
    begin = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC)
    for timeframe in TIMEFRAMES:
        measured = []
        for number in range(rounds):
            # The first is the page that a chart opens with.
            before = str(begin + timedelta(days=dice.uniform(0.1, 1) * years * 365)) if number else "infinity"
            about = (dice.choice(symbols), timeframe, before)
            start = time.perf_counter()
            connection.execute(b"SELECT * FROM last_candles(%s, %s, %s)", about).fetchall()
            measured.append(time.perf_counter() - start)
        report(f"500 bars of {timeframe}", measured)
    for timeframe in ("H4", "D1", "W1", "MN1"):
        measured = []
        for _ in range(rounds):
            start = time.perf_counter()
            connection.execute(
                b"SELECT * FROM candles(%s, %s, '-infinity', 'infinity')", (dice.choice(symbols), timeframe)
            ).fetchall()
            measured.append(time.perf_counter() - start)
        report(f"{timeframe} of all years", measured)
    measured = []
    for _ in range(rounds):
        start = time.perf_counter()
        connection.execute(
            b"SELECT * FROM candles_d1 WHERE symbol = %s AND ts >= %s", (dice.choice(symbols), begin)
        ).fetchall()
        measured.append(time.perf_counter() - start)
    report("view candles_d1, all years", measured)


async def writing(url: str, symbols: list[str], rounds: int) -> None:
    """Batches as the sink writes them, with the triggers and without, in turn."""
    begin = 1_800_000_000_000 // 3_600_000 * 3_600_000
    async with await connect(url) as connection:
        for what, minutes in (("live, a minute of each symbol", 1), ("replay, 500 minutes of each", 500)):
            writer = new_writer(end=10**12)
            measured: dict[bytes, list[float]] = {b"origin": [], b"replica": []}
            for number in range(2 * rounds):
                # A replica's session fires no triggers.
                role = (b"origin", b"replica")[number % 2]
                await connection.execute(b"SET session_replication_role = " + role)
                batch = [
                    candle(((0, 10 + number),), symbol=symbol, ts=begin + minute * 60_000)
                    for symbol in symbols
                    for minute in range(minutes)
                ]
                start = time.perf_counter()
                await writer.write(connection, batch)
                measured[role].append(time.perf_counter() - start)
            report(what, measured[b"origin"])
            report(f"{what}, without triggers", measured[b"replica"])
            await connection.execute(b"DELETE FROM market_data WHERE ts > '2027-01-01'")


async def found_edition(url: str) -> str:
    async with await connect(url) as connection:
        return await edition(connection)


def measure(url: str, symbol_count: int, years: int, rounds: int) -> None:
    symbols = [f"SYM{number:02}" for number in range(symbol_count)]
    with psycopg.connect(url, autocommit=True) as connection:
        asyncio.run(migrate(url))
        print(asyncio.run(found_edition(url)), flush=True)
        if not value(connection, _COUNT):
            with took("M1 rows made"):
                fill(connection, symbols, years)
        print(f"{value(connection, _COUNT):,} rows of M1", flush=True)
        if value(connection, "SELECT materialised_from::text FROM candle_settings") != "-infinity":
            print("nothing materialised yet:")
            pages(connection, symbols, years, 3)
            with took("hours and days materialised"):
                until_materialised(connection)
        for table in ("market_data", "candle_hours", "candle_days"):
            rows = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
            print(f"{table}: {size(connection, table)}, {rows[0] if rows else 0:,} rows", flush=True)
        pages(connection, symbols, years, rounds)
    asyncio.run(writing(url, symbols, rounds))


def size(connection: Connection, table: str) -> str:
    hypertable = value(connection, "SELECT to_regproc('hypertable_size')") is not None and table == "market_data"
    function = "hypertable_size" if hypertable else "pg_total_relation_size"
    query = sql.SQL("SELECT pg_size_pretty({}(%s))").format(sql.Identifier(function))
    row = connection.execute(query, (table,)).fetchone()
    return str(row[0]) if row else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=10)
    parser.add_argument("--years", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=60, help="pages of each kind")
    parser.add_argument("--database-url", default=os.environ.get("TICKPIPE_TEST_DATABASE_DSN"))
    arguments = parser.parse_args()
    if arguments.database_url:
        measure(arguments.database_url, arguments.symbols, arguments.years, arguments.rounds)
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, EmbeddedServers(Path(directory)) as servers:
        measure(servers.database_url, arguments.symbols, arguments.years, arguments.rounds)


if __name__ == "__main__":
    main()
