"""Ten thousands of symbols of one minute: no statement may search all of them for each of them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

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


@pytest.mark.parametrize("mode", [b"force_custom_plan", b"force_generic_plan"])
@pytest.mark.parametrize("batch", [8, BATCH])
async def test_storing_looks_at_each_row_a_few_times(connection: Connection, batch: int, mode: bytes) -> None:
    # Arrange: as it comes, each minute is stored a few times before it closes
    writer = new_writer()
    for volume in (1, 2):
        await writer.write(connection, minute(volume=volume))
    plans: list[dict[str, Any]] = []
    connection.add_notice_handler(lambda said: plans.append(json.loads((said.message_primary or "").split("plan:")[1])))
    await connection.execute(b"LOAD 'auto_explain'")
    await connection.execute(
        b"SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on; SET auto_explain.log_format = json;"
        b"SET auto_explain.log_level = notice; SET plan_cache_mode = " + mode
    )

    # Act: the plan for these values, or the one that a session keeps for all
    actions = await writer.write(connection, minute(closed=True)[:batch])

    # Assert
    assert actions["closed"] == batch
    [looked_at] = [rows_looked_at(plan["Plan"]) for plan in plans if "incoming_candles" in plan["Query Text"]]
    assert looked_at < 40 * batch + 2 * COUNT


async def test_what_was_stamped_ahead_is_closed_piece_by_piece(connection: Connection) -> None:
    await new_writer().write(connection, minute())
    about = {
        "since": _MOMENT, "over": _MOMENT + timedelta(minutes=5), "untouched": datetime.now(UTC) + timedelta(hours=1),
        "timeframes": ["M1"], "widths": [timedelta(minutes=1)], "most": 1_000,
    }  # fmt: skip

    assert await explained(connection, "close_overdue", about) < 20 * COUNT
    assert await value(connection, "SELECT count(*)::int FROM market_data WHERE closed") == 1_000
