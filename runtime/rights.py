"""What each service may have to do with topics and groups, and which of these rights its user lacks.

Kafka tells a user which operations it may do with a topic or a group. Asked at the start, it names what is missing
before the first record would fail for want of it; docs/deploy/kafka.md lists the same rights.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError, for_code

from marketdata.errors import NotAuthorized
from runtime.aiokafka_internals import send_request
from runtime.kafka_protocol import NOT_SUPPORTED, GroupOperationsRequest, MetadataRequest
from runtime.settings import Settings

log = structlog.get_logger(__name__)


class Operation(IntEnum):
    """An operation by its number in Kafka's protocol; bit n of a set of operations stands for the operation n."""

    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    DESCRIBE = 8
    DESCRIBE_CONFIGS = 10


class Kind(StrEnum):
    """The kind of resource that a right is about."""

    TOPIC = "topic"
    GROUP = "group"


class Service(StrEnum):
    """The service whose rights are checked."""

    PRODUCER = "producer"
    STREAM = "stream worker"
    SINK = "sink"
    DASHBOARD = "dashboard"
    ARCHIVE = "archiver"


@dataclass(frozen=True)
class Right:
    """An operation that a service does with one topic or group."""

    operation: Operation
    kind: Kind
    name: str
    #: What the service cannot do without it; empty when it cannot work at all.
    loss: str = ""

    def __str__(self) -> str:
        return f"{self.operation.name} on the {self.kind} {self.name}"


def rights_of(settings: Settings, service: Service) -> list[Right]:
    """The least rights with which the service does all of its work.

    READ and WRITE include DESCRIBE. The group of the sinks is missing as long as the database has not told its name.
    """
    own = [right for right in _OWN[service](settings) if right.name]
    topics = settings.topic_names
    used = {right.name for right in own}
    seen = [
        Right(Operation.DESCRIBE, Kind.TOPIC, topic, _LOSS_OF_CONFIGS) for topic in topics if topic not in used
    ]  # fmt: skip
    seen += [Right(Operation.DESCRIBE_CONFIGS, Kind.TOPIC, topic, _LOSS_OF_CONFIGS) for topic in topics]
    return own + seen


def vital_topics(settings: Settings, service: Service) -> set[str]:
    """The topics without which the service cannot work."""
    rights = rights_of(settings, service)
    return {right.name for right in rights if right.kind is Kind.TOPIC and not right.loss}


_LOSS_OF_CONFIGS: Final = "the configuration of topics is not checked"
_LOSS_OF_REJECTED: Final = "rejected records are logged and not stored"
_LOSS_OF_LAG: Final = "lag is not known"
_LOSS_OF_WANTED: Final = "senders are not asked for missing ticks"


def _of_producer(settings: Settings) -> list[Right]:
    return [
        Right(Operation.WRITE, Kind.TOPIC, settings.ticks_topic),
        Right(Operation.WRITE, Kind.TOPIC, settings.broker_candles_topic),
        Right(Operation.WRITE, Kind.TOPIC, settings.reference_topic, "senders and points are not stored"),
        Right(Operation.WRITE, Kind.TOPIC, settings.fills_topic, "senders cannot report what they filled"),
        Right(Operation.READ, Kind.TOPIC, settings.wanted_topic, _LOSS_OF_WANTED),
        Right(Operation.WRITE, Kind.TOPIC, settings.ticks_rejected_topic, _LOSS_OF_REJECTED),
    ]


def _of_stream(settings: Settings) -> list[Right]:
    return [
        Right(Operation.READ, Kind.TOPIC, settings.ticks_topic),
        Right(Operation.WRITE, Kind.TOPIC, settings.candles_topic),
        Right(Operation.READ, Kind.GROUP, settings.stream_group),
        Right(Operation.WRITE, Kind.TOPIC, settings.ticks_rejected_topic, _LOSS_OF_REJECTED),
    ]


def _of_sink(settings: Settings) -> list[Right]:
    return [
        Right(Operation.READ, Kind.TOPIC, settings.candles_topic),
        Right(Operation.READ, Kind.TOPIC, settings.broker_candles_topic),
        Right(Operation.READ, Kind.TOPIC, settings.reference_topic),
        Right(Operation.READ, Kind.TOPIC, settings.fills_topic),
        # For minutes that have to be folded again.
        Right(Operation.READ, Kind.TOPIC, settings.ticks_topic),
        Right(Operation.READ, Kind.GROUP, settings.sink_group),
        Right(Operation.DESCRIBE, Kind.GROUP, settings.stream_group, "the newest days are not checked for gaps"),
        Right(Operation.READ, Kind.TOPIC, settings.wanted_topic, _LOSS_OF_WANTED),
        Right(Operation.WRITE, Kind.TOPIC, settings.wanted_topic, _LOSS_OF_WANTED),
        Right(Operation.WRITE, Kind.TOPIC, settings.candles_rejected_topic, _LOSS_OF_REJECTED),
    ]


def _of_dashboard(settings: Settings) -> list[Right]:
    return [
        Right(Operation.READ, Kind.TOPIC, settings.candles_topic, "there is no live chart"),
        Right(Operation.READ, Kind.TOPIC, settings.ticks_topic, "ticks cannot be asked for"),
        Right(Operation.DESCRIBE, Kind.GROUP, settings.stream_group, _LOSS_OF_LAG),
        Right(Operation.DESCRIBE, Kind.GROUP, settings.sink_group, _LOSS_OF_LAG),
    ]


def _of_archive(settings: Settings) -> list[Right]:
    loss = "archived ticks are not deleted from Kafka"
    rights = [
        Right(Operation.READ, Kind.TOPIC, settings.ticks_topic),
        Right(
            Operation.READ,
            Kind.GROUP,
            settings.archive_group,
            "its lag does not show in Kafka, nor that an archive is gone",
        ),
    ]
    if settings.ticks_local_retention_days:
        rights += [
            Right(Operation.DELETE, Kind.TOPIC, settings.ticks_topic, loss),
            Right(Operation.DESCRIBE, Kind.GROUP, settings.stream_group, loss),
        ]
    return rights


_OWN: Final = {
    Service.PRODUCER: _of_producer,
    Service.STREAM: _of_stream,
    Service.SINK: _of_sink,
    Service.DASHBOARD: _of_dashboard,
    Service.ARCHIVE: _of_archive,
}


async def check_rights(settings: Settings, client: AIOKafkaAdminClient, service: Service) -> bool:
    """Log which rights the service's user lacks; returns whether Kafka told of all: it cannot of a missing topic.

    Called inside `kafka_errors`.

    Raises:
        NotAuthorized: naming every right that the service cannot work without.
    """
    missing, is_known = await missing_rights(settings, client, service)
    if vital := [right for right in missing if not right.loss]:
        raise NotAuthorized(f"{_refusal(settings, service, vital)}; grant it (kafka-acls, docs/deploy/kafka.md)")
    for loss in dict.fromkeys(right.loss for right in missing):
        of_loss = [right for right in missing if right.loss == loss]
        log.warning(f"{_refusal(settings, service, of_loss)}, so {loss}.", action="rights_missing", service=service)
    return is_known


async def missing_rights(settings: Settings, client: AIOKafkaAdminClient, service: Service) -> tuple[list[Right], bool]:
    """The rights of the service that this user lacks, and whether Kafka told of all: it cannot of a missing topic.

    Called inside `kafka_errors`.
    """
    rights = rights_of(settings, service)
    topics = await _operations_on_topics(client, [right.name for right in rights if right.kind is Kind.TOPIC])
    groups = {
        right.name: await _operations_on_group(client, right.name) for right in rights if right.kind is Kind.GROUP
    }
    allowed = {Kind.TOPIC: topics, Kind.GROUP: groups}
    lacking = [right for right in rights if not _includes(allowed[right.kind][right.name], right.operation)]
    # Of what may not be seen Kafka does not tell which other rights there are, so the first stands for all.
    first = {(right.kind, right.name): right for right in reversed(lacking)}
    missing = [
        right for right in lacking if allowed[right.kind][right.name] or first[right.kind, right.name] is right
    ]  # fmt: skip
    return missing, None not in topics.values()


def _refusal(settings: Settings, service: Service, rights: Iterable[Right]) -> str:
    user = f"user {settings.kafka_sasl_username} of the {service}" if settings.kafka_sasl_username else f"{service}"
    return f"Kafka does not allow the {user}: {', '.join(map(str, rights))}"


#: Operations as Kafka tells them, a bit for each; None when it did not.
_Operations = int | None

#: What Kafka tells when it was not asked, or cannot say.
_NOT_TOLD: Final = -(2**31)


def _includes(operations: _Operations, wanted: Operation) -> bool:
    return operations is None or bool(operations >> wanted & 1)


async def hidden_topics(client: AIOKafkaAdminClient, names: Collection[str]) -> list[str]:
    """Those of the topics that this user may not see, whether they exist or not.

    Called inside `kafka_errors`.
    """
    operations = await _operations_on_topics(client, names) if names else {}
    return [name for name, allowed in operations.items() if allowed == 0]


async def _operations_on_topics(client: AIOKafkaAdminClient, names: Collection[str]) -> dict[str, _Operations]:
    wanted = sorted(set(names))
    try:
        answer = await send_request(client, MetadataRequest(wanted, with_operations=True))
    except NOT_SUPPORTED:
        return dict.fromkeys(wanted)
    return {name: _told(code, operations) for code, name, *_, operations, _ in answer.topics}


async def _operations_on_group(client: AIOKafkaAdminClient, name: str) -> _Operations:
    try:
        coordinator = await client.find_coordinator(name)
        answer = await send_request(client, GroupOperationsRequest(name), coordinator)
    except GroupAuthorizationFailedError:
        return 0
    except NOT_SUPPORTED:
        return None
    [(code, *_, operations)] = answer.groups
    return _told(code, operations)


def _told(code: int, operations: int) -> _Operations:
    if for_code(code) in (TopicAuthorizationFailedError, GroupAuthorizationFailedError):
        return 0
    return None if code or operations == _NOT_TOLD else operations
