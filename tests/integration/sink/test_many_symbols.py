"""Ten thousands of symbols of one minute: no statement may search all of them for each of them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from marketdata.candle import Candle
from sink.db.connection import Connection
from sink.db.session import SQL
from tests.integration.sink.fixed import new_writer
from tests.integration.sink.flow import value
from tests.unit.sink.candles import MINUTE, candle

COUNT = 10_000

#: Candles of one batch.
BATCH = 2_500

_MOMENT = datetime.fromtimestamp(MINUTE / 1000, UTC)


def minute(*, volume: int = 2, closed: bool = False) -> list[Candle]:
    """One minute of many symbols."""
    return [
        candle(((10 * n, 10 * n + volume - 1),), symbol=f"S{n:05}", volume=volume, closed=closed) for n in range(COUNT)
    ]


def rows_looked_at(plan: dict[str, Any]) -> float:
    """Rows that a plan has taken into its hand, also those that it let go."""
    own = plan["Actual Rows"] + sum(plan.get(name, 0) for name in plan if name.startswith("Rows Removed by"))
    return float(own * plan["Actual Loops"] + sum(map(rows_looked_at, plan.get("Plans", []))))


async def explained(connection: Connection, name: str, about: dict[str, Any]) -> float:
    """Rows that the statement looked at; it is executed."""
    cursor = await connection.execute(b"EXPLAIN (ANALYZE, FORMAT json) " + SQL[name], about)
    row = await cursor.fetchone()
    assert row is not None
    return rows_looked_at(row[0][0]["Plan"])


async def test_storing_looks_at_each_row_a_few_times(connection: Connection) -> None:
    writer = new_writer()
    # As it comes: each minute is stored a few times before it closes.
    for volume in (1, 2):
        await writer.write(connection, minute(volume=volume))
    batch = await writer.prepare(minute(closed=True)[:BATCH])
    assert batch.columns is not None
    about = writer._about(batch.reduced, batch.columns)

    # The plan of these values, and the one that a session keeps for all.
    for mode in (b"force_custom_plan", b"force_generic_plan"):
        async with connection.transaction(force_rollback=True):
            await connection.execute(b"SET LOCAL plan_cache_mode = " + mode)
            assert await explained(connection, "store_candles", about) < 20 * COUNT
    assert (await writer.write(connection, minute(closed=True)))["closed"] == COUNT
    await asyncio.sleep(0)


async def test_what_was_stamped_ahead_is_closed_piece_by_piece(connection: Connection) -> None:
    await new_writer().write(connection, minute())
    about = {
        "since": _MOMENT, "over": _MOMENT + timedelta(minutes=5), "untouched": datetime.now(UTC) + timedelta(hours=1),
        "timeframes": ["M1"], "widths": [timedelta(minutes=1)], "most": 1_000,
    }  # fmt: skip

    assert await explained(connection, "close_overdue", about) < 20 * COUNT
    assert await value(connection, "SELECT count(*)::int FROM market_data WHERE closed") == 1_000
