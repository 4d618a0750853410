"""Generated M1 history for the tests: minutes here and there, around the times at which calendars are difficult."""

import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from psycopg import sql

from sink.db.connection import Connection
from tests.integration.sink.db.oracle import Bar, Day, bars

#: New year; clocks in New York, Havana, London, São Paulo and Athens go forward or back; end of October.
DAYS_OF_CHANGE = (
    ("2018-02-16", "2018-02-20"),
    ("2018-03-09", "2018-03-13"),
    ("2018-03-23", "2018-03-27"),
    ("2018-10-26", "2018-11-08"),
    ("2018-12-27", "2019-01-04"),
)

SERIES = (("EURUSD", "S"), ("EURUSD", "T"), ("USDJPY", "S"))

_INSERT = b"""
INSERT INTO market_data (
    ts, symbol, source, open, high, low, close, volume, real_volume, spread, closed, timeframe, origin
)
SELECT *, 'M1', 'broker' FROM unnest(
    %s::timestamptz[], %s::text[], %s::text[], %s::float8[], %s::float8[], %s::float8[], %s::float8[],
    %s::bigint[], %s::float8[], %s::int[], %s::bool[]
)
ON CONFLICT (symbol, timeframe, ts, source) DO UPDATE SET
    open = EXCLUDED.open, high = EXCLUDED.high, low = EXCLUDED.low, close = EXCLUDED.close, volume = EXCLUDED.volume,
    real_volume = EXCLUDED.real_volume, spread = EXCLUDED.spread, closed = EXCLUDED.closed
"""


def some_minutes(dice: random.Random, symbol: str, source: str) -> Iterator[Bar]:
    """About every twentieth minute."""
    for first, last in DAYS_OF_CHANGE:
        moment = datetime.fromisoformat(first).replace(tzinfo=UTC)
        while moment < datetime.fromisoformat(last).replace(tzinfo=UTC):
            yield minute(dice, moment, symbol, source)
            moment += timedelta(minutes=dice.randint(1, 40))


def minute(dice: random.Random, moment: datetime, symbol: str = "EURUSD", source: str = "S") -> Bar:
    """A candle of random prices; eighths add up without rounding."""
    prices = sorted(dice.randint(8_000, 16_000) / 8 for _ in range(4))
    return Bar(
        ts=moment, symbol=symbol, source=source, low=prices[0], high=prices[3],
        open=dice.choice(prices), close=dice.choice(prices), volume=dice.randint(1, 500),
        real_volume=None if dice.random() < 0.3 else dice.randint(0, 800) / 8,
        spread=None if dice.random() < 0.3 else dice.randint(0, 40), closed=dice.random() < 0.99,
    )  # fmt: skip


async def insert(connection: Connection, minutes: Sequence[Bar]) -> None:
    """Write them to `market_data`, over what is there."""
    # PGlite's socket ends at a message that does not come in one piece.
    for start in range(0, len(minutes), 250):
        columns = [list(column) for column in zip(*minutes[start : start + 250], strict=True)]
        await connection.execute(_INSERT, columns)


async def delete(connection: Connection, key: Sequence[object]) -> None:
    """Delete the minute of that time, symbol and source."""
    await connection.execute(b"DELETE FROM market_data WHERE ts = %s AND symbol = %s AND source = %s", key)


async def set_day(connection: Connection, day: Day) -> None:
    await connection.execute(b"SELECT set_candle_day(%s, %s, %s)", (day.zone, day.start, day.week_start))


async def refresh(connection: Connection) -> int:
    """Fold all marked hours; how many they were."""
    folded = 0
    while step := (await _column(connection, "SELECT refresh_candles(max_hours => 400)"))[0]:
        folded += step
    return folded


async def materialise_step(connection: Connection, days: int = 7) -> str:
    """One step of materialising; from where on hours and days are materialised now."""
    row = await (await connection.execute(b"SELECT materialise_candles(%s)::text", (days,))).fetchone()
    assert row is not None
    return str(row[0])


async def stale_hours(connection: Connection) -> int:
    counted: int = (await _column(connection, "SELECT count(*) FROM stale_hours"))[0]
    return counted


async def _column(connection: Connection, query: str) -> list[int]:
    return [row[0] for row in await (await connection.execute(query.encode())).fetchall()]


async def candles(
    connection: Connection, symbol: str, timeframe: str, from_: datetime, to: datetime, *, source: str | None = None
) -> list[Bar]:
    cursor = await connection.execute(
        b"SELECT * FROM candles(%s, %s, %s, %s, %s)", (symbol, timeframe, from_, to, source)
    )
    return [Bar(*row) for row in await cursor.fetchall()]


async def last_candles(
    connection: Connection, symbol: str, timeframe: str, before: datetime, count: int, *, source: str | None = None
) -> list[Bar]:
    cursor = await connection.execute(
        b"SELECT * FROM last_candles(%s, %s, %s, %s, %s)", (symbol, timeframe, before, count, source)
    )
    return [Bar(*row) for row in await cursor.fetchall()]


async def view(connection: Connection, timeframe: str) -> list[Bar]:
    name = sql.Identifier(f"candles_{timeframe.lower()}")
    cursor = await connection.execute(sql.SQL("SELECT * FROM {} ORDER BY symbol, source, ts").format(name))
    return [Bar(*row) for row in await cursor.fetchall()]


async def assert_exact(
    connection: Connection, minutes: Iterable[Bar], day: Day, timeframes: Sequence[str], dice: random.Random
) -> None:
    """All of the surface says what the oracle says."""
    series: dict[tuple[str, str], list[Bar]] = {}
    for one in minutes:
        series.setdefault((one.symbol, one.source), []).append(one)
    for timeframe in timeframes:
        expected = {key: bars(members, timeframe, day) for key, members in sorted(series.items())}
        assert await view(connection, timeframe) == [bar for members in expected.values() for bar in members]
        for (symbol, source), members in expected.items():
            first, end = members[0].ts, members[-1].ts + timedelta(days=40)
            assert await candles(connection, symbol, timeframe, first, end, source=source) == members
            for _ in range(2):
                low, high = sorted(first + dice.random() * (end - first) for _ in range(2))
                within = [bar for bar in members if low <= bar.ts < high]
                assert await candles(connection, symbol, timeframe, low, high, source=source) == within
                count = dice.randint(1, 60)
                newest = [bar for bar in members if bar.ts < high][-count:]
                assert await last_candles(connection, symbol, timeframe, high, count, source=source) == newest
            # The very start of a bar is inside of a range that begins there and outside of one that ends there.
            edge = dice.choice(members).ts
            assert (await candles(connection, symbol, timeframe, edge, end, source=source))[0].ts == edge
            assert all(
                bar.ts < edge for bar in await candles(connection, symbol, timeframe, first, edge, source=source)
            )
