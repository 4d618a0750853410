import asyncio
import math
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
import pytest

from marketdata.candle import BrokerBar, check_bar, check_candle
from marketdata.errors import InvalidCandle
from marketdata.offsets import MAX_OFFSET
from runtime import clock
from runtime.settings import Settings
from sink.db.connection import Connection
from sink.db.schema import edition, migrate, migration_files
from sink.queries import candles, newest_candles, run_query
from tests.integration.sink.fixed import new_writer
from tests.integration.sink.flow import value
from tests.unit.sink.candles import MINUTE, bar_of_minute, candle

MINUTE_UTC = datetime(2019, 2, 4, tzinfo=UTC)


async def test_migrations_run_once_however_many_start_together(settings: Settings) -> None:
    conninfo = settings.database_url.get_secret_value()
    applied = await asyncio.gather(*(migrate(conninfo) for _ in range(4)))
    assert sorted(name for names in applied for name in names) == list(migration_files())
    assert await migrate(conninfo) == []


async def test_the_first_eight_columns_are_the_ones_that_users_know(connection: Connection) -> None:
    columns, rows = await run_query(connection, 4)
    assert columns == ["column", "type", "nullable", "default"]
    assert [row[0] for row in rows] == [
        "ts", "symbol", "timeframe", "open", "high", "low", "close", "volume", "real_volume", "spread", "source",
        "origin", "closed", "first_tick", "last_tick", "log", "offsets", "received_at", "folded_at",
        "stored_at", "tick_volume",
    ]  # fmt: skip
    assert [row[1] for row in rows[:8]] == [
        "timestamp with time zone", "text", "text", *["double precision"] * 4, "bigint"
    ]  # fmt: skip


async def test_those_eight_columns_can_be_inserted_by_hand(connection: Connection) -> None:
    await connection.execute(
        b"INSERT INTO market_data (ts, symbol, timeframe, open, high, low, close, volume)"
        b" VALUES ('2019-02-04', 'EURUSD', 'M1', 1.1, 1.3, 1.0, 1.2, 7)"
    )

    rows = await connection.execute(b"SELECT source, origin, closed, tick_volume FROM market_data")
    assert await rows.fetchall() == [("manual", "broker", True, 7)]
    assert await value(connection, "SELECT volume FROM candles_h1") == 7


async def test_the_edition_is_named(connection: Connection) -> None:
    assert (await edition(connection)).startswith(("postgresql ", "timescaledb "))


async def test_candles_of_a_stretch_of_time_stream_in_order(connection: Connection) -> None:
    # Arrange
    writer = new_writer()
    await writer.write(connection, [candle(((i, i),), ts=MINUTE + 60_000 * i, volume=i + 1) for i in range(4)])

    # Act
    part = candles(connection, "EURUSD", MINUTE_UTC, MINUTE_UTC.replace(minute=3))
    found = [row async for row in part]

    # Assert
    assert [row.volume for row in found] == [1, 2, 3]
    assert found[0] == (MINUTE_UTC, "EURUSD", "M1", 1.1, 1.3, 1.0, 1.2, 1, found[0].source)


async def test_the_five_queries_answer(connection: Connection) -> None:
    # Arrange
    writer = new_writer()
    await writer.write(
        connection,
        [candle(), candle(ts=MINUTE + 60_000, symbol="USDJPY"), candle(((20, 29),), ts=MINUTE + 120_000)],
    )

    # Act
    answers = {number: (await run_query(connection, number))[1] for number in range(1, 6)}
    newest = await newest_candles(connection)

    # Assert
    assert [row[1] for row in answers[1]] == ["EURUSD", "USDJPY", "EURUSD"]
    assert answers[2] == []  # 2019 is more than 24 hours ago
    assert [row[:2] for row in answers[3]] == [
        ("EURUSD", MINUTE_UTC.replace(minute=2)), ("USDJPY", MINUTE_UTC.replace(minute=1)),
    ]  # fmt: skip
    assert [(row[0], row[3]) for row in answers[5]] == [("EURUSD", 2), ("USDJPY", 1)]
    assert [(row.symbol, row.ts) for row in newest] == [
        ("EURUSD", MINUTE_UTC.replace(minute=2)),
        ("USDJPY", MINUTE_UTC.replace(minute=1)),
    ]


async def test_the_newest_row_of_every_symbol_is_told_also_of_those_with_bars_alone(connection: Connection) -> None:
    now = clock.now_ms() // 60_000 * 60_000
    hour = now // 3_600_000 * 3_600_000
    plain = BrokerBar(
        source="S", symbol="BARS", timeframe="M1", ts=now - 600_000, open=2.0, high=2.0, low=2.0, close=2.0, volume=1,
        received=now,
    )  # fmt: skip
    bars = [
        plain,
        msgspec.structs.replace(plain, source="T", ts=now - 300_000),
        msgspec.structs.replace(plain, symbol="HOURS", timeframe="H1", ts=hour - 7_200_000),
        msgspec.structs.replace(plain, symbol="HOURS", timeframe="H1", ts=hour - 3_600_000),
        # Older than the candle of the same symbol.
        msgspec.structs.replace(plain, symbol="EURUSD", timeframe="H1", ts=hour - 86_400_000),
    ]
    await new_writer().write(connection, [candle(ts=now - 120_000)], bars)

    columns, rows = await run_query(connection, 3)

    assert columns[:3] == ["symbol", "newest", "minutes_ago"]
    newest = {symbol: (ts, timeframe, source) for symbol, ts, _, timeframe, _, source, *_ in rows}
    assert len(rows) == len(newest)
    assert newest == {
        "BARS": (_utc(now - 300_000), "M1", "T"),
        "EURUSD": (_utc(now - 120_000), "M1", "S"),
        "HOURS": (_utc(hour - 3_600_000), "H1", "S"),
    }
    ago = {symbol: float(minutes) for symbol, _, minutes, *_ in rows}
    assert 2 <= ago["EURUSD"] < 4
    assert 5 <= ago["BARS"] < 7


def _utc(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


async def test_the_latency_of_a_symbol_has_a_name(connection: Connection) -> None:
    await new_writer().write(connection, [candle(ts=MINUTE)])
    columns, [row] = await run_query(connection, "latency")
    found = dict(zip(columns, row, strict=True))
    assert (found["symbol"], found["minutes"]) == ("EURUSD", 1)
    assert float(found["tick_to_received_p50"]) == 0.1  # received 100 ms after the last tick


async def test_an_empty_table_has_answers_too(connection: Connection) -> None:
    assert [len((await run_query(connection, number))[1]) for number in (1, 2, 3, 5)] == [0, 0, 0, 0]
    assert await newest_candles(connection) == []


async def test_the_view_shows_where_the_broker_differs(connection: Connection) -> None:
    # Arrange
    bar = BrokerBar(
        source="S", symbol="EURUSD", timeframe="M1", ts=MINUTE, open=1.1, high=1.3125, low=1.0, close=1.2, volume=10,
        received=MINUTE,
    )  # fmt: skip
    await new_writer().write(connection, [candle(high=1.25, closed=True)], [bar])

    # Act and Assert
    assert await value(connection, "SELECT high_difference FROM bar_fidelity") == -0.0625
    assert await value(connection, "SELECT equal FROM bar_fidelity") is False


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"high": 1.05}, "market_data_prices"),  # below the open
        ({"low": 1.15}, "market_data_prices"),  # above the open
        ({"open": math.nan}, "market_data_prices"),
        ({"high": math.inf}, "market_data_prices"),
        ({"low": -math.inf}, "market_data_prices"),
        ({"high": 1.1e15}, "market_data_prices"),
        ({"volume": 0}, "market_data_volumes"),
        ({"real_volume": -1.0}, "market_data_volumes"),
        ({"real_volume": math.nan}, "market_data_volumes"),
        ({"ts": MINUTE + 1}, "market_data_times"),
        ({"ts": 4_102_444_800_000}, "market_data_times"),  # 2100-01-01
        ({"first_tick": MINUTE - 1}, "market_data_times"),
        ({"last_tick": MINUTE + 60_000}, "market_data_times"),
        ({"log": ""}, "market_data_proof"),
        ({"offsets": ()}, "market_data_proof"),
        ({"offsets": ((0, -5, 4),)}, "market_data_proof"),
    ],
    ids=str,
)
async def test_the_table_refuses_what_the_check_refuses(
    connection: Connection, change: dict[str, Any], constraint: str
) -> None:
    impossible = candle(**{"ts": MINUTE, **change})
    with pytest.raises(InvalidCandle):
        check_candle(impossible)
    with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
        await new_writer().write(connection, [impossible])


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"high": 1.05}, "broker_bars_prices"),
        ({"close": math.nan}, "broker_bars_prices"),
        ({"volume": -1}, "broker_bars_volumes"),
        ({"real_volume": math.inf}, "broker_bars_volumes"),
        ({"ts": MINUTE + 1}, "broker_bars_times"),
    ],
    ids=str,
)
async def test_the_table_refuses_what_the_check_of_bars_refuses(
    connection: Connection, change: dict[str, Any], constraint: str
) -> None:
    impossible = msgspec.structs.replace(bar_of_minute(MINUTE), **change)
    with pytest.raises(InvalidCandle):
        check_bar(impossible)
    with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
        await new_writer().write(connection, bars=[impossible])


async def test_a_negative_price_is_stored(connection: Connection) -> None:
    """Oil on 20 April 2020."""
    oil = candle(open=-37.63, high=-10.0, low=-40.32, close=-37.63)
    await new_writer().write(connection, [oil])
    assert await value(connection, "SELECT low FROM market_data") == -40.32


async def test_positions_are_readable(connection: Connection) -> None:
    await new_writer().write(connection, [candle(((0, 5, 9), (2, 0, 3), (32_766, 7, 7)))])
    rows = await connection.execute(b"SELECT r.partition, r.first, r.last FROM market_data, proof_ranges(offsets) AS r")
    assert await rows.fetchall() == [(0, 5, 9), (2, 0, 3), (32_766, 7, 7)]
    assert await value(connection, "SELECT count(*) FROM market_data WHERE offsets @> log_position(2, 3)") == 1
    assert await value(connection, "SELECT count(*) FROM market_data WHERE offsets @> log_position(2, 4)") == 0
    assert await value(connection, "SELECT position_offset(log_position(7, 281474976710654))") == MAX_OFFSET
    assert await value(connection, "SELECT position_partition(log_position(7, 281474976710654))") == 7
