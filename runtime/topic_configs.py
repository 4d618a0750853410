"""Compares the topics that exist with what each needs, and changes them: their configuration is not always ours."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from runtime.kafka_errors import mapped
from runtime.settings import Settings

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
    """A setting of an existing topic that is not as it should be."""

    topic: str
    setting: str
    found: str
    wanted: str
    #: True when records that were acknowledged would be deleted.
    is_vital: bool

    @property
    def reason(self) -> str:
        """What the setting does as it is."""
        return _REASONS[self.setting]

    def __str__(self) -> str:
        return f"{self.topic} has {self.setting}={self.found} and needs {self.wanted}: {self.reason}"


async def differences(
    settings: Settings, client: AIOKafkaAdminClient, topics: Iterable[Topic]
) -> tuple[list[Difference], list[str]]:
    """What of these topics, as far as they exist, is not as it should be; and those whose configuration is hidden.

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
