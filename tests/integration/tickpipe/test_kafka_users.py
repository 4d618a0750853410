"""The embedded Kafka with its users: nobody without a login gets in, and each user may do its own work alone."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError, KafkaError
from prometheus_client import CollectorRegistry

from marketdata.errors import KafkaRefused
from runtime.health import Health
from runtime.kafka import admin_client, new_consumer, new_producer
from runtime.rights import Right, Service, missing_rights
from runtime.settings import Settings, load_settings
from runtime.topics import ensure_topics
from runtime.volumes import VolumeWatch
from sink.progress import SINK_GROUP_PREFIX
from tests.servers import Child
from tests.waiting import eventually
from tickpipe.embedded.jars import resolve_jars
from tickpipe.embedded.kafka import Kafka, local_kafka
from tickpipe.embedded.kafka_users import SERVICE_USERS, KafkaUsers
from tickpipe.embedded.state import KAFKA_ADMINISTRATOR, Ports

# A broker of its own; `tickpipe up` starts one with the same users in integration/test_stack.py.
pytestmark = [pytest.mark.full, pytest.mark.long(15)]

_SINK_GROUP = f"{SINK_GROUP_PREFIX}16384"


@pytest.fixture(scope="module")
def users() -> KafkaUsers:
    return KafkaUsers("the administrator's")


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, users: KafkaUsers) -> Kafka:
    folder = tmp_path_factory.mktemp("users")
    return local_kafka(folder, Ports(folder), resolve_jars(), users, short_lived=True)


@pytest.fixture(scope="module")
def broker(kafka: Kafka) -> Iterator[Child]:
    """Its process, with the topics."""
    child = Child(kafka.spec)
    try:
        child.start()
        child.wait_ready()
        yield child
    finally:
        child.stop()


@pytest.fixture(scope="module")
def administrator(kafka: Kafka, users: KafkaUsers, broker: Child) -> Settings:
    settings = as_user(KAFKA_ADMINISTRATOR, users, kafka)
    asyncio.run(ensure_topics(settings))
    return settings


def as_user(name: str, users: KafkaUsers, kafka: Kafka) -> Settings:
    return load_settings(
        kafka_bootstrap=kafka.bootstrap, kafka_replication=1, sink_group=_SINK_GROUP, **users.login(name)
    )


@pytest.mark.parametrize("listener", ["port", "controller_port"])
async def test_who_does_not_log_in_gets_no_answer(kafka: Kafka, administrator: Settings, listener: str) -> None:
    address = f"127.0.0.1:{getattr(kafka, listener)}"
    client = AIOKafkaAdminClient(bootstrap_servers=address, request_timeout_ms=2_000)
    try:
        with pytest.raises(KafkaError):
            await client.start()
    finally:
        await client.close()
    with pytest.raises(KafkaRefused, match="wants a login"):
        await ensure_topics(load_settings(kafka_bootstrap=kafka.bootstrap))


async def test_a_wrong_password_and_the_brokers_own_way_of_login_are_refused(administrator: Settings) -> None:
    for spoiled in ({"kafka_sasl_password": "another"}, {"kafka_sasl_mechanism": "PLAIN"}):
        settings = load_settings(**administrator.model_dump(exclude_unset=True) | spoiled)
        with pytest.raises(KafkaRefused, match="does not accept the login of tickpipe"):
            await ensure_topics(settings)


@pytest.mark.parametrize("name", SERVICE_USERS)
async def test_a_service_has_the_rights_that_it_needs(
    name: str, kafka: Kafka, users: KafkaUsers, administrator: Settings
) -> None:
    settings = as_user(name, users, kafka)
    async with admin_client(settings) as client:

        async def missing() -> tuple[list[Right], bool] | None:
            # The first question for a group makes the broker create the topic of groups.
            with suppress(GroupCoordinatorNotAvailableError, GroupLoadInProgressError):
                return await missing_rights(settings, client, SERVICE_USERS[name])
            return None

        assert await eventually(missing, what="the coordinator of groups") == ([], True)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("producer", {Service.STREAM: "READ on the topic ticks", Service.SINK: "READ on the topic candles.m1"}),
        ("stream", {Service.PRODUCER: "WRITE on the topic ticks", Service.SINK: f"READ on the group {_SINK_GROUP}"}),
        ("sink", {Service.PRODUCER: "WRITE on the topic ticks", Service.STREAM: "WRITE on the topic candles.m1"}),
        ("dashboard", {Service.PRODUCER: "WRITE on the topic ticks", Service.STREAM: "READ on the group"}),
    ],
)
async def test_a_service_may_not_do_the_work_of_another(
    name: str, others: dict[Service, str], kafka: Kafka, users: KafkaUsers, administrator: Settings
) -> None:
    settings = as_user(name, users, kafka)
    async with admin_client(settings) as client:
        for service, right in others.items():
            missing, _ = await missing_rights(settings, client, service)
            assert any(right in str(one) for one in missing)
        answer = await client.create_topics([NewTopic("of-its-own", 1, 1)])
        assert [code for _, code, *_ in answer.topic_errors] == [29]  # TOPIC_AUTHORIZATION_FAILED


@pytest.mark.parametrize(("name", "is_told"), [("producer", True), ("dashboard", False)])
async def test_the_producer_alone_learns_how_much_room_there_is(
    name: str, is_told: bool, kafka: Kafka, users: KafkaUsers, administrator: Settings
) -> None:
    registry = CollectorRegistry()
    await VolumeWatch(as_user(name, users, kafka), Health(), registry).step()
    samples = [sample for metric in registry.collect() for sample in metric.samples if sample.value > 0]
    assert len(samples) == (2 if is_told else 0)


async def test_a_broker_of_another_cluster_gets_no_password(
    kafka: Kafka, users: KafkaUsers, administrator: Settings
) -> None:
    before = users.login("sink")
    assert not await users.set_up(kafka.bootstrap, "another")
    assert await users.set_up(kafka.bootstrap, kafka.cluster_id)
    assert users.login("sink") == before


async def test_after_a_restart_users_get_in_and_the_brokers_old_password_does_not(
    kafka: Kafka, users: KafkaUsers, broker: Child, administrator: Settings
) -> None:
    old = users._broker_password
    producer = await started(new_producer(administrator))
    try:
        await producer.send_and_wait(administrator.ticks_topic, b"a record", partition=0)
        await asyncio.to_thread(broker.stop)
        await asyncio.to_thread(broker.start)
        await asyncio.to_thread(broker.wait_ready)
        await producer.send_and_wait(administrator.ticks_topic, b"another", partition=0)
    finally:
        await producer.stop()

    consumer = new_consumer(as_user("stream", users, kafka), administrator.ticks_topic, auto_offset_reset="earliest")
    await consumer.start()
    try:
        assert [(await consumer.getone()).value for _ in range(2)] == [b"a record", b"another"]
    finally:
        await consumer.stop()
    login = {"kafka_sasl_mechanism": "PLAIN", "kafka_sasl_username": "broker"}
    for password, gets_in in ((old, False), (users._broker_password, True)):
        own = load_settings(**administrator.model_dump(exclude_unset=True) | login | {"kafka_sasl_password": password})
        if gets_in:
            await ensure_topics(own)
        else:
            with pytest.raises(KafkaRefused, match="does not accept the login of broker"):
                await ensure_topics(own)


async def started(producer: AIOKafkaProducer) -> AIOKafkaProducer:
    await producer.start()
    return producer
