"""The stream app as a process, on a real Kafka: commits, crashes, rebalances."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from marketdata.tick import Tick
from runtime import clock
from runtime.kafka import admin_client, new_consumer
from runtime.process import EXIT_FAILED
from runtime.settings import Settings
from stream_app.app import HEARTBEAT_SECONDS
from tests.days import EURUSD_COUNT, eurusd_bars, eurusd_ticks
from tests.kafka_log import KafkaLog, frames_of
from tests.ports import free_port
from tests.services import Service, running
from tests.waiting import eventually

pytestmark = pytest.mark.long(75)


@pytest.mark.full  # sink/test_service.py and tickpipe/test_stack.py kill one service each
async def test_a_day_survives_three_kills(settings: Settings, kafka: KafkaLog) -> None:
    await kafka.send(*frames_of(eurusd_ticks(), 5))

    for ticks_before_the_kill in (5_000, 40_000, 90_000):
        with running(settings, "stream_app") as [worker]:

            async def reached(service: Service = worker, wanted: int = ticks_before_the_kill) -> bool:
                return service.metric("tickpipe_stream_ticks_total") > wanted

            await eventually(reached, what=f"{ticks_before_the_kill} ticks folded")
            worker.kill()
    with running(settings, "stream_app") as [worker]:

        async def caught_up() -> bool:
            return await kafka.lag() == 0

        await eventually(caught_up, what="no lag")
        assert worker.stop() == 0

    candles = await kafka.candles()
    assert {ts: (c.open, c.high, c.low, c.close) for (_, _, ts), c in candles.items()} == eurusd_bars()
    assert sum(candle.volume for candle in candles.values()) == EURUSD_COUNT


@pytest.mark.contract
async def test_the_commit_waits_for_the_open_minute_and_sigterm_publishes_it(
    settings: Settings, kafka: KafkaLog
) -> None:
    now_ms = clock.now_ms() // 60_000 * 60_000
    minute_before = [Tick(now_ms - 120_000 + i, 1.1, 1.2, 0.0, 0.0, 6) for i in range(3)]
    open_minute = [Tick(now_ms + i, 1.3, 1.4, 0.0, 0.0, 6) for i in range(3)]
    with running(settings, "stream_app") as [worker]:
        await kafka.send(*frames_of(minute_before, 1))

        async def folded() -> bool:
            return worker.metric("tickpipe_stream_ticks_total") == 3

        await eventually(folded, what="the minute before")
        await kafka.send(*frames_of(open_minute, 1))

        async def committed() -> bool:
            return 3 in (await kafka.committed()).values()

        await eventually(committed, what="a commit up to the open minute")
        assert worker.stop() == 0

    assert 3 in (await kafka.committed()).values(), "the open minute is folded again"
    candles = await kafka.candles()
    assert [(c.volume, c.closed) for _, c in sorted(candles.items())] == [(3, True), (3, False)]


@pytest.mark.contract
async def test_a_poll_that_a_rebalance_makes_void_is_read_again(
    settings: Settings, kafka: KafkaLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first commit: aiokafka's seek leaves a partition of which nothing is committed where it is."""
    monkeypatch.setenv("REBALANCE_ONCE", str(tmp_path / "rebalanced"))
    frames = frames_of(eurusd_ticks()[:400], 100)
    await kafka.send(*frames[:2])
    worker = Service("stream_app", settings, command=["tests.integration.stream_app.rebalanced_worker"])

    async def void() -> bool:
        return (tmp_path / "rebalanced").exists()

    async def caught_up() -> bool:
        assert worker.returncode is None, "the worker missed records"
        return await kafka.lag() == 0

    try:
        await asyncio.to_thread(worker.start().wait_ready)
        await eventually(void, what="a void poll")
        await kafka.send(*frames[2:])
        await eventually(caught_up, what="no lag")
        assert worker.stop() == 0
    finally:
        worker.close()
    assert sum(candle.volume for candle in (await kafka.candles()).values()) == 400


@pytest.mark.contract
@pytest.mark.parametrize("joined", [True, False], ids=["again", "for the first time"])
async def test_a_worker_that_its_group_refuses_ends_and_tells_why(
    settings: Settings, kafka: KafkaLog, capfd: pytest.CaptureFixture[str], joined: bool
) -> None:
    """Another takes its name while it waits to join: Faust would stand idle for ever, and nobody would know."""

    async def members() -> int:
        async with admin_client(settings) as client:
            [described] = await client.describe_consumer_groups([settings.stream_group])
            return len(described.groups[0][5])

    def member(**options: object) -> AIOKafkaConsumer:
        return new_consumer(settings, settings.ticks_topic, group_id=settings.stream_group, **options)

    async with AsyncExitStack() as stack:
        slow, newcomer, twin = member(), member(), member(group_instance_id=settings.stream_instance)
        for one in (slow, newcomer, twin):
            stack.push_async_callback(one.stop)
        await slow.start()
        worker = Service("stream_app", settings)
        joining = []
        if joined:
            await asyncio.to_thread(worker.start().wait_ready)
        # The group waits for this member, and so does everybody who joins.
        slow._coordinator.request_rejoin = lambda: None
        if joined:
            joining.append(asyncio.create_task(newcomer.start()))
            # The worker learns of it by its next heartbeat.
            await asyncio.sleep(2 * HEARTBEAT_SECONDS)
        else:
            worker.start()

            async def waits() -> bool:
                return await members() == 2

            await eventually(waits, what="the worker among the members")
        stack.callback(worker.kill)
        joining.append(asyncio.create_task(twin.start()))
        try:
            assert await asyncio.to_thread(worker.wait, 30) == EXIT_FAILED
        finally:
            del slow._coordinator.request_rejoin
            slow._coordinator.request_rejoin()
            await asyncio.gather(*joining)

    said = capfd.readouterr().err
    assert "action=same_name" in said
    assert "TICKPIPE_STREAM_INSTANCE" in said


@pytest.mark.fault
@pytest.mark.full  # a poll that a rebalance makes void is tested above
async def test_workers_come_and_go_under_load(settings: Settings, kafka: KafkaLog) -> None:
    """One worker, a second joins, the first is killed, a third joins: every minute of every symbol is whole."""
    symbols = [f"SYM{i}" for i in range(8)]
    frames = {symbol: frames_of(eurusd_ticks()[:12_000], 20, symbol) for symbol in symbols}
    others = [
        settings.model_copy(update={"stream_port": free_port(), "stream_instance": f"other-{i}"}) for i in range(2)
    ]
    workers = [Service("stream_app", one) for one in (settings, *others)]

    async def flow() -> None:
        for i in range(600):
            await kafka.send(*(frames[symbol][i] for symbol in symbols))
            await asyncio.sleep(0.015)

    try:
        workers[0].start().wait_ready()
        flowing = asyncio.create_task(flow())
        await asyncio.to_thread(lambda: workers[1].start().wait_ready())
        await asyncio.sleep(2)
        await asyncio.to_thread(workers[0].kill)
        await asyncio.to_thread(lambda: workers[2].start().wait_ready())
        await flowing

        async def caught_up() -> bool:
            return await kafka.lag() == 0

        await eventually(caught_up, what="no lag")
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()

    candles = await kafka.candles()
    for symbol in symbols:
        assert sum(candle.volume for (_, s, _), candle in candles.items() if s == symbol) == 12_000
