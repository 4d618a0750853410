"""What is told to stop while no broker answers."""

import asyncio

import pytest
from aiokafka import TopicPartition

from runtime.kafka import new_consumer
from runtime.settings import Settings
from runtime.topics import wait_for_kafka
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import Service, running
from tests.waiting import eventually

pytestmark = [pytest.mark.fault, pytest.mark.long(36)]


@pytest.fixture(scope="module")
def servers(own_servers: EmbeddedServers) -> EmbeddedServers:
    """Servers that the tests of this file stop."""
    return own_servers


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
