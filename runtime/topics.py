"""The topics of this project and the settings that each must have."""

from dataclasses import dataclass, field

from runtime.settings import Settings

#: A body of 5 MB makes a frame of less; the limit is per record batch (bytes).
MAX_RECORD_BYTES = 8 * 1024 * 1024

DAY_MS = 86_400_000

#: A lone broker confirms what the kernel has, not yet the disk: a power cut takes at most this much (milliseconds).
#: Replicas make it needless; flushing every record would cost a disk's write per request (docs/decisions/0003).
LONE_BROKER_FLUSH_MS = 1_000


@dataclass(frozen=True)
class Topic:
    """A topic as it is created; `config` holds Kafka's own names and values."""

    name: str
    partitions: int
    replication: int
    config: dict[str, str] = field(default_factory=dict)


def topics(settings: Settings) -> tuple[Topic, ...]:
    """Every topic of the project, in the order of the flow."""

    def topic(name: str, **config: str | int) -> Topic:
        kafka_names = {key.replace("_", "."): str(value) for key, value in config.items()}
        return Topic(name, settings.kafka_partitions, settings.kafka_replication, kafka_names)

    lone_broker: dict[str, str | int] = {"flush_ms": LONE_BROKER_FLUSH_MS} if settings.kafka_replication == 1 else {}
    return (
        # The record timestamp is event time: with Kafka's default of 7 days a replayed 2019 would be deleted at once.
        topic(
            settings.ticks_topic,
            cleanup_policy="delete",
            retention_ms=-1,
            max_message_bytes=MAX_RECORD_BYTES,
            **lone_broker,
        ),
        # Never compacted: the newest record of a key may be a late partial fold, and compaction could drop the wide
        # one before the sink saw it.
        topic(settings.candles_topic, cleanup_policy="delete", retention_ms=30 * DAY_MS),
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
