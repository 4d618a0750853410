"""What the sink knows of its consumer group: how far it is behind, and the partitions that come and go."""

import asyncio

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from marketdata.errors import PartitionsLost, TickpipeError
from runtime.health import Health
from runtime.kafka_errors import kafka_errors
from runtime.settings import Settings
from runtime.tasks import PeriodicTask
from sink.metrics import Metrics

log = structlog.get_logger(__name__)


class LagMeter(PeriodicTask[None]):
    """The task that sets `tickpipe_sink_lag_records`, and finds out whether Kafka answers."""

    name = "lag"
    interval_seconds = 5.0

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer, metrics: Metrics, health: Health) -> None:
        self._settings = settings
        self._consumer = consumer
        self._metrics = metrics
        self._health = health

    async def step(self) -> None:
        """Measure once."""
        try:
            with kafka_errors(self._settings, topic=self._settings.candles_topic):
                async with asyncio.timeout(self.interval_seconds):
                    mine = sorted(self._consumer.assignment())
                    ends = await self._consumer.end_offsets(mine)
                    for tp in mine:
                        position = await self._consumer.position(tp)
                        self._metrics.lag.labels(tp.topic, tp.partition).set(max(0, ends[tp] - position))
        except PartitionsLost:
            return  # the partition went elsewhere meanwhile
        except TickpipeError:
            self._health.set("kafka", False)
            return
        self._health.set("kafka", True)


class Revocations(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Forgets what was not committed of partitions that went elsewhere."""

    def __init__(self, uncommitted: dict[TopicPartition, int], metrics: Metrics) -> None:
        self._uncommitted = uncommitted
        self._metrics = metrics

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        for tp in revoked:
            self._uncommitted.pop(tp, None)
        self._metrics.lag.clear()

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        log.info("Partitions were assigned.", action="partitions_assigned", partitions=len(assigned))
