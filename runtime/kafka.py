"""The topics, the clients that read, write and create them, and what a broker tells: ends and committed offsets."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, TopicAuthorizationFailedError, for_code
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    retry_if_result,
    stop_after_delay,
    stop_never,
    wait_exponential,
)
from tenacity.stop import stop_base

from marketdata.errors import KafkaRefused, KafkaUnavailable, NotAuthorized, TopicUnsafe, UnknownTopic
from runtime.aiokafka_internals import end_fetches
from runtime.kafka_credentials import client_options
from runtime.kafka_errors import is_retriable, kafka_errors, mapped
from runtime.listeners import why_unavailable
from runtime.rights import Service, check_rights, hidden_topics
from runtime.settings import Settings
from runtime.topic_configs import Topic, differences

log = structlog.get_logger(__name__)

#: A body of 5 MB makes a frame of less; the limit is per record batch (bytes).
MAX_RECORD_BYTES = 8 * 1024 * 1024

DAY_MS = 86_400_000

#: A lone broker confirms what the kernel has, not yet the disk: a power cut takes at most this much (milliseconds).
#: Replicas make it needless; flushing every record would cost a disk's write per request (docs/decisions/0003).
LONE_BROKER_FLUSH_MS = 1_000


#: Said for each topic, whatever the broker's own defaults are.
_OF_EVERY_TOPIC: dict[str, str | int] = {
    "retention_bytes": -1,
    "message_timestamp_type": "CreateTime",
    "compression_type": "producer",
}


def topics(settings: Settings) -> tuple[Topic, ...]:
    """Every topic of the project as it is created, and what an existing one needs; in the order of the flow."""

    def topic(name: str, *vital: str, **config: str | int) -> Topic:
        kafka_names = {key.replace("_", "."): str(value) for key, value in {**_OF_EVERY_TOPIC, **config}.items()}
        return Topic(name, settings.kafka_partitions, settings.kafka_replication, kafka_names, frozenset(vital))

    lone_broker: dict[str, str | int] = {"flush_ms": LONE_BROKER_FLUSH_MS} if settings.kafka_replication == 1 else {}
    return (
        # The record timestamp is event time: with Kafka's default of 7 days a replayed 2019 would be deleted at once.
        topic(
            settings.ticks_topic,
            "cleanup.policy",
            "retention.ms",
            "retention.bytes",
            cleanup_policy="delete",
            retention_ms=settings.ticks_retention_days * DAY_MS or -1,
            max_message_bytes=MAX_RECORD_BYTES,
            **lone_broker,
        ),
        # Never compacted: the newest record of a key may be a late partial fold, and compaction could drop the wide
        # one before the sink saw it.
        topic(settings.candles_topic, "cleanup.policy", cleanup_policy="delete", retention_ms=30 * DAY_MS),
        topic(settings.broker_candles_topic, cleanup_policy="compact"),
        topic(settings.reference_topic, cleanup_policy="compact"),
        topic(
            settings.ticks_rejected_topic, cleanup_policy="delete", retention_ms=-1, max_message_bytes=MAX_RECORD_BYTES
        ),
        topic(settings.candles_rejected_topic, cleanup_policy="delete", retention_ms=-1),
    )


def sink_topics(settings: Settings) -> tuple[str, ...]:
    """The topics that the sink reads."""
    return settings.candles_topic, settings.broker_candles_topic, settings.reference_topic


#: Kafka's error code for a topic that is there already.
_TOPIC_ALREADY_EXISTS = TopicAlreadyExistsError.errno

#: Within milliseconds as a rule; whoever needs such a topic waits for it by itself after that.
_TOLD_WITHIN_SECONDS = 5.0

#: Answer to one request of an administration or metadata call (milliseconds); smaller fails on a broker that starts.
_REQUEST_TIMEOUT_MS = 10_000


@asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected administration client.

    Raises:
        KafkaUnavailable: when no broker answers.
        KafkaRefused: when one answers and accepts neither this user nor the encryption, or the other way round.
    """
    client = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        with kafka_errors(settings):
            await client.start()
        yield client
    except KafkaUnavailable as exc:
        # Also of what is done with it: the first request goes to the bootstrap address, the next to the broker's own.
        reason = await why_unavailable(settings)
        if reason is None:
            raise
        raise reason from exc
    finally:
        await client.close()


async def wait_for_kafka(
    settings: Settings, *, service: Service | None = None, timeout_seconds: float | None = None
) -> str:
    """Wait until a broker answers and every topic exists; return the cluster's id.

    Raises:
        NotAuthorized: when the user lacks a right that `service` cannot work without.
        TopicUnsafe: when a topic that exists would delete what was acknowledged.
        KafkaUnavailable: after `timeout_seconds`; without it the wait has no end.
    """
    stop: stop_base = stop_never if timeout_seconds is None else stop_after_delay(timeout_seconds)
    async for attempt in AsyncRetrying(
        retry=retry_if_exception(is_retriable), wait=wait_exponential(0.2, max=5), stop=stop, reraise=True,
        before_sleep=_say_that_we_wait,
    ):  # fmt: skip
        with attempt:
            return await prepare_topics(settings, service)
    raise AssertionError("unreachable: tenacity returns or raises")


def _say_that_we_wait(state: RetryCallState) -> None:
    # The first tries fail whenever everything starts together; that is not worth a line.
    if state.attempt_number >= 3 and state.outcome is not None:
        log.warning("Waiting for Kafka.", action="wait_for_kafka", error=str(state.outcome.exception()))


async def prepare_topics(settings: Settings, service: Service | None) -> str:
    """Check the rights of the service, create the topics that are missing, check the others; the cluster's id.

    Raises:
        KafkaUnavailable, KafkaRefused: see `wait_for_kafka`.
    """
    # First, or a topic that may not be seen would be taken for one that is missing.
    is_known = service is None or await _check_rights(settings, service)
    cluster_id = await ensure_topics(settings)
    if service is not None and not is_known:
        await _check_rights(settings, service)
    await check_topics(settings)
    return cluster_id


async def _check_rights(settings: Settings, service: Service) -> bool:
    async with admin_client(settings) as client:
        with kafka_errors(settings):
            return await check_rights(settings, client, service)


async def ensure_topics(settings: Settings) -> str:
    """Create the topics that are missing; those that exist are left as they are. Returns the cluster's id.

    Raises:
        KafkaUnavailable: when no broker answers.
        KafkaRefused: when the broker refuses a topic, for example for want of replicas.
        NotAuthorized: when this user may not see a topic, which may be there.
    """
    async with admin_client(settings) as client:
        with kafka_errors(settings):
            cluster = await client.describe_cluster()
            present = set(await client.list_topics())
        missing = [topic for topic in topics(settings) if topic.name not in present]
        if missing:
            with kafka_errors(settings):
                await _check_seen(settings, client, missing)
                await _create(settings, client, missing)
        return str(cluster["cluster_id"])


async def restore_topics(settings: Settings, *names: str) -> None:
    """Create those of these topics that somebody deleted while their writer runs, and say so.

    Raises:
        KafkaUnavailable: when no broker answers.
        KafkaRefused: when the broker refuses a topic, or this user may not see it any more.
    """
    async with admin_client(settings) as client:
        with kafka_errors(settings):
            present = set(await client.list_topics())
            missing = [topic for topic in topics(settings) if topic.name in names and topic.name not in present]
            await _check_seen(settings, client, missing)
            for topic in missing:
                log.error(
                    "A topic is gone: somebody deleted it. It is created again.",
                    action="topic_gone", topic=topic.name,
                )  # fmt: skip
            if missing:
                await _create(settings, client, missing)


async def check_topics(settings: Settings) -> None:
    """Compare the topics that exist and may be seen with what they need; log what is not as it should be.

    Raises:
        TopicUnsafe: when one would delete what was acknowledged.
        KafkaUnavailable: when no broker answers.
    """
    async with admin_client(settings) as client:
        with kafka_errors(settings):
            found, _ = await differences(settings, client, topics(settings))
    for difference in found:
        if not difference.is_vital:
            log.warning(
                "A topic is not as it should be; `tickpipe topics fix` shows what to change.",
                action="topic_differs", topic=difference.topic, found=f"{difference.setting}={difference.found}",
                wanted=difference.wanted, reason=difference.reason,
            )  # fmt: skip
    if vital := [difference for difference in found if difference.is_vital]:
        raise TopicUnsafe(f"{'; '.join(map(str, vital))}. Run `tickpipe topics fix --yes`, then start again")


async def why_missing(settings: Settings, topic: str) -> KafkaRefused:
    """The error for a topic that Kafka does not tell of: it is not there, or this user may not see it.

    Raises:
        KafkaUnavailable: when no broker answers.
    """
    async with admin_client(settings) as client:
        with kafka_errors(settings):
            hidden = await hidden_topics(client, [topic])
    return _not_seen(settings, hidden) if hidden else UnknownTopic(topic)


async def _check_seen(settings: Settings, client: AIOKafkaAdminClient, missing: Collection[Topic]) -> None:
    if hidden := await hidden_topics(client, [topic.name for topic in missing]):
        raise _not_seen(settings, hidden)


def _not_seen(settings: Settings, hidden: Collection[str]) -> NotAuthorized:
    error = mapped(TopicAuthorizationFailedError(set(hidden)), settings, right="DESCRIBE")
    assert isinstance(error, NotAuthorized)  # noqa: S101 - what that error becomes
    return error


async def _create(settings: Settings, client: AIOKafkaAdminClient, missing: list[Topic]) -> None:
    """Create the topics and wait until brokers tell of them: the answer to the request comes a moment earlier."""
    response = await client.create_topics(
        [NewTopic(t.name, t.partitions, t.replication, topic_configs=t.config) for t in missing]
    )
    for name, code, *rest in response.topic_errors:
        if code == 0:
            log.info("Created a topic.", action="topic_created", topic=name)
        elif code != _TOPIC_ALREADY_EXISTS:  # another service was faster
            raise mapped(for_code(code)(f"it was to be created: {rest}"), settings, topic=name, right="CREATE")
    names = {topic.name for topic in missing}
    told = AsyncRetrying(
        retry=retry_if_result(lambda present: not names.issubset(present)), wait=wait_exponential(0.02, max=0.5),
        stop=stop_after_delay(_TOLD_WITHIN_SECONDS),
        retry_error_callback=lambda _: log.warning(
            "Kafka does not tell of the topics that it created.", action="topics_untold", topics=sorted(names)
        ),
    )  # fmt: skip
    await told(client.list_topics)


#: A member that joins its group while the broker still starts sees no partitions and gets none, until it asks again for
#: the metadata: by default after five minutes. A producer does not know of partitions that were added (milliseconds).
METADATA_MAX_AGE_MS = 10_000


def new_producer(settings: Settings, **options: Any) -> AIOKafkaProducer:
    """A producer whose confirmation means that the record is in the log, once: `acks=all` and idempotent."""
    defaults = {
        "acks": "all",
        "enable_idempotence": True,
        "max_request_size": MAX_RECORD_BYTES,
        "metadata_max_age_ms": METADATA_MAX_AGE_MS,
    }
    return AIOKafkaProducer(**{**client_options(settings), **defaults, **options})


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka ships no types
    """An `AIOKafkaConsumer` that can be stopped while the broker is away."""

    async def stop(self) -> None:
        """Leave the group, if there is one, and close every connection."""
        await end_fetches(self)
        await super().stop()


def new_consumer(settings: Settings, *topic_names: str, **options: Any) -> Consumer:
    """A consumer that commits nothing by itself; without `group_id` it belongs to no group."""
    return Consumer(
        *topic_names,
        **client_options(settings),
        enable_auto_commit=False,
        max_partition_fetch_bytes=MAX_RECORD_BYTES,
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
        **options,
    )


#: First and next offset of each partition of a topic.
Ends = dict[int, tuple[int, int]]


async def log_ends(settings: Settings, topic: str) -> Ends:
    """First and next offset of each partition of `topic`.

    Raises:
        KafkaUnavailable: when no broker answers.
        UnknownTopic: when there is no such topic at the moment.
    """
    consumer = new_consumer(settings)
    try:
        async with admin_client(settings) as client:
            with kafka_errors(settings, topic=topic, right="DESCRIBE"):
                await consumer.start()
                ends = (await topic_ends(client, consumer, [topic]))[topic]
    finally:
        await consumer.stop()
    if not ends:
        raise await why_missing(settings, topic)
    return ends


async def topic_ends(
    client: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, names: Collection[str]
) -> dict[str, Ends]:
    """First and next offset of each partition by topic, asked over connections that the caller keeps."""
    described = await client.describe_topics(sorted(names))
    every = [TopicPartition(topic["topic"], p["partition"]) for topic in described for p in topic["partitions"]]
    first, end = await asyncio.gather(consumer.beginning_offsets(every), consumer.end_offsets(every))
    ends: dict[str, Ends] = {name: {} for name in names}
    for tp in sorted(every):
        ends[tp.topic][tp.partition] = (first[tp], end[tp])
    return ends


async def describe_group(client: AIOKafkaAdminClient, group: str) -> tuple[str, list[Any]]:
    """State and members of a consumer group; a member is id, client, host, metadata and assignment."""
    [answer] = await client.describe_consumer_groups([group])
    # Error code, group, state, protocol type, protocol, members, …
    _, _, state, _, _, members, *_ = answer.groups[0]
    return state, members


async def committed_offsets(client: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, int]:
    """What the group has committed; partitions without a commit are missing."""
    offsets = await client.list_consumer_group_offsets(group)
    return {tp: meta.offset for tp, meta in offsets.items() if meta.offset >= 0}


def lag_of(ends: Mapping[str, Ends], committed: Mapping[TopicPartition, int]) -> int:
    """Records between the committed offsets and the ends; without a commit, from the first record that is left."""
    return sum(
        max(0, end - max(first, committed.get(TopicPartition(topic, partition), first)))
        for topic, partitions in ends.items()
        for partition, (first, end) in partitions.items()
    )
