"""The topics: created where they are missing, compared with what each needs, and changed on request."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code
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

from marketdata.errors import TopicUnsafe, UnknownTopic
from marketdata.tick import DAY_MS
from runtime.kafka import MAX_RECORD_BYTES, admin_client, not_seen
from runtime.kafka_errors import is_retriable, kafka_errors, mapped
from runtime.known_log import KnownLog
from runtime.rights import Service, check_rights, hidden_topics, vital_topics
from runtime.settings import Settings

log = structlog.get_logger(__name__)

#: Kafka's protocol: the setting was made for this topic; all others are the broker's.
_OF_THE_TOPIC: Final = 1

_UNKNOWN_TOPIC: Final = 3
_NOT_AUTHORIZED: Final = 29

#: Settings of which a larger value is as good; -1 is without a limit.
_AT_LEAST: Final = frozenset({"retention.ms", "retention.bytes", "max.message.bytes"})

#: Only wanted where one broker stands alone, and the cluster may have its own.
_NOT_COMPARED: Final = frozenset({"flush.ms"})

#: Why each setting is wanted.
_REASONS: Final = {
    "cleanup.policy": "another policy deletes records that are still needed",
    "retention.ms": "older records are deleted",
    "retention.bytes": "the oldest records are deleted when the topic grows",
    "max.message.bytes": "large bodies are refused",
    "message.timestamp.type": "the time of a record is that of its ticks, not of its arrival",
    "compression.type": "the broker compresses every batch again",
    "replicas": "one broker that fails takes the topic with it; reassign its partitions (kafka-reassign-partitions)",
}


@dataclass(frozen=True)
class Topic:
    """A topic as it is created; `config` holds Kafka's own names and values."""

    name: str
    partitions: int
    replication: int
    config: dict[str, str] = field(default_factory=dict)
    #: Settings that, when they differ, delete what was acknowledged and cannot be made again.
    vital: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Difference:
    """A setting of an existing topic that differs from what it should be."""

    topic: str
    setting: str
    found: str
    wanted: str
    #: True when records that were acknowledged would be deleted.
    is_vital: bool

    @property
    def reason(self) -> str:
        """The effect of the setting as it is."""
        return _REASONS[self.setting]

    def __str__(self) -> str:
        return f"{self.topic} has {self.setting}={self.found} and needs {self.wanted}: {self.reason}"


async def differences(
    settings: Settings, client: AIOKafkaAdminClient, topics: Iterable[Topic]
) -> tuple[list[Difference], list[str]]:
    """The differences of those topics that exist, and the topics whose configuration is hidden.

    Called inside `kafka_errors`.
    """
    wanted = {topic.name: topic for topic in topics}
    found: list[Difference] = []
    present, hidden = await _configs(settings, client, wanted)
    for name, config in present.items():
        topic = wanted[name]
        for setting, value in topic.config.items():
            if setting not in _NOT_COMPARED and not _suffices(setting, config[setting].value, value):
                found.append(Difference(name, setting, config[setting].value, value, setting in topic.vital))
    for described in await client.describe_topics(sorted(present)) if present else ():
        replicas = min((len(part["replicas"]) for part in described["partitions"]), default=0)
        topic = wanted[described["topic"]]
        if 0 < replicas < topic.replication:
            found.append(Difference(topic.name, "replicas", str(replicas), str(topic.replication), is_vital=False))
    return found, hidden


async def change(settings: Settings, client: AIOKafkaAdminClient, found: Iterable[Difference]) -> list[Difference]:
    """Change the settings, leaving all others as they are; returns what cannot be changed this way: replicas.

    Called inside `kafka_errors`.

    Raises:
        KafkaRefused: when the broker does not let this user change them.
    """
    changes: dict[str, dict[str, str]] = {}
    others = []
    for difference in found:
        if difference.setting == "replicas":
            others.append(difference)
        else:
            changes.setdefault(difference.topic, {})[difference.setting] = difference.wanted
    present, _ = await _configs(settings, client, changes)
    for name, wanted in changes.items():
        # The request replaces all that was set for the topic.
        own = {setting: entry.value for setting, entry in present[name].items() if entry.is_own} | wanted
        (answer,) = await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, own)])
        for code, *_ in answer.resources:
            if code:
                raise mapped(for_code(code)(), settings, topic=name, right="ALTER_CONFIGS")
    return others


@dataclass(frozen=True)
class _Entry:
    value: str
    is_own: bool


async def _configs(
    settings: Settings, client: AIOKafkaAdminClient, names: Iterable[str]
) -> tuple[dict[str, dict[str, _Entry]], list[str]]:
    # Of the topics that exist; and the names of those that this user may not look at.
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found: dict[str, dict[str, _Entry]] = {}
    hidden = []
    for answer in await client.describe_configs(asked) if asked else ():
        for code, _, _, name, entries in answer.resources:
            if code == _UNKNOWN_TOPIC:
                continue
            if code == _NOT_AUTHORIZED:
                hidden.append(name)
                continue
            if code:
                raise mapped(for_code(code)(), settings, topic=name)
            found[name] = dict(map(_entry, entries))
    return found, hidden


def _entry(entry: Any) -> tuple[str, _Entry]:
    name, value, _, source, *_ = entry
    return name, _Entry(value, source == _OF_THE_TOPIC)


def _suffices(setting: str, found: str, wanted: str) -> bool:
    if setting == "cleanup.policy":
        return set(found.split(",")) == set(wanted.split(","))
    if setting in _AT_LEAST:
        return found in (wanted, "-1") or (wanted != "-1" and int(found) >= int(wanted))
    return found == wanted


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
        # one before the sink saw it. A sink that is away for longer needs a replay.
        topic(settings.candles_topic, "cleanup.policy", cleanup_policy="delete", retention_ms=14 * DAY_MS),
        topic(settings.broker_candles_topic, cleanup_policy="compact"),
        topic(settings.reference_topic, cleanup_policy="compact"),
        # What the database lacks of them is asked for again.
        topic(settings.fills_topic, cleanup_policy="delete", retention_ms=30 * DAY_MS),
        topic(settings.wanted_topic, cleanup_policy="compact"),
        topic(
            settings.ticks_rejected_topic, cleanup_policy="delete", retention_ms=-1, max_message_bytes=MAX_RECORD_BYTES
        ),
        topic(settings.candles_rejected_topic, cleanup_policy="delete", retention_ms=-1),
    )


def sink_topics(settings: Settings) -> tuple[str, ...]:
    """The topics that the sink reads."""
    return settings.candles_topic, settings.broker_candles_topic, settings.reference_topic, settings.fills_topic


#: Within milliseconds as a rule; whoever needs such a topic waits for it by itself after that.
_TOLD_WITHIN_SECONDS = 5.0


async def wait_for_kafka(
    settings: Settings,
    *,
    service: Service | None = None,
    begins_log: bool = True,
    known: KnownLog | None = None,
    timeout_seconds: float | None = None,
) -> str:
    """Wait until a broker answers and every topic exists, see `ensure_topics`; return the cluster's id.

    Raises:
        NotAuthorized: when the user lacks a right that `service` cannot work without.
        TopicUnsafe: when a topic that exists would delete what was acknowledged.
        LogLost: when Kafka had the topic of the ticks and lost it.
        KafkaUnavailable, UnknownTopic: after `timeout_seconds`; without it the wait has no end.
    """
    stop: stop_base = stop_never if timeout_seconds is None else stop_after_delay(timeout_seconds)
    async for attempt in AsyncRetrying(
        retry=retry_if_exception(is_retriable), wait=wait_exponential(0.2, max=5), stop=stop, reraise=True,
        before_sleep=_say_that_we_wait,
    ):  # fmt: skip
        with attempt:
            return await prepare_topics(settings, service, begins_log=begins_log, known=known)
    raise AssertionError("unreachable: tenacity returns or raises")


def _say_that_we_wait(state: RetryCallState) -> None:
    # The first tries fail whenever everything starts together; that is not worth a line.
    if state.attempt_number >= 3 and state.outcome is not None:
        log.warning("Waiting for Kafka.", action="wait_for_kafka", error=str(state.outcome.exception()))


async def prepare_topics(
    settings: Settings, service: Service | None, *, begins_log: bool = True, known: KnownLog | None = None
) -> str:
    """Check the rights of the service, create the topics that are missing, check the others; the cluster's id.

    It raises what `wait_for_kafka` and `ensure_topics` raise.
    """
    async with admin_client(settings) as client:
        # First, or a topic that may not be seen would be taken for one that is missing.
        is_known = service is None or await _check_rights(settings, client, service)
        needed = None if service is None else vital_topics(settings, service)
        cluster_id = await ensure_topics(settings, client, needed=needed, begins_log=begins_log, known=known)
        if service is not None and not is_known:
            await _check_rights(settings, client, service)
        await check_topics(settings, client)
        return cluster_id


async def _check_rights(settings: Settings, client: AIOKafkaAdminClient, service: Service) -> bool:
    with kafka_errors(settings):
        return await check_rights(settings, client, service)


async def ensure_topics(
    settings: Settings,
    shared: AIOKafkaAdminClient | None = None,
    *,
    needed: Collection[str] | None = None,
    begins_log: bool = True,
    known: KnownLog | None = None,
) -> str:
    """Create the topics that are missing; those that exist are left as they are. Returns the cluster's id.

    Without `begins_log`, or when it is `known` that there was one, a missing log of ticks leaves all as it is.

    A topic that this user may not see may be there, so it is not created; `needed` are those that must be seen, by
    default all.

    Raises:
        KafkaUnavailable: when no broker answers.
        LogLost, UnknownTopic: when the topic of the ticks is missing and may not begin.
        KafkaRefused: when the broker refuses a topic, for example for want of replicas.
        NotAuthorized: when this user may not see a topic that is needed.
    """
    async with admin_client(settings, shared) as client:
        with kafka_errors(settings):
            cluster = await client.describe_cluster()
            missing, hidden = await absent(client, topics(settings))
            if vital := [name for name in hidden if needed is None or name in needed]:
                raise not_seen(settings, vital)
            cluster_id = str(cluster["cluster_id"])
            if any(topic.name == settings.ticks_topic for topic in missing):
                if known is not None:
                    known.require_new(cluster_id, settings.ticks_topic)
                if not begins_log:
                    raise UnknownTopic(settings.ticks_topic)
            if missing:
                await _create(settings, client, missing)
        return cluster_id


async def absent(client: AIOKafkaAdminClient, wanted: Iterable[Topic]) -> tuple[list[Topic], list[str]]:
    """Of these topics those that are missing, and the names of those that this user may not see, there or not.

    Called inside `kafka_errors`.
    """
    present = set(await client.list_topics())
    unlisted = [topic for topic in wanted if topic.name not in present]
    hidden = await hidden_topics(client, [topic.name for topic in unlisted])
    return [topic for topic in unlisted if topic.name not in hidden], hidden


async def restore_topics(settings: Settings, *names: str, shared: AIOKafkaAdminClient | None = None) -> None:
    """Create those of these topics that somebody deleted while their writer runs, and say so.

    While the log of the ticks is gone as well, nothing is created. One that this user may not see is no sign of that.

    Raises:
        KafkaUnavailable: when no broker answers.
        KafkaRefused: when the broker refuses a topic.
    """
    async with admin_client(settings, shared) as client:
        with kafka_errors(settings):
            missing, _ = await absent(client, topics(settings))
            if any(topic.name == settings.ticks_topic for topic in missing):
                return
            missing = [topic for topic in missing if topic.name in names]
            for topic in missing:
                log.error(
                    "A topic is gone: somebody deleted it. It is created again.",
                    action="topic_gone", topic=topic.name,
                )  # fmt: skip
            if missing:
                await _create(settings, client, missing)


async def check_topics(settings: Settings, shared: AIOKafkaAdminClient | None = None) -> None:
    """Compare the topics that exist and may be seen with what they need; log what is not as it should be.

    Raises:
        TopicUnsafe: when one would delete what was acknowledged.
        KafkaUnavailable: when no broker answers.
    """
    async with admin_client(settings, shared) as client:
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


async def _create(settings: Settings, client: AIOKafkaAdminClient, missing: list[Topic]) -> None:
    """Create the topics and wait until brokers tell of them: the answer to the request comes a moment earlier."""
    response = await client.create_topics(
        [NewTopic(t.name, t.partitions, t.replication, topic_configs=t.config) for t in missing]
    )
    for name, code, *rest in response.topic_errors:
        if code == 0:
            log.info("Created a topic.", action="topic_created", topic=name)
        elif code != TopicAlreadyExistsError.errno:  # another service was faster
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
