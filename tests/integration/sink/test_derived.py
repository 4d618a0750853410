"""`verify --complete` finds what is no longer what it is derived from: minutes of the broker, hours and days."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from prometheus_client import CollectorRegistry

from runtime.kafka import admin_client
from runtime.settings import Settings
from sink.completeness import Key
from sink.db.connection import Connection
from sink.metrics import Metrics
from sink.verify import verify
from sink.writer import LogEnds, Writer
from tests.integration.sink.flow import Flow, value
from tests.unit.sink.candles import MINUTE, bar_of_minute, frame

MINUTE_UTC = datetime.fromtimestamp(MINUTE / 1000, UTC)
HOUR_MS, DAY_MS = 3_600_000, 86_400_000

_BARS = "SELECT array_agg((ts, open, close, volume, closed)::text ORDER BY ts) FROM market_data WHERE origin = 'broker'"


@pytest.fixture
async def writer(settings: Settings, url: str, flow: Flow, connection: Connection) -> Writer:
    """Three days with two hours of three minutes each, and before them bars of the broker, one of them of an hour."""
    assert url
    writer = Writer(LogEnds(settings, flow.own_log), Metrics(CollectorRegistry()))
    times = [
        MINUTE + day * DAY_MS + hour * HOUR_MS + n * 60_000 for day in range(3) for hour in (0, 5) for n in range(3)
    ]
    logged = await flow.log_frames([frame(ts, 1.1 + n / 100, count=3) for n, ts in enumerate(times)])
    bars = [bar_of_minute(MINUTE - (n + 1) * 60_000) for n in range(4)]
    await writer.write(connection, flow.candles(logged), bars)
    await rolled_up(connection)
    return writer


async def rolled_up(connection: Connection) -> None:
    while await value(connection, "SELECT refresh_candles()"):
        pass


async def bars_of(connection: Connection, timeframe: str) -> list[Any]:
    """Exact roll-ups, straight from the minutes."""
    width = {"H1": "1 hour", "D1": "1 day"}[timeframe]
    return await (
        await connection.execute(
            f"SELECT m.ts, m.volume, m.high, m.close FROM candle_settings AS s CROSS JOIN LATERAL "  # noqa: S608
            f"rolled_up_minutes('{width}', '-infinity', 'infinity', s) AS m ORDER BY 1, 2".encode()
        )
    ).fetchall()


async def shown(connection: Connection, timeframe: str) -> list[Any]:
    """What people are shown."""
    query = f"SELECT ts, volume, high, close FROM candles_{timeframe.lower()} ORDER BY 1, 2"  # noqa: S608
    return await (await connection.execute(query.encode())).fetchall()


@pytest.mark.usefixtures("writer")
@pytest.mark.parametrize(
    ("act", "found"),
    [
        ("TRUNCATE market_data", 4),
        ("DELETE FROM market_data WHERE ts >= '2019-02-03 23:58+00' AND origin = 'broker'", 2),
        ("UPDATE market_data SET close = low WHERE origin = 'broker' AND ts < '2019-02-03 23:57+00'", 1),
    ],
)
async def test_minutes_of_the_broker_come_back(
    settings: Settings, connection: Connection, act: str, found: int
) -> None:
    before = await value(connection, _BARS)
    await connection.execute(act.encode())

    reported = await verify(settings, complete=True)
    of_another = await verify(settings, complete=True, symbol="USDJPY")
    await verify(settings, complete=True, repair=True)

    assert [len(reported.unfilled), of_another.unfilled] == [found, []]
    assert all(key.timeframe == "M1" and key.ts < MINUTE_UTC for key in reported.unfilled)
    assert await value(connection, _BARS) == before
    after = await verify(settings, complete=True)
    assert (after.missing, after.unfilled, after.wrong_roll_ups, after.equal) == ([], [], [], 18)


async def test_a_fold_is_no_missing_bar_and_what_retention_deleted_stays_away(
    settings: Settings, connection: Connection, writer: Writer
) -> None:
    await writer.write(connection, [], [bar_of_minute(MINUTE)])
    assert (await verify(settings, complete=True)).unfilled == []

    await connection.execute(b"UPDATE candle_settings SET minutes_from = %s", [MINUTE_UTC])
    await connection.execute(b"DELETE FROM market_data WHERE ts < %s", [MINUTE_UTC])
    found = await verify(settings, complete=True, repair=True)

    assert (found.unfilled, found.wrong_roll_ups, found.repaired) == ([], [], 0)
    assert await value(connection, "SELECT count(*) FROM candle_hours") == 7


@pytest.mark.usefixtures("writer")
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM market_data WHERE ts = '2019-02-05 00:01+00'",
        "UPDATE market_data SET source = 'T' WHERE ts >= '2019-02-05 05:00+00' AND ts < '2019-02-06'",
        "INSERT INTO market_data (ts, symbol, timeframe, open, high, low, close, volume) "
        "VALUES ('2019-02-05 07:00+00', 'EURUSD', 'M1', 1, 1, 1, 1, 1)",
        "UPDATE candle_hours SET high = 9 WHERE ts = '2019-02-05 05:00+00'",
        "DELETE FROM candle_hours WHERE ts >= '2019-02-05' AND ts < '2019-02-06'",
        "UPDATE candle_days SET volume = volume + 1 WHERE ts = '2019-02-05'",
        "DELETE FROM candle_days",
    ],
)
async def test_hours_and_days_are_the_roll_up_again(settings: Settings, connection: Connection, statement: str) -> None:
    """Of what went past the triggers, and of what was changed in their own tables."""
    await connection.execute(b"ALTER TABLE market_data DISABLE TRIGGER USER")
    await connection.execute(statement.encode())
    await connection.execute(b"ALTER TABLE market_data ENABLE TRIGGER USER")
    day = MINUTE_UTC + timedelta(days=1)

    found = await verify(settings, complete=True)
    of_the_day = await verify(settings, complete=True, from_=day, to=day + timedelta(days=1))
    before = await verify(settings, complete=True, to=day)
    await verify(settings, complete=True, repair=True)

    assert of_the_day.wrong_roll_ups
    assert [key for key in found.wrong_roll_ups if day <= key.ts < day + timedelta(days=1)] == of_the_day.wrong_roll_ups
    assert {key.ts < day for key in before.wrong_roll_ups} <= {True}
    for _ in range(2):
        for timeframe in ("H1", "D1"):
            assert await shown(connection, timeframe) == await bars_of(connection, timeframe)
        assert (await verify(settings, complete=True)).wrong_roll_ups == []
        await rolled_up(connection)


@pytest.mark.usefixtures("writer")
async def test_what_the_triggers_have_seen_is_not_wrong(settings: Settings, connection: Connection) -> None:
    await connection.execute(b"UPDATE market_data SET volume = volume + 1 WHERE ts = %s", [MINUTE_UTC])
    assert (await verify(settings, complete=True)).wrong_roll_ups == []
    await rolled_up(connection)
    assert (await verify(settings, complete=True)).wrong_roll_ups == []
    await connection.execute(b"UPDATE candle_hours SET volume = 1 WHERE ts = %s", [MINUTE_UTC])
    found = (await verify(settings, complete=True)).wrong_roll_ups
    assert found == [Key("S", "EURUSD", MINUTE_UTC, timeframe) for timeframe in ("D1", "H1")]


@pytest.mark.usefixtures("writer")
async def test_hours_of_which_no_minute_is_left_stay(settings: Settings, connection: Connection) -> None:
    """As after drop_chunks, of what the log holds no more either: they are all there is."""
    await connection.execute(b"ALTER TABLE market_data DISABLE TRIGGER USER")
    await connection.execute(b"DELETE FROM market_data WHERE ts < %s", [MINUTE_UTC + timedelta(days=1, hours=2)])
    await connection.execute(b"ALTER TABLE market_data ENABLE TRIGGER USER")
    await connection.execute(b"UPDATE candle_days SET volume = 1")
    before = await value(connection, "SELECT array_agg(h ORDER BY ts) FROM candle_hours AS h")
    async with admin_client(settings) as client:
        await client.delete_records({TopicPartition(settings.ticks_topic, 0): RecordsToDelete(9)})

    await verify(settings, complete=True, repair=True)
    await rolled_up(connection)

    assert await value(connection, "SELECT array_agg(h ORDER BY ts) FROM candle_hours AS h") == before
    assert (await verify(settings, complete=True)).wrong_roll_ups == []
    # The first day is the broker's, whose bars came back.
    assert [row[1] for row in await shown(connection, "D1")] == [40, 1, 18, 18]
