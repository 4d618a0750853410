"""What is told to stop, and what is read, while no broker answers."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import TopicPartition

from marketdata.errors import KafkaUnavailable
from runtime.aiokafka_internals import discard_producer, hand_out_bare_records
from runtime.kafka import new_consumer, new_producer
from runtime.logreader import LogReader
from runtime.settings import Settings
from runtime.topics import wait_for_kafka
from tests.kafka_log import KafkaLog
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import Service, running
from tests.waiting import eventually

# A broker of its own; producer/test_outage.py, stream_app/test_sessions.py and sink/test_service.py have the services.
pytestmark = [pytest.mark.full, pytest.mark.fault, pytest.mark.long(40)]


@pytest.fixture(scope="module")
def servers(own_servers: EmbeddedServers) -> EmbeddedServers:
    """Servers that the tests of this file stop."""
    return own_servers


@asynccontextmanager
async def silent_broker(servers: EmbeddedServers) -> AsyncIterator[None]:
    """Its connections stay, and nothing is answered."""
    await asyncio.to_thread(servers.pause_kafka)
    try:
        yield
    finally:
        await asyncio.to_thread(servers.resume_kafka)


async def test_a_broker_that_falls_silent_ends_every_read(
    settings: Settings, kafka: KafkaLog, servers: EmbeddedServers
) -> None:
    for n in range(10):
        await kafka.producer.send_and_wait(settings.ticks_topic, b"%d" % n, partition=0)
    async with LogReader(settings, stall_seconds=1.5) as reader:
        assert await reader.ends(settings.ticks_topic, 0) == (0, 10)
        async with silent_broker(servers):
            began = time.monotonic()
            with pytest.raises(KafkaUnavailable, match="offset 0 of"):
                [batch async for batch in reader.read(settings.ticks_topic, 0, 0, 9)]
            with pytest.raises(KafkaUnavailable):
                await reader.ends(settings.ticks_topic, 0)
            assert time.monotonic() - began < 30
        read = [record.offset async for batch in reader.read(settings.ticks_topic, 0, 3, 6) for record in batch]
    assert read == [3, 4, 5, 6]


@pytest.mark.contract
async def test_a_reader_stops_at_once_while_the_broker_is_silent(
    settings: Settings, kafka: KafkaLog, servers: EmbeddedServers
) -> None:
    consumer = new_consumer(settings)
    await consumer.start()
    try:
        hand_out_bare_records(consumer)
        consumer.assign([partition := TopicPartition(settings.ticks_topic, 0)])
        consumer.seek(partition, 0)
        await kafka.producer.send_and_wait(settings.ticks_topic, b"x", partition=0)
        await eventually(lambda: consumer.getmany(timeout_ms=500), what="the record")
        async with silent_broker(servers):
            # A fetch rests after its failure when it is told to end.
            await consumer.getmany(timeout_ms=500)
            async with asyncio.timeout(30):
                await consumer.stop()
    finally:
        await consumer.stop()


@pytest.mark.contract
async def test_a_discarded_producer_ends_at_once_while_the_broker_is_silent(
    settings: Settings, kafka: KafkaLog, servers: EmbeddedServers
) -> None:
    producer = new_producer(settings)
    await producer.start()
    await producer.send_and_wait(settings.ticks_topic, b"x", partition=0)
    async with silent_broker(servers):
        unconfirmed = await producer.send(settings.ticks_topic, b"y", partition=0)
        async with asyncio.timeout(30):
            await discard_producer(producer)
        assert not unconfirmed.done() or unconfirmed.cancelled() or unconfirmed.exception()


def test_a_reader_stops_and_leaves_no_connection(servers: EmbeddedServers, settings: Settings) -> None:
    async def reader() -> set[asyncio.Task[None]]:
        # Arrange: a consumer that fetches again and again in vain
        await wait_for_kafka(settings)
        consumer = new_consumer(settings)
        await consumer.start()
        consumer.assign([TopicPartition(settings.ticks_topic, 0)])
        assert await consumer.getmany(timeout_ms=500) == {}
        await asyncio.to_thread(servers.kill_kafka)
        await asyncio.sleep(1)

        # Act
        await consumer.stop()

        # Assert
        await asyncio.sleep(0.5)
        return asyncio.all_tasks() - {asyncio.current_task()}

    # A loop of its own: other tests' clients live in the shared one, and lose their connections too.
    try:
        assert asyncio.run(reader()) == set()
    finally:
        servers.start_kafka()


async def test_every_service_ends_with_0(servers: EmbeddedServers, settings: Settings) -> None:
    with running(settings, "producer", "stream_app", "sink") as services:
        await asyncio.to_thread(servers.kill_kafka)
        try:
            await asyncio.sleep(1)
            codes = {service.module: await asyncio.to_thread(service.stop) for service in services}
        finally:
            await asyncio.to_thread(servers.start_kafka)
    assert codes == {"producer": 0, "stream_app": 0, "sink": 0}


async def test_a_worker_that_waits_for_kafka_ends_with_0(settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    # Arrange: it has started, and says that nobody answers
    worker = Service("stream_app", settings.model_copy(update={"kafka_bootstrap": f"127.0.0.1:{free_port()}"})).start()
    said = ""

    async def waits() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "wait_for_kafka" in said

    try:
        await eventually(waits, what="a line about the wait")

        # Act and Assert
        assert await asyncio.to_thread(worker.stop) == 0
    finally:
        if worker.returncode is None:
            worker.kill()
