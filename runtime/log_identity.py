"""The name of a log, which offsets belong to: cluster, topic, and the id that Kafka gave the topic.

A topic that is deleted and re-created under its name has a new id (Kafka 3.1 and later tell it), so the offsets of
the old one are never taken for offsets of the new. aiokafka knows no version of the metadata request that has the id;
this one follows Kafka's description of its protocol.
"""

import base64
from io import BytesIO

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import IncompatibleBrokerVersion, TopicAuthorizationFailedError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, stop_never, wait_fixed
from tenacity.stop import stop_base

from marketdata.errors import KafkaUnavailable
from runtime.aiokafka_internals import send_request
from runtime.kafka import admin_client
from runtime.kafka_errors import kafka_errors
from runtime.settings import Settings
from runtime.topics import wait_for_kafka

_UUID_BYTES = 16

#: What a broker answers that knows the topic but gave it no id.
_NO_ID = bytes(_UUID_BYTES)


class _Uuid(AbstractType[bytes]):
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(_UUID_BYTES)


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(
            ("node_id", Int32), ("host", CompactString("utf-8")), ("port", Int32), ("rack", CompactString("utf-8")),
            ("tags", TaggedFields),
        )),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        ("topics", CompactArray(
            ("error_code", Int16), ("name", CompactString("utf-8")), ("topic_id", _Uuid), ("is_internal", Boolean),
            ("partitions", CompactArray(
                ("error_code", Int16), ("partition", Int32), ("leader", Int32), ("leader_epoch", Int32),
                ("replicas", CompactArray(Int32)), ("isr", CompactArray(Int32)), ("offline", CompactArray(Int32)),
                ("tags", TaggedFields),
            )),
            ("authorized_operations", Int32), ("tags", TaggedFields),
        )),
        ("tags", TaggedFields),
    )  # fmt: skip


class _MetadataRequestStruct(RequestStruct):
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataRequestStruct]):
    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_MetadataRequestStruct]) -> _MetadataRequestStruct:
        return request_struct_class([(_NO_ID, self._topic, {})], False, False, {})


async def wait_for_log(settings: Settings, *, timeout_seconds: float | None = None) -> str:
    """Wait until a broker answers and every topic exists; the name of the log, see `own_log`.

    Raises:
        KafkaUnavailable: after `timeout_seconds`; without it the wait has no end.
    """
    stop: stop_base = stop_never if timeout_seconds is None else stop_after_delay(timeout_seconds)
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(KafkaUnavailable), wait=wait_fixed(1), stop=stop, reraise=True
    ):
        with attempt:
            await wait_for_kafka(settings, timeout_seconds=timeout_seconds)
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
        with kafka_errors(settings, topic=topic):
            cluster_id = (await client.describe_cluster())["cluster_id"]
            try:
                answer = await send_request(client, _MetadataRequest(topic))
            except (IncompatibleBrokerVersion, NotImplementedError):
                # What aiokafka raises when the broker does not have this version of the request.
                return f"{cluster_id}/{topic}"
    [(error_code, _, topic_id, *_)] = answer.topics
    if error_code:
        raise KafkaUnavailable(f"the topic {topic} is not there (error {error_code}); is it being re-created?")
    if topic_id == _NO_ID:
        return f"{cluster_id}/{topic}"
    return f"{cluster_id}/{topic}/{base64.urlsafe_b64encode(topic_id).decode().rstrip('=')}"


async def is_hidden(settings: Settings, topic: str) -> bool:
    """Whether this user may not see the topic; asking does not create one that is missing.

    Raises:
        KafkaUnavailable: when no broker answers.
    """
    async with admin_client(settings) as client:
        with kafka_errors(settings, topic=topic):
            try:
                answer = await send_request(client, _MetadataRequest(topic))
            except (IncompatibleBrokerVersion, NotImplementedError):
                return False
    return any(code == TopicAuthorizationFailedError.errno for code, *_ in answer.topics)
