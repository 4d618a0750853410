"""A minute that was stamped ahead is closed when its time has come, and not before all of the log is stored."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from runtime.kafka import SharedAdmin
from runtime.settings import Settings
from sink.db.connection import Connection, Database
from sink.maintenance import Closer
from sink.metrics import Metrics
from tests.integration.sink.fixed import new_writer
from tests.integration.sink.flow import Flow, RunningSink, value
from tests.unit.sink.candles import candle, frame
from tests.waiting import eventually
from tickpipe.replay.engine import set_offsets

#: The minute of a tick that was stamped tomorrow.
AHEAD = (datetime.now(UTC) + timedelta(days=1)).replace(second=0, microsecond=0)
AHEAD_MS = int(AHEAD.timestamp() * 1000)

OPEN = "SELECT count(*)::int FROM market_data WHERE NOT closed"


async def folded(settings: Settings, offset: int) -> None:
    """The workers have committed so far."""
    await set_offsets(settings, settings.stream_group, {TopicPartition(settings.ticks_topic, 0): offset})


async def stored(settings: Settings, offset: int) -> None:
    """The sink has committed so far."""
    await set_offsets(settings, settings.sink_group, {TopicPartition(settings.candles_topic, 0): offset})


def new_closer(settings: Settings, admin: SharedAdmin) -> Closer:
    database = Database(settings.database_url.get_secret_value(), asyncio.Event())
    return Closer(settings.model_copy(update={"grace_seconds": 5.0}), admin, database, Metrics(CollectorRegistry()))


@pytest.fixture
async def admin(settings: Settings) -> AsyncIterator[SharedAdmin]:
    async with aclosing(SharedAdmin(settings)) as shared:
        yield shared


@pytest.fixture
async def closer(settings: Settings, admin: SharedAdmin, connection: Connection, flow: Flow) -> Closer:
    """Of a table with one open minute, of a log whose one record was folded and stored."""
    (logged,) = await flow.log_frames([frame(AHEAD_MS, 1.2)])
    (made,) = flow.candles([logged])
    await flow.send_candles([made])
    await new_writer().write(connection, [candle(made.offsets, ts=AHEAD_MS)])
    await folded(settings, 1)
    await stored(settings, 1)
    return new_closer(settings, admin)


async def test_a_minute_stamped_ahead_is_closed_when_its_time_has_come(
    settings: Settings, admin: SharedAdmin, connection: Connection, closer: Closer
) -> None:
    assert [await closer.close(connection, now=AHEAD + timedelta(seconds=s)) for s in (-300, -240, -180, -120)] == [
        0
    ] * 4
    # Read at 10:01:04 the minute of 10:00 is over for a second less than the grace; read at 10:01:05 it is over.
    early = new_closer(settings, admin)
    assert [await early.close(connection, now=AHEAD + timedelta(seconds=64 + n / 10)) for n in range(3)] == [0] * 3
    assert await value(connection, OPEN) == 1

    assert [await closer.close(connection, now=AHEAD + timedelta(seconds=65 + n)) for n in range(3)] == [0, 0, 1]
    assert await value(connection, OPEN) == 0
    assert await closer.close(connection, now=AHEAD + timedelta(seconds=90)) == 0


async def test_nothing_is_closed_while_the_log_holds_what_is_not_stored(
    settings: Settings, connection: Connection, flow: Flow, closer: Closer
) -> None:
    def late(minutes: int) -> datetime:
        return AHEAD + timedelta(minutes=minutes)

    # One record that no worker has folded.
    await flow.log_frames([frame(AHEAD_MS + 100, 1.3)])
    assert [await closer.close(connection, now=late(n)) for n in range(2, 6)] == [0] * 4
    # Folded, and its candle on its way.
    await flow.send_candles([candle(ts=AHEAD_MS)])
    await folded(settings, 2)
    assert [await closer.close(connection, now=late(n)) for n in range(6, 10)] == [0] * 4
    await stored(settings, 2)
    assert await closer.close(connection, now=late(10)) == 1


async def test_a_minute_that_waits_for_a_refold_is_left_to_it(connection: Connection, closer: Closer) -> None:
    await connection.execute(
        b"INSERT INTO pending_refolds SELECT source, symbol, timeframe, ts, log, offsets, false FROM market_data"
    )
    assert [await closer.close(connection, now=AHEAD + timedelta(minutes=5 + n)) for n in range(4)] == [0] * 4
    assert await value(connection, OPEN) == 1


async def test_a_running_sink_closes_it(
    settings: Settings, connection: Connection, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Arrange: yesterday it was stamped ahead, and forgotten
    monkeypatch.setattr(Closer, "interval_seconds", 0.2)
    (logged,) = await flow.log_frames([frame(AHEAD_MS - 2 * 86_400_000, 1.2)])
    (made,) = flow.candles([logged])
    await new_writer().write(connection, [candle(made.offsets, ts=made.ts)])
    await connection.execute(b"UPDATE market_data SET stored_at = now() - interval '1 hour'")
    await folded(settings, 1)

    async def is_closed() -> bool:
        return bool(await value(connection, OPEN) == 0)

    # Act and Assert
    async with RunningSink(settings):
        await eventually(is_closed)
