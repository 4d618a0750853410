"""What M1 takes on the disk with and without compression, and what late ticks cost in chunks that are compressed.

`python -m benchmarks.storage` makes 2 symbols × 18 months in TimescaleDB's community edition, which runs in Node.js
(tests/integration/sink/db/pglite), in some minutes; `--database-url` names one that is there and empty.
"""

import argparse
import asyncio
import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sink.db.connection import Connection, connect
from sink.db.schema import edition, migrate, set_compression
from sink.writer import Writer
from tests.integration.sink.db.editions import install_pglite, pglite_database
from tests.integration.sink.fixed import new_writer
from tests.unit.sink.candles import candle

FIRST: Final = datetime(2023, 1, 1, tzinfo=UTC)
LOG: Final = "k3jq0WqTQ9mZ0l2u7b6n1A/ticks"

#: Minutes of one late batch: an hour of one symbol.
BATCH: Final = 60

#: A random walk in points from where the month before ended; offsets, times and volumes as the pipeline writes them.
_FILL: Final = b"""
INSERT INTO market_data (
    ts, symbol, timeframe, open, high, low, close, volume, real_volume, spread, source, origin, closed,
    first_tick, last_tick, log, offsets, received_at, stored_at
)
SELECT
    t, %(symbol)s, 'M1', (o / 1e5)::float8, ((greatest(o, c) + up) / 1e5)::float8,
    ((least(o, c) - down) / 1e5)::float8, (c / 1e5)::float8, volume, 0, spread, 'Broker-Demo', 'ticks', true,
    t + first_ms * interval '1 ms', t + interval '59 s' + last_ms * interval '1 ms', %(log)s,
    int8multirange(int8range(n * 80, n * 80 + volume)),
    t + interval '60 s' + last_ms * interval '1 ms' + delay * interval '1 us',
    t + interval '60.2 s' + last_ms * interval '1 ms' + delay * interval '3 us'
FROM (
    SELECT
        t, extract(epoch FROM t)::bigint / 60 - 27000000 AS n,
        sum(step) OVER (ORDER BY t) + 114000 AS c, sum(step) OVER (ORDER BY t) - step + gap + 114000 AS o,
        up, down, volume, spread, first_ms, last_ms, delay
    FROM (
        SELECT
            t, floor(random() * 21 - 10)::int AS step, floor(random() * 3 - 1)::int AS gap,
            floor(random() * 8)::int AS up, floor(random() * 8)::int AS down,
            20 + floor(random() * 60)::int AS volume, floor(random() * 9)::int AS spread,
            floor(random() * 1000)::int AS first_ms, floor(random() * 1000)::int AS last_ms,
            floor(random() * 90000)::int AS delay
        FROM generate_series(%(first)s::timestamptz, %(end)s::timestamptz - interval '1 minute', '1 minute') AS t
        -- Foreign exchange: Sunday 22:00 to Friday 22:00 UTC.
        WHERE extract(isodow FROM t - interval '22 hours') NOT IN (5, 6)
    ) AS steps
) AS m
"""


async def fill(connection: Connection, symbols: list[str], months: int) -> None:
    """The rows, a month of a symbol at a time."""
    await connection.execute(b"SELECT setseed(0.5)")
    for month in range(months):
        first, end = (FIRST.replace(year=FIRST.year + m // 12, month=m % 12 + 1) for m in (month, month + 1))
        for symbol in symbols:
            await connection.execute(_FILL, {"symbol": symbol, "log": LOG, "first": first, "end": end})


async def value(connection: Connection, query: str, *parameters: object) -> Any:
    row = await (await connection.execute(query.encode(), parameters or None)).fetchone()
    return row[0] if row else None


async def sizes(connection: Connection, what: str, rows: int) -> float:
    """Print and return the bytes that a row takes."""
    total = await value(connection, "SELECT hypertable_size('market_data')")
    print(f"{what}: {total / 1e6:,.1f} MB, {total / rows:,.1f} bytes a row", flush=True)
    return float(total / rows)


async def write_late(connection: Connection, writer: Writer, symbol: str, first: datetime, mark: int) -> float:
    """Seconds for one batch: an hour whose every minute got one more tick."""
    start_ms = int(first.timestamp()) * 1000
    batch = [
        candle(
            ((0, 10**11 + mark),), symbol=symbol, source="Broker-Demo", log=LOG, ts=start_ms + n * 60_000, volume=mark
        )
        for n in range(BATCH)
    ]
    begin = time.perf_counter()
    actions = await writer.write(connection, batch)
    seconds = time.perf_counter() - begin
    if actions["replaced"] != BATCH:
        raise RuntimeError(f"{BATCH} candles were to be replaced: {actions}")
    return seconds


async def late_ticks(connection: Connection, symbols: list[str], months: int, rounds: int) -> None:
    """Hours of chunks that are compressed, and of one that is not, in turn; each hour once, then once more."""
    writer = new_writer(end=10**13, appends=False)
    # Wednesdays at noon always have ticks.
    wednesdays = [FIRST + timedelta(days=3 + 7 * week, hours=12) for week in range(months * 4)]
    plain_from = await value(
        connection,
        "SELECT max(range_start) FROM timescaledb_information.chunks"
        " WHERE hypertable_name = 'market_data' AND NOT is_compressed",
    )
    compressed_days = [day for day in wednesdays if day + timedelta(days=40) < plain_from]
    plain_days = [plain_from + timedelta(days=day, hours=12) for day in range(1, 28)]
    plain_days = [day for day in plain_days if day.isoweekday() in (2, 3, 4)]
    measured: dict[str, list[float]] = {"plain": [], "compressed": [], "compressed, once more": []}
    for number in range(min(rounds, len(compressed_days))):
        symbol = symbols[number % len(symbols)]
        hour = timedelta(hours=number // len(plain_days) - 3)
        plain, compressed = plain_days[number % len(plain_days)] + hour, compressed_days[number]
        measured["plain"].append(await write_late(connection, writer, symbol, plain, 1_000 + number))
        measured["compressed"].append(await write_late(connection, writer, symbol, compressed, 1_000 + number))
        again = await write_late(connection, writer, symbol, compressed, 5_000 + number)
        measured["compressed, once more"].append(again)
        stored = await value(
            connection,
            "SELECT count(*) FROM market_data WHERE symbol = %s AND ts >= %s AND ts < %s AND volume = %s",
            symbol, compressed, compressed + timedelta(minutes=BATCH), 5_000 + number,
        )  # fmt: skip
        if stored != BATCH:
            raise RuntimeError(f"{stored} of {BATCH} late candles are stored")
    base = statistics.median(measured["plain"])
    for what, seconds in measured.items():
        median = statistics.median(seconds)
        print(f"late hour, chunk {what}: median {1000 * median:,.1f} ms, {median / base:.1f} × plain", flush=True)


async def measure(url: str, symbol_count: int, months: int, rounds: int) -> None:
    """All of it, on an empty database."""
    symbols = [f"SYM{number:02}" for number in range(symbol_count)]
    await migrate(url)
    async with await connect(url) as connection:
        # The one backend of PGlite remembers what was prepared before.
        await connection.execute(b"DEALLOCATE ALL")
        print(await edition(connection), flush=True)
        begin = time.perf_counter()
        await fill(connection, symbols, months)
        rows = await value(connection, "SELECT count(*) FROM market_data")
        print(f"{rows:,} rows of M1 in {time.perf_counter() - begin:,.0f} s", flush=True)
        before = await sizes(connection, "not compressed", rows)
        await set_compression(connection, 30)
        begin = time.perf_counter()
        # All but the last whole one, which stays to be compared with.
        await connection.execute(
            b"SELECT compress_chunk(c) FROM show_chunks('market_data') AS c WHERE c <> ("
            b" SELECT format('%I.%I', chunk_schema, chunk_name)::regclass FROM timescaledb_information.chunks"
            b" WHERE hypertable_name = 'market_data' ORDER BY range_start DESC OFFSET 1 LIMIT 1)"
        )
        print(f"compressed in {time.perf_counter() - begin:,.0f} s", flush=True)
        row = await (
            await connection.execute(
                b"SELECT sum(before_compression_total_bytes)::bigint, sum(after_compression_total_bytes)::bigint"
                b" FROM chunk_compression_stats('market_data') WHERE compression_status = 'Compressed'"
            )
        ).fetchone()
        full, packed = row or (0, 0)
        print(
            f"compressed chunks: {full / 1e6:,.1f} MB became {packed / 1e6:,.1f} MB ({packed / full:.1%}), "
            f"{before * packed / full:,.1f} bytes a row",
            flush=True,
        )
        await late_ticks(connection, symbols, months, rounds)
        if await value(connection, "SELECT count(*) FROM market_data") != rows:
            raise RuntimeError("late ticks changed the number of rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=2)
    parser.add_argument("--months", type=int, default=18)
    parser.add_argument("--rounds", type=int, default=40, help="late hours of each kind")
    parser.add_argument("--database-url")
    arguments = parser.parse_args()
    if arguments.database_url:
        asyncio.run(measure(arguments.database_url, arguments.symbols, arguments.months, arguments.rounds))
        return
    install_pglite()
    with pglite_database() as url:
        asyncio.run(measure(url, arguments.symbols, arguments.months, arguments.rounds))


if __name__ == "__main__":
    main()
