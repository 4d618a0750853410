"""What a real database does to the sink besides going away: locks, slow statements, lost connections, a failover.

Each of them concerns the work that meets it; candles are stored all the while, and `/ready` says so.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from runtime.settings import Settings
from sink.db.connection import Connection, Database, StepSize, TooSlow, Trouble, connect, trouble_of
from sink.db.session import SERVICE_LIMITS, SQL
from sink.maintenance import Materialiser, Retainer, Retention
from sink.metrics import Metrics
from sink.service import Sink, ping
from tests.integration.sink.fixed import new_writer
from tests.integration.sink.flow import Flow, RunningSink, value
from tests.integration.sink.test_retention import MONDAY
from tests.unit.sink.candles import MINUTE, candle
from tests.waiting import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.long(48)

HOUR = 3_600_000

KILL = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND "


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sink's sessions wait 0.3 s for a lock and 1 s for a statement, instead of 10 and 30."""
    monkeypatch.setattr("sink.db.connection.SERVICE_LIMITS", replace(SERVICE_LIMITS, statement=1, lock=0.3))


async def slow_down(connection: Connection, table: str, seconds_per_row: float) -> None:
    """Each row that is inserted into the table takes so long."""
    await connection.execute(
        f"""
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep({seconds_per_row}); RETURN NEW; END $$;
        CREATE TRIGGER dawdle BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION dawdle();
        """.encode()
    )


class Feed:
    """Sends a candle every 50 ms, and knows whether the sink was ever not ready."""

    def __init__(self, flow: Flow, sink: Sink, connection: Connection) -> None:
        self._flow, self._sink, self._connection = flow, sink, connection
        self.sent = 0
        self.not_ready: list[dict[str, Any]] = []

    async def run(self) -> None:
        while True:
            await self._flow.send_candles(
                [candle(symbol="LIVE", ts=MINUTE + self.sent * 60_000, log=self._flow.own_log)]
            )
            self.sent += 1
            status, body = self._sink.health.ready()
            if status != 200:
                self.not_ready.append(body)
            await asyncio.sleep(0.05)

    async def is_long_enough(self) -> bool:
        return self.sent > 5

    async def all_stored(self) -> bool:
        query = "SELECT count(*) FROM market_data WHERE symbol = 'LIVE'"
        return bool(await value(self._connection, query) >= self.sent - 1)


@asynccontextmanager
async def feeding(flow: Flow, sink: Sink, connection: Connection) -> AsyncIterator[Feed]:
    async def is_ready() -> bool:
        return sink.health.ready()[0] == 200

    await eventually(is_ready)
    feed = Feed(flow, sink, connection)
    task = asyncio.create_task(feed.run())
    try:
        yield feed
        # At a pace of seconds, as on a busy machine, the trouble may be over sooner.
        await eventually(feed.is_long_enough)
        await eventually(feed.all_stored)
    finally:
        task.cancel()
    assert feed.not_ready == []


async def grows(registry: CollectorRegistry, task: str, kind: Trouble, least: float) -> None:
    """Wait until a task has met a kind of trouble."""

    async def has_grown() -> bool:
        labels = {"task": task, "kind": str(kind)}
        return (registry.get_sample_value("tickpipe_sink_database_trouble_total", labels) or 0) >= least

    await eventually(has_grown)


async def test_a_column_of_somebodys_own_that_must_not_be_null_delays_and_loses_nothing(
    settings: Settings, connection: Connection, flow: Flow
) -> None:
    async def stored(count: int) -> bool:
        return bool(await value(connection, "SELECT count(*) FROM market_data") == count)

    with capture_logs() as lines:
        async with RunningSink(settings) as sink:
            await flow.send_candles([candle(ts=MINUTE, log=flow.own_log)])
            await eventually(partial(stored, 1))
            await connection.execute(
                b"BEGIN; ALTER TABLE market_data ADD COLUMN desk int; UPDATE market_data SET desk = 1;"
                b"ALTER TABLE market_data ALTER COLUMN desk SET NOT NULL; COMMIT"
            )
            await flow.send_candles([candle(ts=MINUTE + 60_000, log=flow.own_log)])

            async def is_told() -> bool:
                return any("has a column desk, not Tickpipe's" in str(line.get("error")) for line in lines)

            await eventually(is_told)
            assert sink.health.ready()[0] == 503
            await connection.execute(b"ALTER TABLE market_data DROP COLUMN desk")
            await eventually(partial(stored, 2))
    assert not [line for line in lines if line["action"] == "candle_rejected"]


@pytest.mark.usefixtures("impatient")
async def test_a_lock_on_the_kept_hours_holds_up_the_keeper_alone(
    settings: Settings, url: str, connection: Connection, flow: Flow
) -> None:
    # Arrange: hours to keep
    await new_writer().write(connection, [candle(ts=MINUTE + n * HOUR) for n in range(3)])
    await connection.execute(b"UPDATE stale_hours SET changed_at = changed_at - interval '1 minute'")
    registry = CollectorRegistry()
    async with await connect(url) as other, other.transaction():
        await other.execute(b"LOCK TABLE candle_hours IN ACCESS EXCLUSIVE MODE")

        # Act
        with capture_logs() as lines:
            async with RunningSink(settings, registry=registry) as sink, feeding(flow, sink, connection):
                await grows(registry, "materialise", Trouble.BUSY, 2)
                assert registry.get_sample_value("tickpipe_sink_database_up") == 1

    # Assert: it said once that the database answers, for that never changed
    assert [line["action"] for line in lines].count("database_up") == 1
    assert {line["trouble"] for line in lines if line["action"] == "database_wait"} == {"busy"}


@pytest.mark.usefixtures("impatient")
async def test_a_lock_on_the_candles_delays_them_and_is_no_outage(
    settings: Settings, url: str, connection: Connection, flow: Flow
) -> None:
    registry = CollectorRegistry()
    async with (
        RunningSink(settings, registry=registry) as sink,
        feeding(flow, sink, connection),
        await connect(url) as other,
        other.transaction(),
    ):
        await other.execute(b"LOCK TABLE market_data IN ACCESS EXCLUSIVE MODE")
        await grows(registry, "live", Trouble.BUSY, 2)
        assert registry.get_sample_value("tickpipe_sink_database_up") == 1


@pytest.mark.usefixtures("impatient")
async def test_hours_that_take_too_long_together_are_kept_in_smaller_steps(
    settings: Settings, connection: Connection, flow: Flow
) -> None:
    # Arrange: 120 hours of 20 ms are more than the second that a statement may take
    await new_writer().write(connection, [candle(ts=MINUTE + n * HOUR) for n in range(120)])
    await connection.execute(b"UPDATE stale_hours SET changed_at = changed_at - interval '1 minute'")
    await slow_down(connection, "candle_hours", 0.02)
    registry = CollectorRegistry()

    async def are_kept() -> bool:
        return bool(await value(connection, "SELECT count(*) FROM candle_hours WHERE symbol = 'EURUSD'") == 120)

    # Act
    async with RunningSink(settings, registry=registry) as sink, feeding(flow, sink, connection):
        await eventually(are_kept)

    # Assert
    labels = {"task": "materialise", "kind": "too_slow"}
    assert (registry.get_sample_value("tickpipe_sink_database_trouble_total", labels) or 0) >= 1


@pytest.mark.usefixtures("impatient")
async def test_a_batch_that_takes_too_long_is_stored_in_smaller_ones(
    settings: Settings, connection: Connection, flow: Flow
) -> None:
    # Arrange: 900 candles of 3 ms are more than the second that a statement may take
    await slow_down(connection, "market_data", 0.003)
    await flow.send_candles([candle(ts=MINUTE + n * 60_000, log=flow.own_log) for n in range(900)])
    registry = CollectorRegistry()

    async def are_stored() -> bool:
        return bool(await value(connection, "SELECT count(*) FROM market_data") == 900)

    # Act and Assert
    async with RunningSink(settings, registry=registry) as sink:
        await eventually(are_stored)
        assert sink.health.ready()[0] == 200
    labels = {"task": "live", "kind": "too_slow"}
    assert (registry.get_sample_value("tickpipe_sink_database_trouble_total", labels) or 0) >= 1


async def test_lost_background_connections_are_opened_again_and_concern_nobody_else(
    settings: Settings, connection: Connection, flow: Flow
) -> None:
    registry = CollectorRegistry()
    with capture_logs() as lines:
        async with RunningSink(settings, registry=registry) as sink, feeding(flow, sink, connection):
            for _ in range(5):
                await value(
                    connection, KILL + "application_name LIKE 'tickpipe %%' AND application_name <> %s", "tickpipe live"
                )
                await asyncio.sleep(0.3)
            await grows(registry, "refold", Trouble.AWAY, 2)
    assert [line["action"] for line in lines].count("database_up") == 1


async def test_a_lost_live_connection_is_noticed_without_candles(
    settings: Settings, connection: Connection, flow: Flow
) -> None:
    registry = CollectorRegistry()
    async with RunningSink(settings, registry=registry) as sink:

        async def is_ready() -> bool:
            return sink.health.ready()[0] == 200

        await eventually(is_ready)
        assert await value(connection, KILL + "application_name = %s", "tickpipe live") == 1
        await grows(registry, "live", Trouble.AWAY, 1)
        await eventually(is_ready)


async def test_a_standby_is_left_for_the_primary(url: str, connection: Connection) -> None:
    """After a failover behind one address the open connection leads to a server that refuses every write."""
    states: list[bool] = []
    database = Database(url, asyncio.Event(), on_state=states.append)
    await (await database.connection()).execute(b"SET default_transaction_read_only = on")

    async def write(own: Connection) -> None:
        await own.execute(b"INSERT INTO pending_refolds SELECT * FROM pending_refolds")

    await asyncio.wait_for(database.run(write), PATIENCE_SECONDS)
    assert states == [False, True]
    await database.close()


async def test_an_idle_sink_notices_that_the_server_takes_no_more_writes(url: str) -> None:
    states: list[bool] = []
    database = Database(url, asyncio.Event(), on_state=states.append)
    await (await database.connection()).execute(b"SET default_transaction_read_only = on")

    await asyncio.wait_for(database.run(ping), PATIENCE_SECONDS)
    assert states == [False, True]
    await database.close()


@pytest.mark.full
async def test_retention_deletes_less_at_a_time_when_it_takes_too_long(url: str, connection: Connection) -> None:
    # Arrange: two days of minutes of which each takes 2 ms to delete
    await new_writer().write(connection, [candle(ts=MINUTE + n * 60_000) for n in range(2_880)])
    await connection.execute(SQL["refresh_candles"], {"quiet": MONDAY - MONDAY, "max_hours": 1_000})
    await connection.execute(
        b"""
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(0.002); RETURN OLD; END $$;
        CREATE TRIGGER dawdle BEFORE DELETE ON market_data FOR EACH ROW EXECUTE FUNCTION dawdle();
        """
    )
    troubles: list[Trouble] = []
    database = Database(url, asyncio.Event(), on_trouble=lambda _, trouble: troubles.append(trouble))
    await (await database.connection()).execute(b"SET statement_timeout = '400ms'")

    # Act
    retention = Retention(MONDAY - MONDAY.replace(day=3), None, None)
    deleted = await asyncio.wait_for(
        Retainer(database, retention, now=lambda: MONDAY.replace(month=5)).step(), PATIENCE_SECONDS
    )

    # Assert
    assert deleted is not None
    assert deleted.minutes == 2_880
    assert troubles == [Trouble.TOO_SLOW] * len(troubles)
    assert troubles
    await database.close()


async def test_history_is_folded_by_fewer_days_when_it_takes_too_long(url: str, connection: Connection) -> None:
    # Arrange: 300 hours of history that no step has folded yet
    await new_writer().write(connection, [candle(ts=MINUTE + n * HOUR) for n in range(300)])
    await connection.execute(b"SELECT set_candle_day('Asia/Kolkata')")
    await slow_down(connection, "candle_hours", 0.005)
    troubles: list[Trouble] = []
    database = Database(url, asyncio.Event(), on_trouble=lambda _, trouble: troubles.append(trouble))
    await (await database.connection()).execute(b"SET statement_timeout = '500ms'")
    keeper = Materialiser(database, Metrics(CollectorRegistry()), quiet_seconds=0.0)

    # Act
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await value(connection, "SELECT materialised_from > '-infinity' FROM candle_settings"):
            await keeper.step()

    # Assert
    assert await value(connection, "SELECT count(*) FROM candle_hours") == 300
    assert Trouble.TOO_SLOW in troubles
    await database.close()


async def test_waiting_for_the_database_does_not_make_work_smaller(url: str, connection: Connection) -> None:
    # Arrange: a lock is held for longer than a step may take
    database = Database(url, asyncio.Event())
    await (await database.connection()).execute(b"SET lock_timeout = '50ms'")
    size = StepSize(8, goal_seconds=0.3)

    async def work(own: Connection, _: int) -> None:
        await own.execute(b"SELECT FROM market_data")

    # Act
    async with connection.transaction():
        await connection.execute(b"LOCK TABLE market_data IN ACCESS EXCLUSIVE MODE")
        waiting = asyncio.create_task(database.run_sized(work, size))
        await asyncio.sleep(1.0)
    await asyncio.wait_for(waiting, PATIENCE_SECONDS)

    # Assert
    assert size.value == 8
    await database.close()


async def test_what_cannot_be_smaller_is_handed_back(url: str) -> None:
    database = Database(url, asyncio.Event())
    await (await database.connection()).execute(b"SET statement_timeout = '50ms'")
    sizes: list[int] = []

    async def work(connection: Connection, size: int) -> None:
        sizes.append(size)
        await connection.execute(b"SELECT pg_sleep(1)")

    with pytest.raises(TooSlow):
        await asyncio.wait_for(database.run_sized(work, StepSize(5, goal_seconds=1.0)), PATIENCE_SECONDS)
    assert sizes == [5, 2, 1]
    await database.close()


async def test_every_kind_of_trouble_is_told_apart(url: str, connection: Connection) -> None:
    async def error_of(statement: bytes) -> psycopg.Error:
        with pytest.raises(psycopg.Error) as caught:
            await connection.execute(statement)
        return caught.value

    async with await connect(url) as other, other.transaction():
        await other.execute(b"LOCK TABLE market_data")
        await connection.execute(b"SET lock_timeout = '50ms'")
        assert trouble_of(await error_of(b"SELECT FROM market_data")) is Trouble.BUSY
    await connection.execute(b"SET statement_timeout = '50ms'")
    assert trouble_of(await error_of(b"SELECT pg_sleep(1)")) is Trouble.TOO_SLOW
    await connection.execute(b"SET default_transaction_read_only = on")
    assert trouble_of(await error_of(b"TRUNCATE market_data")) is Trouble.AWAY
    # At READ COMMITTED only a standby says so, of a query that is in the way of the primary's changes.
    assert trouble_of(await error_of(b"DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")) is Trouble.AWAY
    assert trouble_of(await error_of(b"SELECT nothing")) is None
    assert trouble_of(await error_of(b"SELECT 1 / 0")) is None
    assert trouble_of(await error_of(b"SELECT pg_terminate_backend(pg_backend_pid())")) is Trouble.AWAY
    with pytest.raises(psycopg.OperationalError) as refused:
        await connect("postgresql://127.0.0.1:1/nowhere?connect_timeout=1")
    assert trouble_of(refused.value) is Trouble.AWAY
    assert trouble_of(ConnectionResetError()) is Trouble.AWAY


@pytest.mark.usefixtures("impatient")
async def test_a_database_that_was_away_is_back_when_work_was_done_and_not_when_it_is_busy(
    url: str, connection: Connection
) -> None:
    # Arrange
    states: list[bool] = []
    troubles: list[Trouble] = []
    database = Database(
        url, asyncio.Event(), name="test", on_state=states.append, on_trouble=lambda _, kind: troubles.append(kind)
    )

    async def is_busy() -> bool:
        return Trouble.BUSY in troubles

    async def work(own: Connection) -> None:
        await own.execute(b"DELETE FROM market_data")

    await database.run(work)

    # Act
    async with connection.transaction():
        await connection.execute(b"LOCK TABLE market_data")
        await connection.execute(KILL.encode() + b"application_name = 'tickpipe test'")
        working = asyncio.create_task(database.run(work))
        await eventually(is_busy)
        before = list(states)
    await working

    # Assert
    assert troubles[0] is Trouble.AWAY
    assert (before, states) == ([True, False], [True, False, True])
    await database.close()
