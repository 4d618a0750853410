"""Retention beside writers: what is under way is waited for, and the running sink stores nothing that is too old."""

import asyncio
from datetime import UTC, datetime, timedelta

from runtime.kafka_groups import group_offsets
from runtime.settings import Settings
from sink.db.connection import Connection, Database, connect
from sink.db.session import SQL
from sink.maintenance import Deleted, Retainer, Retention
from tests.integration.sink.fixed import new_writer
from tests.integration.sink.flow import Flow, RunningSink, value
from tests.unit.sink.candles import MINUTE, candle
from tests.waiting import eventually

MONDAY = datetime(2019, 2, 4, tzinfo=UTC)


async def test_an_open_transaction_is_waited_for_and_its_hour_folded(url: str, connection: Connection) -> None:
    # Arrange: an hour is folded, and a late minute of it is being written
    writer = new_writer()
    await writer.write(connection, [candle(ts=MINUTE)])
    await connection.execute(SQL["refresh_candles"], {"quiet": timedelta(0), "max_hours": 100})
    database = Database(url, asyncio.Event())
    # Minutes of a hypertable go by the chunk, which is a month.
    retainer = Retainer(database, Retention(timedelta(days=1), None, None), now=lambda: MONDAY + timedelta(days=60))

    # Act
    async with await connect(url) as other, other.transaction():
        await writer.apply_candles(other, [])
        await other.execute(
            b"INSERT INTO market_data SELECT ts + interval '1 minute', symbol, timeframe, open, high, low, close,"
            b" volume, real_volume, spread, source, origin, closed, first_tick + interval '1 minute',"
            b" last_tick + interval '1 minute', log, offsets"
            b" FROM market_data"
        )
        assert await retainer.step() is None
    # Its mark is there now, so that minutes wait once more.
    assert await retainer.step() == Deleted()
    assert await value(connection, "SELECT count(*) FROM market_data") == 2
    await connection.execute(SQL["refresh_candles"], {"quiet": timedelta(0), "max_hours": 100})
    assert await retainer.step() is not None

    # Assert
    assert await value(connection, "SELECT count(*) FROM market_data") == 0
    assert await value(connection, "SELECT volume FROM candles_h1") == 20
    await database.close()


async def test_settings_that_another_task_has_are_asked_for_again_soon(url: str) -> None:
    database = Database(url, asyncio.Event())
    retainer = Retainer(database, Retention(timedelta(days=1), None, None))
    async with await connect(url) as other, other.transaction():
        await other.execute(b"SELECT FROM candle_settings FOR UPDATE")
        assert await retainer.step() is None
    assert await retainer.step() == Deleted()
    await database.close()


async def test_the_sink_stores_nothing_that_is_too_old(settings: Settings, flow: Flow, connection: Connection) -> None:
    async def deletes() -> bool:
        return bool(await value(connection, "SELECT minutes_from > '-infinity' FROM candle_settings"))

    async def stored() -> bool:
        committed = await group_offsets(settings, settings.sink_group, settings.candles_topic)
        return sum(committed.values()) == 2

    # What is there is deleted first; with it a hypertable has a chunk, before whose end nothing comes back.
    await new_writer().write(connection, [candle(ts=MINUTE - 60_000)])
    await connection.execute(SQL["refresh_candles"], {"quiet": timedelta(0), "max_hours": 100})
    now_ms = int(datetime.now(UTC).timestamp() * 1000) // 60_000 * 60_000
    async with RunningSink(settings.model_copy(update={"retain_m1_days": 30})):
        await eventually(deletes)
        await flow.send_candles([candle(ts=ts, log=flow.own_log) for ts in (MINUTE, now_ms)])
        await eventually(stored)
        assert await value(connection, "SELECT min(ts) > now() - interval '1 day' FROM market_data") is True
        assert await value(connection, "SELECT count(*) FROM candles_h1") == 2
