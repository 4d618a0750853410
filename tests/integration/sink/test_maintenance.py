import asyncio
from datetime import UTC, datetime

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from psycopg import IsolationLevel

from marketdata.candle import BrokerBar, Candle
from runtime.settings import Settings
from sink.db.connection import Connection, Database, connect
from sink.maintenance import MAX_SYMBOLS, Comparer, Materialiser
from sink.metrics import Metrics
from tests.integration.sink.fixed import new_writer
from tests.integration.sink.flow import Flow, RunningSink, value
from tests.unit.sink.candles import MINUTE, candle
from tests.waiting import eventually

HOUR = 3_600_000


def materialiser(url: str, quiet_seconds: float = 0.0) -> tuple[Materialiser, Database, CollectorRegistry]:
    registry = CollectorRegistry()
    database = Database(url, asyncio.Event())
    return Materialiser(database, Metrics(registry), quiet_seconds=quiet_seconds), database, registry


async def test_stale_hours_are_materialised_when_they_have_come_to_rest(url: str, connection: Connection) -> None:
    # Arrange
    await new_writer().write(connection, [candle(ts=MINUTE + n * HOUR, volume=n + 1) for n in range(30)])
    patient, patience, _ = materialiser(url, quiet_seconds=60.0)
    eager, eagerness, registry = materialiser(url)

    # Act and Assert
    assert await patient.step() == 0
    assert await value(connection, "SELECT count(*) FROM candle_hours") == 0
    assert await eager.step() == 30
    assert await value(connection, "SELECT count(*) FROM candle_hours") == 30
    assert await value(connection, "SELECT sum(volume)::int FROM candle_days") == 30 * 31 // 2
    assert await eager.step() == 0
    assert registry.get_sample_value("tickpipe_sink_materialised_hours_total") == 30
    assert registry.get_sample_value("tickpipe_sink_stale_hours") == 0
    for database in (patience, eagerness):
        await database.close()


async def test_the_hour_that_is_not_over_waits(url: str, connection: Connection) -> None:
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    await new_writer().write(connection, [candle(ts=now_ms // HOUR * HOUR + HOUR)])
    task, database, _ = materialiser(url)
    assert await task.step() == 0
    assert await value(connection, "SELECT volume FROM candles_h1") == 10
    await database.close()


async def test_a_history_is_materialised_step_by_step(url: str, connection: Connection) -> None:
    # Arrange: as after a migration of a table with rows, or in a zone whose hours begin at other minutes
    await new_writer().write(connection, [candle(ts=MINUTE + n * 200 * HOUR) for n in range(30)])
    await connection.execute(b"SELECT set_candle_day('Asia/Kolkata')")
    task, database, _ = materialiser(url)

    # Act
    steps = 0
    while await value(connection, "SELECT materialised_from > '-infinity' FROM candle_settings"):
        await task.step()
        steps += 1

    # Assert
    assert steps > 3
    assert await value(connection, "SELECT count(*) FROM candle_hours") == 30
    await database.close()


async def test_a_mark_in_an_open_transaction_is_left_alone(url: str, connection: Connection) -> None:
    """The case that would make a materialised hour wrong for ever: a change that its transaction cannot see yet."""
    # Arrange: the mark is there already, and another transaction counts on it
    await new_writer().write(connection, [candle(((0, 9),)), candle(((0, 9),), ts=MINUTE + HOUR)])
    async with await connect(url) as other, other.transaction():
        await other.execute(b"UPDATE market_data SET volume = 500 WHERE ts = '2019-02-04 00:00+00'")

        # Act: only the hour that nobody is at
        task, database, _ = materialiser(url)
        assert await task.step() == 1
        assert await value(connection, "SELECT count(*) FROM stale_hours") == 1
        assert await value(connection, "SELECT volume FROM candles_d1") == 20
    assert await value(connection, "SELECT volume FROM candles_d1") == 510

    # A change after the mark was taken makes a new one.
    assert await task.step() == 1
    async with await connect(url) as other, other.transaction():
        await other.execute(b"UPDATE market_data SET volume = 600 WHERE ts = '2019-02-04 00:00+00'")
        assert await task.step() == 0
        assert await value(connection, "SELECT volume FROM candles_d1") == 510
    assert await value(connection, "SELECT volume FROM candles_d1") == 610
    assert await task.step() == 1
    assert await value(connection, "SELECT volume FROM candles_d1") == 610
    await database.close()


async def test_a_writer_waits_for_the_fold_of_its_hour_and_marks_it_again(url: str, connection: Connection) -> None:
    # Arrange
    await new_writer().write(connection, [candle(((0, 9),))])
    async with await connect(url) as folding:
        async with folding.transaction():
            assert await value(folding, "SELECT refresh_candles()") == 1

            # Act
            writing = asyncio.create_task(new_writer().write(connection, [candle(((0, 19),), volume=77)]))
            await eventually(lambda: _is_blocked(folding))
        await writing

        # Assert
        assert await value(folding, "SELECT volume FROM candles_d1") == 77
        assert await value(folding, "SELECT count(*) FROM stale_hours") == 1


async def _is_blocked(connection: Connection) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    blocked: int = await value(connection, query)
    return blocked > 0


async def test_refresh_wants_to_see_what_was_committed(connection: Connection) -> None:
    await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    async with connection.transaction(force_rollback=True):
        with pytest.raises(psycopg.errors.RaiseException, match="READ COMMITTED"):
            await connection.execute(b"SELECT refresh_candles()")


async def test_the_sink_materialises_what_it_stores(settings: Settings, url: str, flow: Flow) -> None:
    # Arrange: hours that have been stale for long
    async with await connect(url) as connection:
        await flow.send_candles([candle(log=flow.own_log, ts=MINUTE + n * HOUR) for n in range(5)])
        async with RunningSink(settings) as sink:
            await eventually(lambda: _stored(connection, 5))
            await connection.execute(b"UPDATE stale_hours SET changed_at = changed_at - interval '1 minute'")

            # Act and Assert
            await eventually(lambda: _has_hours(connection, 5))
            assert sink.metrics.registry.get_sample_value("tickpipe_sink_materialised_hours_total") == 5


async def _stored(connection: Connection, rows: int) -> bool:
    return bool(await value(connection, "SELECT count(*) FROM market_data") == rows)


async def _has_hours(connection: Connection, rows: int) -> bool:
    return bool(await value(connection, "SELECT count(*) FROM candle_hours") == rows)


def bar_of(one: Candle, high: float) -> BrokerBar:
    return BrokerBar(
        source=one.source, symbol=one.symbol, timeframe="M1", ts=one.ts, open=one.open, high=high, low=one.low,
        close=one.close, volume=one.volume, received=one.received,
    )  # fmt: skip


async def test_the_minutes_of_the_last_day_are_counted_by_symbol(url: str, connection: Connection) -> None:
    # Arrange: more symbols than have series of their own; of each one minute is equal and one differs
    now_ms = int(datetime.now(UTC).timestamp()) // 60 * 60_000
    symbols = [f"S{number:03}" for number in range(MAX_SYMBOLS + 3)]
    candles = [
        candle(symbol=symbol, ts=now_ms - 60_000 * ago, closed=True) for symbol in symbols for ago in (2, 3, 3_000)
    ]
    await new_writer().write(connection, candles, [bar_of(one, 1.3 + 0.1 * (one.ts % 120_000 > 0)) for one in candles])
    registry = CollectorRegistry()
    database = Database(url, asyncio.Event())

    # Act
    await Comparer(database, Metrics(registry)).step()

    # Assert
    def minutes(symbol: str, verdict: str) -> float | None:
        return registry.get_sample_value("tickpipe_sink_compared_minutes", {"symbol": symbol, "verdict": verdict})

    assert (minutes("S000", "equal"), minutes("S000", "differs"), minutes("S000", "no_bar")) == (1, 1, None)
    assert (minutes("other", "equal"), minutes("other", "differs")) == (3, 3)
    assert minutes(symbols[-1], "equal") is None
    await database.close()
