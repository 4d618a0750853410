"""The name of a log, which offsets belong to: cluster, topic, and the id that Kafka gave the topic.

A topic that is deleted and re-created under its name has a new id (Kafka 3.1 and later tell it), so the offsets of
the old one are never taken for offsets of the new.
"""

import base64

from aiokafka.admin import AIOKafkaAdminClient
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, stop_never, wait_fixed
from tenacity.stop import stop_base

from marketdata.errors import KafkaUnavailable
from runtime.aiokafka_internals import send_request
from runtime.kafka import admin_client
from runtime.kafka_errors import kafka_errors
from runtime.kafka_protocol import NO_ID, NOT_SUPPORTED, MetadataRequest
from runtime.rights import Service
from runtime.settings import Settings
from runtime.topics import wait_for_kafka


async def wait_for_log(
    settings: Settings, *, service: Service | None = None, timeout_seconds: float | None = None
) -> str:
    """Wait until a broker answers and every topic exists; the name of the log, see `own_log`.

    Raises:
        NotAuthorized: when the user lacks a right that `service` cannot work without.
        KafkaUnavailable: after `timeout_seconds`; without it the wait has no end.
    """
    stop: stop_base = stop_never if timeout_seconds is None else stop_after_delay(timeout_seconds)
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(KafkaUnavailable), wait=wait_fixed(1), stop=stop, reraise=True
    ):
        with attempt:
            await wait_for_kafka(settings, service=service, timeout_seconds=timeout_seconds)
            return await own_log(settings)
    raise AssertionError("unreachable: tenacity returns or raises")


async def own_log(settings: Settings, shared: AIOKafkaAdminClient | None = None) -> str:
    """The name of the log of ticks, as candles carry it; see `log_name`.

    Raises:
        KafkaUnavailable: when no broker answers, or the topic is not there at the moment.
    """
    return await log_name(settings, settings.ticks_topic, shared)


async def log_name(settings: Settings, topic: str, shared: AIOKafkaAdminClient | None = None) -> str:
    """`<cluster id>/<topic>/<topic id>`; the id is written as Kafka's tools do. Asked over `shared`, if it is given.

    A broker that gives topics no ids leaves the last part out.

    Raises:
        KafkaUnavailable: when no broker answers, or the topic is not there at the moment.
    """
    async with admin_client(settings, shared) as client:
        with kafka_errors(settings, topic=topic, right="DESCRIBE"):
            cluster_id = (await client.describe_cluster())["cluster_id"]
            try:
                answer = await send_request(client, MetadataRequest([topic]))
            except NOT_SUPPORTED:
                return f"{cluster_id}/{topic}"
    [(error_code, _, topic_id, *_)] = answer.topics
    if error_code:
        raise KafkaUnavailable(f"the topic {topic} is not there (error {error_code}); is it being re-created?")
    if topic_id == NO_ID:
        return f"{cluster_id}/{topic}"
    return f"{cluster_id}/{topic}/{base64.urlsafe_b64encode(topic_id).decode().rstrip('=')}"
