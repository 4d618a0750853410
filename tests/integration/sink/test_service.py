import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from prometheus_client import CollectorRegistry

from marketdata.candle import BrokerBar
from marketdata.wire import candle_key, encode
from runtime.service import PeriodicTask
from runtime.settings import Settings
from sink.db.connection import Connection, connect
from sink.maintenance import Comparer, Materialiser, Retainer
from sink.progress import LagMeter
from sink.refolds import Refolder
from sink.verify import verify
from tests.integration.sink.flow import Flow, RunningSink, rejected_records, value
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import Service
from tests.unit.sink.candles import MINUTE, candle, frame
from tests.waiting import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.long(75)


@pytest.fixture(scope="module")
def servers(own_servers: EmbeddedServers) -> EmbeddedServers:
    """Servers that the tests of this file stop."""
    return own_servers


def _rows_are(connection: Connection, expected: int) -> "_Condition":
    return _Condition(connection, "SELECT count(*) FROM market_data", expected)


class _Condition:
    """Whether a query returns what is expected."""

    def __init__(self, connection: Connection, query: str, expected: object) -> None:
        self._about = connection, query, expected

    async def __call__(self) -> bool:
        connection, query, expected = self._about
        return bool(await value(connection, query) == expected)


async def test_candles_and_bars_reach_the_table(settings: Settings, connection: Connection, flow: Flow) -> None:
    # Arrange
    logged = await flow.log_frames([frame(MINUTE + i * 10_000, 1.2, count=2) for i in range(60)])
    hour = BrokerBar(
        source="S", symbol="EURUSD", timeframe="H1", ts=MINUTE, open=1.2, high=1.3, low=1.1, close=1.2, volume=120,
        received=MINUTE,
    )  # fmt: skip
    await flow.send_candles(flow.candles(logged, every=3))
    await flow.send_bars([hour])

    # Act
    async with RunningSink(settings):
        await eventually(_rows_are(connection, 11))

    # Assert
    assert await value(connection, "SELECT sum(volume) FROM market_data WHERE timeframe = 'M1'") == 120
    assert await value(connection, "SELECT bool_and(closed) FROM market_data") is True
    assert await value(connection, "SELECT origin FROM market_data WHERE timeframe = 'H1'") == "broker"
    report = await verify(settings)
    assert (report.checked, report.equal) == (10, 10)


async def test_a_restart_goes_on_where_the_last_one_stopped(
    settings: Settings, connection: Connection, flow: Flow
) -> None:
    # Arrange
    await flow.send_candles([candle(ts=MINUTE + i * 60_000, log=flow.own_log) for i in range(10)])
    async with RunningSink(settings) as first:
        await eventually(_rows_are(connection, 10))
    await flow.send_candles([candle(ts=MINUTE + i * 60_000, log=flow.own_log) for i in range(10, 15)])

    # Act
    async with RunningSink(settings) as second:
        await eventually(_rows_are(connection, 15))

    # Assert: the offsets were committed at the stop, so the first ten were read once
    counted = [
        sink.metrics.registry.get_sample_value("tickpipe_sink_rows_total", {"action": "inserted"})
        for sink in (first, second)
    ]
    assert counted == [10, 5]
    assert second.metrics.registry.get_sample_value("tickpipe_sink_rows_total", {"action": "ignored"}) in (None, 0)


async def test_poison_and_refused_rows_are_set_aside(settings: Settings, connection: Connection, flow: Flow) -> None:
    # Arrange
    good = [candle(ts=MINUTE + i * 60_000, log=flow.own_log) for i in range(30)]
    too_wide = candle(ts=MINUTE, symbol="GBPUSD", spread=2**40, log=flow.own_log)
    nul = candle(ts=MINUTE, symbol="X\0Y", log=flow.own_log)
    records = [(candle_key(c), encode(c)) for c in [*good[:10], too_wide, *good[10:20], nul, *good[20:]]]
    records.insert(5, (b"k", b"\xff not json"))
    await flow.send(settings.candles_topic, records)
    await flow.send(settings.broker_candles_topic, [(b"bar", b"{}")])

    # Act
    async with RunningSink(settings):
        await eventually(_rows_are(connection, 30))
        rejected = await rejected_records(settings, 4)

    # Assert: as they came, with the reason and the place
    found = {record.key: record for record in rejected}
    assert len(rejected) == len(found) == 4
    assert found[b"k"].value == b"\xff not json"
    assert found[candle_key(too_wide)].value == encode(too_wide)
    headers = dict(found[candle_key(too_wide)].headers)
    assert headers["topic"] == settings.candles_topic.encode()
    assert (headers["partition"], headers["offset"]) == (b"0", b"11")
    assert b"the database refuses it" in headers["reason"]
    assert candle_key(nul) in found
    assert dict(found[b"bar"].headers)["topic"] == settings.broker_candles_topic.encode()


async def test_two_sinks_share_the_work_and_end_with_the_same(
    settings: Settings, connection: Connection, flow: Flow
) -> None:
    # Arrange: both read everything, as after a rebalance that moved every partition
    other = settings.model_copy(update={"sink_group": f"{settings.sink_group}-other"})
    logged = await flow.log_frames([frame(MINUTE + i * 2_000, 1.2 + i / 10_000, count=2) for i in range(600)])
    await flow.send_candles(flow.candles(logged, every=1))

    # Act
    async with RunningSink(settings), RunningSink(other):
        await eventually(_Condition(connection, "SELECT coalesce(sum(volume), 0) FROM market_data WHERE closed", 1200))

    # Assert
    report = await verify(settings)
    assert (report.checked, report.equal, report.pending) == (20, 20, [])


async def test_a_partition_is_handed_over(settings: Settings, connection: Connection, flow: Flow) -> None:
    # Arrange
    async with RunningSink(settings):
        await flow.send_candles([candle(ts=MINUTE, log=flow.own_log)])
        await eventually(_rows_are(connection, 1))

        # Act: a second member of the group makes Kafka move partitions under way
        async with RunningSink(settings):
            await flow.send_candles([candle(ts=MINUTE + i * 60_000, log=flow.own_log) for i in range(1, 100)])
            await eventually(_rows_are(connection, 100))

        # Assert: the first one has them all again
        await flow.send_candles([candle(ts=MINUTE + 6_000_000, log=flow.own_log)])
        await eventually(_rows_are(connection, 101))


@pytest.mark.fault
@pytest.mark.parametrize("how", [pytest.param("stop_postgres", marks=pytest.mark.full), "kill_postgres"])
async def test_a_database_outage_loses_nothing(
    servers: EmbeddedServers, settings: Settings, url: str, flow: Flow, how: str
) -> None:
    # Arrange
    logged = await flow.log_frames([frame(MINUTE + i * 2_000, 1.2 + i / 10_000, count=2) for i in range(900)])
    emitted = flow.candles(logged, every=1)
    registry = CollectorRegistry()
    async with RunningSink(settings, registry=registry) as sink:
        # Act: it goes away in the middle of the flow
        await flow.send_candles(emitted[:300])
        await eventually(lambda: _is(sink.health.passes("database")))
        await asyncio.to_thread(getattr(servers, how))
        try:
            await flow.send_candles(emitted[300:])
            await eventually(lambda: _is(not sink.health.passes("database")))
            assert registry.get_sample_value("tickpipe_sink_database_up") == 0
        finally:
            await asyncio.to_thread(servers.start_postgres)
        async with await connect(url) as connection:
            await eventually(
                _Condition(connection, "SELECT coalesce(sum(volume), 0) FROM market_data WHERE closed", 1800)
            )

    # Assert
    report = await verify(settings)
    assert (report.checked, report.equal, report.pending) == (30, 30, [])


@pytest.mark.fault
async def test_a_sink_that_is_told_to_stop_during_an_outage_ends(
    servers: EmbeddedServers, settings: Settings, url: str, flow: Flow
) -> None:
    # Arrange
    async with RunningSink(settings) as sink:
        await eventually(lambda: _is(sink.health.ready()[0] == 200))
        await asyncio.to_thread(servers.stop_postgres)
        await flow.send_candles([candle(log=flow.own_log)])
        await eventually(lambda: _is(not sink.health.passes("database")))
    # Act: leaving the block stopped it; the next one finds the candle
    await asyncio.to_thread(servers.start_postgres)
    async with await connect(url) as connection, RunningSink(settings):
        await eventually(_rows_are(connection, 1))


@pytest.mark.fault
@pytest.mark.parametrize("server", [pytest.param("kafka", marks=pytest.mark.full), "postgres"])
async def test_a_sink_that_starts_too_early_waits(
    servers: EmbeddedServers, settings: Settings, url: str, flow: Flow, server: str
) -> None:
    # Arrange
    await flow.send_candles([candle(log=flow.own_log)])
    await asyncio.to_thread(getattr(servers, f"stop_{server}"))
    try:
        async with RunningSink(settings):
            await asyncio.sleep(1.5)
        # Act: told to stop while it waited it ended, and the next one waits as well
        async with RunningSink(settings):
            await asyncio.sleep(1.0)
            await asyncio.to_thread(getattr(servers, f"start_{server}"))
            # Assert
            async with await connect(url) as connection:
                await eventually(_rows_are(connection, 1))
    finally:
        await asyncio.to_thread(getattr(servers, f"start_{server}"))


@pytest.mark.full  # producer/test_outage.py loses its broker
@pytest.mark.fault
async def test_kafka_may_go_and_come_back(
    servers: EmbeddedServers, settings: Settings, connection: Connection, flow: Flow
) -> None:
    async with RunningSink(settings):
        await flow.send_candles([candle(log=flow.own_log)])
        await eventually(_rows_are(connection, 1))
        await asyncio.to_thread(servers.kill_kafka)
        await asyncio.sleep(1)
        await asyncio.to_thread(servers.start_kafka)
        await flow.send_candles([candle(ts=MINUTE + 60_000, log=flow.own_log)])
        await eventually(_rows_are(connection, 2))


@contextmanager
def _process(settings: Settings) -> Iterator[Service]:
    service = Service("sink", settings.model_copy(update={"sink_port": free_port()})).start()
    try:
        yield service
    finally:
        service.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.full)])
async def test_the_process_ends_with_0_when_told_to(
    settings: Settings, connection: Connection, flow: Flow, number: signal.Signals
) -> None:
    # Arrange
    await flow.send_candles([candle(log=flow.own_log)])

    # Act
    with _process(settings) as process:
        await eventually(_rows_are(connection, 1))
        process.send_signal(number)
        code = await asyncio.to_thread(process.wait)

    # Assert
    assert code == 0


@pytest.mark.fault
async def test_a_killed_sink_loses_nothing(settings: Settings, connection: Connection, flow: Flow) -> None:
    # Arrange
    logged = await flow.log_frames([frame(MINUTE + i * 1_000, 1.2 + i / 10_000, count=2) for i in range(1800)])
    emitted = flow.candles(logged, every=1)

    # Act: killed while it stores; the next one gets the partition when the session has run out
    with _process(settings) as process:
        sending = asyncio.create_task(flow.send_candles(emitted * 10))
        await eventually(_Condition(connection, "SELECT count(*) > 0 FROM market_data", True))
        process.kill()
    await sending
    async with RunningSink(settings):
        await eventually(_Condition(connection, "SELECT coalesce(sum(volume), 0) FROM market_data WHERE closed", 3600))

    # Assert
    report = await verify(settings)
    assert (report.checked, report.equal, report.pending) == (30, 30, [])


async def test_what_nobody_foresaw_ends_the_sink_before_the_commit(
    settings: Settings, connection: Connection, flow: Flow
) -> None:
    # Arrange: somebody renamed a column
    await connection.execute(b"ALTER TABLE market_data RENAME COLUMN spread TO spread_points")
    running = RunningSink(settings)
    await flow.send_candles([candle(log=flow.own_log)])

    # Act and Assert
    with pytest.raises(Exception, match="spread"):
        await asyncio.wait_for(running.sink.run(), PATIENCE_SECONDS)
    await connection.execute(b"ALTER TABLE market_data RENAME COLUMN spread_points TO spread")
    async with RunningSink(settings):
        await eventually(_rows_are(connection, 1))


async def test_rows_do_not_wait_for_a_commit_of_offsets(
    settings: Settings, connection: Connection, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Arrange: Kafka is busy, and confirms no commit for a while
    begun, confirmed = asyncio.Event(), asyncio.Event()
    commit = AIOKafkaConsumer.commit

    async def late(self: AIOKafkaConsumer, offsets: Any) -> None:
        begun.set()
        await confirmed.wait()
        await commit(self, offsets)

    monkeypatch.setattr(AIOKafkaConsumer, "commit", late)
    async with RunningSink(settings):
        await flow.send_candles([candle(log=flow.own_log)])
        await asyncio.wait_for(begun.wait(), PATIENCE_SECONDS)

        # Act
        for minute in range(1, 4):
            await flow.send_candles([candle(ts=MINUTE + minute * 60_000, log=flow.own_log)])
            await eventually(_rows_are(connection, 1 + minute), within_seconds=5)
        assert not confirmed.is_set()
        confirmed.set()

    # Assert: what was stored meanwhile is committed as well
    async with RunningSink(settings) as second:
        await flow.send_candles([candle(ts=MINUTE + 4 * 60_000, log=flow.own_log)])
        await eventually(_rows_are(connection, 5))
    assert second.metrics.registry.get_sample_value("tickpipe_sink_rows_total", {"action": "ignored"}) in (None, 0)


@pytest.mark.parametrize(
    "task",
    [Refolder, *(pytest.param(one, marks=pytest.mark.full) for one in (Materialiser, Comparer, Retainer, LagMeter))],
)
async def test_a_background_task_that_fails_leaves_the_flow_alone(
    settings: Settings,
    connection: Connection,
    flow: Flow,
    monkeypatch: pytest.MonkeyPatch,
    task: type[PeriodicTask[Any]],
) -> None:
    # Arrange
    calls = 0

    async def fail(_: object) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("a bug")

    monkeypatch.setattr(task, "step", fail)
    registry = CollectorRegistry()

    # Act
    async with RunningSink(settings, registry=registry) as sink:
        await flow.send_candles([candle(log=flow.own_log)])
        await eventually(_rows_are(connection, 1))

        # Assert
        assert calls
        assert registry.get_sample_value("tickpipe_task_failures_total", {"task": task.name}) == calls
        assert sink.health.health()[0] == 200
    assert sink.exit_code == 0


async def _is(condition: object) -> bool:
    return bool(condition)
