"""A worker that sleeps through its session, a broker that dies: folding goes on and every minute is whole."""

import asyncio
import signal

import httpx
import pytest

from runtime.settings import Settings
from tests.days import eurusd_ticks
from tests.kafka_log import KafkaLog, frames_of
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import Service, running
from tests.waiting import eventually

pytestmark = [pytest.mark.fault, pytest.mark.long(80)]

#: Longer than the session timeout of a worker (10 s).
OUTLIVED_SECONDS = 14.0

#: Ticks of each symbol that flow in a second.
RATE = 400


@pytest.fixture(scope="module")
def servers(own_servers: EmbeddedServers) -> EmbeddedServers:
    """Servers that the tests of this file stop."""
    return own_servers


async def flow(kafka: KafkaLog, symbols: list[str], seconds: int) -> None:
    """The day's first ticks for every symbol, at live pace as far as requests go; an outage comes on top."""
    frames = {symbol: frames_of(eurusd_ticks()[: RATE * seconds], 20, symbol) for symbol in symbols}
    for i in range(RATE * seconds // 20):
        await kafka.send(*(frames[symbol][i] for symbol in symbols))
        await asyncio.sleep(0.05)


async def assert_whole(kafka: KafkaLog, symbols: list[str], seconds: int) -> None:
    candles = await kafka.candles()
    for symbol in symbols:
        assert sum(candle.volume for (_, s, _), candle in candles.items() if s == symbol) == RATE * seconds


async def caught_up(kafka: KafkaLog) -> None:
    """Wait until everything is folded and committed."""

    async def is_done() -> bool:
        return await kafka.lag() == 0

    await eventually(is_done, what="no lag")


async def keep_running(workers: list[Service]) -> None:
    """What a supervisor does."""
    while True:
        for worker in workers:
            if worker.returncode is not None:
                worker.start()
        await asyncio.sleep(0.5)


@pytest.mark.full  # test_worker.py has what becomes of a poll that a rebalance makes void
async def test_a_worker_that_sleeps_through_its_session_spoils_nothing(settings: Settings, kafka: KafkaLog) -> None:
    symbols = [f"SYM{i}" for i in range(8)]
    other = settings.model_copy(update={"stream_port": free_port(), "stream_instance": "other"})
    workers = [Service("stream_app", settings), Service("stream_app", other)]
    supervising: asyncio.Task[None] | None = None
    try:
        for worker in workers:
            await asyncio.to_thread(lambda one: one.start().wait_ready(), worker)
        supervising = asyncio.create_task(keep_running(workers))
        flowing = asyncio.create_task(flow(kafka, symbols, 18))
        await asyncio.sleep(3)
        workers[0].send_signal(signal.SIGSTOP)
        await asyncio.sleep(OUTLIVED_SECONDS)
        # It wakes as the owner of partitions that the other has taken over, with half-folded minutes in memory.
        workers[0].send_signal(signal.SIGCONT)
        await flowing
        await caught_up(kafka)
    finally:
        if supervising is not None:
            supervising.cancel()
        for worker in workers:
            if worker.returncode is None:
                worker.kill()

    await assert_whole(kafka, symbols, 18)


@pytest.mark.full  # producer/test_outage.py and sink/test_service.py lose their broker
async def test_folding_and_commits_go_on_after_the_broker_was_killed(
    settings: Settings, kafka: KafkaLog, servers: EmbeddedServers
) -> None:
    symbols = ["EURUSD", "GBPUSD"]
    with running(settings, "stream_app") as [worker]:
        supervising = asyncio.create_task(keep_running([worker]))
        flowing = asyncio.create_task(flow(kafka, symbols, 9))
        await asyncio.sleep(3)
        await asyncio.to_thread(servers.kill_kafka)
        await asyncio.sleep(2)
        await asyncio.to_thread(servers.start_kafka)
        committed_before = sum((await kafka.committed()).values())

        async def committing() -> bool:
            return sum((await kafka.committed()).values()) > committed_before

        await eventually(committing, what="commits after the broker is back")
        await flowing
        await caught_up(kafka)
        supervising.cancel()

    await assert_whole(kafka, symbols, 9)


@pytest.mark.full
@pytest.mark.parametrize("seconds_after_start", [1.5, 1.9])
async def test_a_worker_that_joins_while_the_broker_comes_up_gets_its_partitions(
    settings: Settings, kafka: KafkaLog, servers: EmbeddedServers, seconds_after_start: float
) -> None:
    """It may join before the broker tells the topic's partitions; it must not stay without them for long."""
    worker = Service("stream_app", settings).start()
    supervising = asyncio.create_task(keep_running([worker]))
    try:
        await asyncio.sleep(seconds_after_start)
        await asyncio.to_thread(servers.kill_kafka)
        await asyncio.to_thread(servers.start_kafka)

        async def owns_all() -> bool:
            try:
                return worker.metric("tickpipe_stream_partitions") == settings.kafka_partitions
            except httpx.HTTPError:
                return False

        await eventually(owns_all, what="all partitions")
    finally:
        supervising.cancel()
        worker.kill()


@pytest.mark.full
async def test_two_workers_of_one_name_say_so_and_lose_nothing(
    settings: Settings, kafka: KafkaLog, capfd: pytest.CaptureFixture[str]
) -> None:
    symbols = ["SYM0", "SYM1"]
    named = settings.model_copy(update={"stream_instance": "twin"})
    twins = [Service("stream_app", named), Service("stream_app", named.model_copy(update={"stream_port": free_port()}))]
    said = ""

    async def spoken() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "action=same_name" in said

    for twin in twins:
        twin.start()
    # Now and then one of them notices that it missed a poll, and ends.
    supervising = asyncio.create_task(keep_running(twins))
    flowing = asyncio.create_task(flow(kafka, symbols, 18))
    try:
        await eventually(spoken, what="a word about the name")
        await flowing
    finally:
        print(said)  # what was read of it would not show when this fails
        for task in (supervising, flowing):
            task.cancel()
        await asyncio.gather(supervising, flowing, return_exceptions=True)
        for twin in twins:
            if twin.returncode is None:
                twin.kill()
    assert "TICKPIPE_STREAM_INSTANCE" in said
    with running(named, "stream_app"):
        await caught_up(kafka)
        await assert_whole(kafka, symbols, 18)
