"""An idle sink finds and stores minutes of the newest days that the log holds and the table does not."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from marketdata.errors import KafkaUnavailable
from marketdata.tick import Frame
from runtime.settings import Settings
from sink.completeness import Checker
from sink.db.connection import Connection, Database
from sink.metrics import Metrics
from sink.writer import LogEnds, Writer
from tests.integration.sink.flow import Flow, RunningSink, value
from tests.unit.sink.candles import frame
from tests.waiting import PATIENCE_SECONDS, eventually
from tickpipe.replay.engine import set_offsets

#: A minute of an hour ago; candles of older days are left alone.
RECENT = int((datetime.now(UTC) - timedelta(hours=1)).timestamp()) // 60 * 60_000


class Checked:
    """A checker by itself, of a sink that is assigned partition 0."""

    def __init__(self, settings: Settings, own_log: str) -> None:
        self.settings = settings
        self.metrics = Metrics(CollectorRegistry())
        self.idle = asyncio.Event()
        self.idle.set()
        self.database = Database(settings.database_url.get_secret_value(), asyncio.Event())
        self.writer = Writer(LogEnds(settings, own_log), self.metrics)
        mine = {TopicPartition(settings.candles_topic, 0)}
        self.checker = Checker(
            settings, self.database, self.writer, self.metrics, idle=self.idle, assignment=lambda: mine, first_seconds=0
        )

    def counted(self, name: str) -> float:
        found = self.metrics.registry.get_sample_value(f"tickpipe_sink_{name}")
        assert found is not None
        return found


@pytest.fixture
async def checked(settings: Settings, url: str, flow: Flow) -> AsyncIterator[Checked]:
    assert url
    made = Checked(settings, flow.own_log)
    yield made
    await made.database.close()


async def folded(settings: Settings, offset: int) -> None:
    """The workers have committed, and the sinks nothing, for there are no candles."""
    await set_offsets(settings, settings.stream_group, {TopicPartition(settings.ticks_topic, 0): offset})


def recent(minutes: int, *, days: int = 0) -> Frame:
    return frame(RECENT + minutes * 60_000 - days * 86_400_000, 1.1 + minutes / 10, count=3)


async def test_what_is_missing_of_the_newest_days_is_stored(
    checked: Checked, settings: Settings, connection: Connection, flow: Flow
) -> None:
    # Arrange: the second minute has no row, one of last week neither, and the workers are not through with the last
    logged = await flow.log_frames([recent(0, days=7), recent(0), recent(1), recent(2)])
    await checked.writer.write(connection, flow.candles(logged[1:2]))
    await folded(settings, 3)

    # Act
    done = await checked.checker.step()
    again = await checked.checker.step()

    # Assert
    assert (done, again) == (True, True)
    rows = await (await connection.execute(b"SELECT ts, volume, closed FROM market_data ORDER BY ts")).fetchall()
    assert rows == [(datetime.fromtimestamp((RECENT + n * 60_000) / 1000, UTC), 3, True) for n in range(2)]
    assert (checked.counted("missing_minutes_total"), checked.counted("checked_minutes_total")) == (1, 4)
    assert datetime.now(UTC).timestamp() - checked.counted("checked_timestamp_seconds") < 30


@pytest.mark.parametrize("deletion", [b"TRUNCATE market_data", b"DELETE FROM market_data WHERE source = 'S'"])
async def test_rows_that_somebody_deleted_are_stored_again(
    checked: Checked, settings: Settings, connection: Connection, flow: Flow, deletion: bytes
) -> None:
    async def stored() -> list[Any]:
        return await (await connection.execute(b"SELECT ts, volume, offsets FROM market_data ORDER BY ts")).fetchall()

    logged = await flow.log_frames([recent(0), recent(1)])
    await checked.writer.write(connection, flow.candles(logged))
    await folded(settings, 2)
    before = await stored()
    # How far the sinks have stored the log stays as it is, so none of them would read these candles again.
    async with connection.transaction():
        await connection.execute(deletion)
    assert (len(before), await stored()) == (2, [])

    assert await checked.checker.step()

    assert await stored() == before


async def test_a_check_waits_for_live_work(
    checked: Checked, settings: Settings, connection: Connection, flow: Flow
) -> None:
    await flow.log_frames([recent(0)])
    await folded(settings, 1)
    checked.idle.clear()

    checking = asyncio.create_task(checked.checker.step())
    await asyncio.sleep(0.3)
    assert await value(connection, "SELECT count(*) FROM market_data") == 0
    checked.idle.set()

    assert await asyncio.wait_for(checking, PATIENCE_SECONDS)
    assert await value(connection, "SELECT count(*) FROM market_data") == 1


async def test_what_no_worker_has_committed_is_not_looked_at(
    checked: Checked, connection: Connection, flow: Flow
) -> None:
    await flow.log_frames([recent(0)])

    assert await checked.checker.step()

    assert await value(connection, "SELECT count(*) FROM market_data") == 0
    assert checked.counted("checked_minutes_total") == 0


async def test_a_check_goes_on_where_it_broke_off(
    checked: Checked, settings: Settings, connection: Connection, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of one minute each, the second of which fails."""
    await flow.log_frames([recent(n) for n in range(3)])
    await folded(settings, 3)
    monkeypatch.setattr("sink.completeness._BATCH_PERIODS", 1)
    for module in ("marketdata.refold", "marketdata.coverage"):
        monkeypatch.setattr(f"{module}.BRIDGE_RECORDS", 0)
    monkeypatch.setattr("marketdata.backlog.in_pieces", lambda records: ([record] for record in records))
    pauses = 0

    async def fail_once() -> None:
        nonlocal pauses
        pauses += 1
        if pauses == 3:
            raise KafkaUnavailable("away")

    monkeypatch.setattr(checked.checker, "_pause", fail_once)

    with pytest.raises(KafkaUnavailable):
        await checked.checker.step()
    before = checked.counted("checked_minutes_total")
    assert await checked.checker.step()

    assert before == 1
    assert checked.counted("checked_minutes_total") == 3
    assert await value(connection, "SELECT count(*) FROM market_data") == 3


@pytest.mark.parametrize("check_days", [2, 0])
async def test_a_sink_checks_by_itself_unless_told_not_to(
    settings: Settings, connection: Connection, flow: Flow, monkeypatch: pytest.MonkeyPatch, check_days: int
) -> None:
    # Arrange: the candle of the first minute never comes
    monkeypatch.setattr("sink.completeness.FIRST_SECONDS", 0.0)
    monkeypatch.setattr("sink.completeness._BEHIND_SECONDS", 0.2)
    logged = await flow.log_frames([recent(0), recent(1)])
    await folded(settings, 2)
    await flow.send_candles(flow.candles(logged[1:]))

    async with RunningSink(settings.model_copy(update={"check_days": check_days})) as sink:

        async def are_there() -> bool:
            return bool(await value(connection, "SELECT count(*) FROM market_data") == (2 if check_days else 1))

        # Act
        await eventually(are_there, what="the candle that came, and with a check the one that was missing")

        # Assert
        said = sink.metrics.registry.get_sample_value("tickpipe_sink_checked_timestamp_seconds")
        assert (said == 0) == (check_days == 0)
