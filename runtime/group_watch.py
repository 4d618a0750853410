"""Finds partitions that no member of a consumer group reads, and has them assigned."""

from collections.abc import Awaitable, Callable, Collection
from typing import ClassVar, Final

import structlog
from aiokafka import TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocol

from runtime.kafka import METADATA_MAX_AGE_MS, admin_client, describe_group
from runtime.kafka_errors import kafka_errors
from runtime.settings import Settings
from runtime.tasks import PeriodicTask

log = structlog.get_logger(__name__)

#: The state of a group whose members all have their partitions.
_STABLE: Final = "Stable"


class GroupWatch(PeriodicTask[None]):
    """Joins the group again when partitions lie unread.

    Only the leader of a group watches for partitions that are added. A leader with a lasting name that was killed and
    came back gets its partitions from the broker without being told that it leads, so nobody watches; a member that
    joins for the first time while Kafka creates a topic may not know all of its partitions either.

    Args:
        group: the name of the group.
        topics: whose every partition is to be read.
        rejoin: has this member join again; the broker then assigns the partitions again if that member leads.
    """

    name = "group"
    #: Longer than a leader takes to find new partitions, or a topic that was made again, by itself.
    interval_seconds: ClassVar[float] = 1.5 * METADATA_MAX_AGE_MS / 1000

    def __init__(
        self, settings: Settings, group: str, topics: Collection[str], rejoin: Callable[[], Awaitable[None]]
    ) -> None:
        self._settings = settings
        self._group = group
        self._topics = topics
        self._rejoin = rejoin
        self._unread: set[TopicPartition] = set()

    async def step(self) -> None:
        """Look once; act on what was so at the look before as well.

        Raises:
            KafkaUnavailable, KafkaRefused: when Kafka does not tell.
        """
        before, self._unread = self._unread, await unread_partitions(self._settings, self._group, self._topics)
        if still := self._unread & before:
            self._unread = set()  # a rebalance takes its time
            log.warning(
                "Nobody in the group reads these partitions; joining again, so that they are given out.",
                action="partitions_unread", group=self._group,
                partitions=sorted(f"{tp.topic}/{tp.partition}" for tp in still),
            )  # fmt: skip
            await self._rejoin()


async def unread_partitions(settings: Settings, group: str, topics: Collection[str]) -> set[TopicPartition]:
    """The partitions of the topics that no member is assigned; none while the group rebalances or has no members.

    Raises:
        KafkaUnavailable, KafkaRefused: when Kafka does not tell.
    """
    async with admin_client(settings) as client:
        with kafka_errors(settings, group=group, right="DESCRIBE"):
            state, members = await describe_group(client, group)
            described = await client.describe_topics(sorted(topics))
    if state != _STABLE:
        return set()
    unread = {TopicPartition(topic["topic"], p["partition"]) for topic in described for p in topic["partitions"]}
    for *_, assignment in members:
        unread.difference_update(ConsumerProtocol.ASSIGNMENT.decode(assignment).partitions())
    return unread
