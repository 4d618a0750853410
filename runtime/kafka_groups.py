"""Consumer groups: what they have committed, who is in them, and whether anything is left unread."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, ClassVar, Final

import structlog
from aiokafka import TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocol

from runtime.kafka import METADATA_MAX_AGE_MS, Ends, SharedAdmin, admin_client, new_consumer, until_known
from runtime.kafka_errors import kafka_errors
from runtime.service import PeriodicTask
from runtime.settings import Settings

log = structlog.get_logger(__name__)

#: How long a broker that has just started may take to find the coordinator of a group (seconds).
_COORDINATOR_SECONDS: Final = 15.0


async def describe_group(client: AIOKafkaAdminClient, group: str) -> tuple[str, list[Any]]:
    """State and members of a consumer group; a member is id, client, host, metadata and assignment."""
    [answer] = await _coordinated(lambda: client.describe_consumer_groups([group]))
    # Error code, group, state, protocol type, protocol, members, …
    _, _, state, _, _, members, *_ = answer.groups[0]
    return state, members


async def committed_offsets(client: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, int]:
    """What the group has committed; partitions without a commit are missing."""
    offsets = await _coordinated(lambda: client.list_consumer_group_offsets(group))
    return {tp: meta.offset for tp, meta in offsets.items() if meta.offset >= 0}


async def group_offsets(
    settings: Settings, group: str, topic: str, shared: AIOKafkaAdminClient | None = None
) -> dict[int, int]:
    """What the group has committed of a topic, by partition; partitions without a commit are missing.

    Raises:
        KafkaUnavailable: when no broker answers.
    """
    async with admin_client(settings, shared) as client:
        with kafka_errors(settings, group=group, right="DESCRIBE"):
            offsets = await committed_offsets(client, group)
    return {tp.partition: offset for tp, offset in offsets.items() if tp.topic == topic}


async def commit_offsets(settings: Settings, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Commit offsets of a group that has no members; nobody joins it.

    Raises:
        PartitionsLost: when it has members.
        KafkaUnavailable: when no broker answers.
    """
    consumer = new_consumer(settings, group_id=group)
    try:
        with kafka_errors(settings, group=group, right="READ"):
            await consumer.start()
            # Assigning partitions by hand does not join the group.
            consumer.assign(list(offsets))
            await consumer.commit(dict(offsets))
    finally:
        await consumer.stop()


async def _coordinated(ask: Callable[[], Awaitable[Any]]) -> Any:
    """The answer of a group's coordinator. A new broker creates the topic of offsets only when it is first asked."""
    new = (errors.GroupCoordinatorNotAvailableError, errors.NotCoordinatorForGroupError)
    return await until_known(new, _COORDINATOR_SECONDS, ask)


def lag_of(ends: Mapping[str, Ends], committed: Mapping[TopicPartition, int]) -> int:
    """Records between the committed offsets and the ends; without a commit, from the first record that is left."""
    return sum(
        max(0, end - max(first, committed.get(TopicPartition(topic, partition), first)))
        for topic, partitions in ends.items()
        for partition, (first, end) in partitions.items()
    )


#: The state of a group whose members all have their partitions.
_STABLE: Final = "Stable"


class GroupWatch(PeriodicTask[None]):
    """Makes a consumer rejoin its group when partitions are left unread.

    Only the leader of a group watches for partitions that are added. A leader with a lasting name that was killed and
    came back gets its partitions from the broker without being told that it leads, so nobody watches; a member that
    joins for the first time while Kafka creates a topic may not know all of its partitions either.

    Args:
        admin: asks Kafka.
        group: the name of the group.
        topics: whose every partition is to be read.
        rejoin: has this member join again; the broker then assigns the partitions again if that member leads.
    """

    name = "group"
    #: Longer than a leader takes to find new partitions, or a topic that was made again, by itself.
    interval_seconds: ClassVar[float] = 1.5 * METADATA_MAX_AGE_MS / 1000

    def __init__(
        self,
        settings: Settings,
        admin: SharedAdmin,
        group: str,
        topics: Collection[str],
        rejoin: Callable[[], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._admin = admin
        self._group = group
        self._topics = topics
        self._rejoin = rejoin
        self._unread: set[TopicPartition] = set()

    async def step(self) -> None:
        """Check once.

        Raises:
            KafkaUnavailable, KafkaRefused: when Kafka does not tell.
        """
        async with self._admin.client() as client:
            await self.look(client)

    async def look(self, client: AIOKafkaAdminClient) -> None:
        """Look once; act on what was so at the look before as well.

        Raises:
            KafkaUnavailable, KafkaRefused: when Kafka does not tell.
        """
        before = self._unread
        with kafka_errors(self._settings, group=self._group, right="DESCRIBE"):
            self._unread = await unread_partitions(client, self._group, self._topics)
        if still := self._unread & before:
            self._unread = set()  # a rebalance takes its time
            log.warning(
                "Nobody in the group reads these partitions; joining again, so that they are given out.",
                action="partitions_unread", group=self._group,
                partitions=sorted(f"{tp.topic}/{tp.partition}" for tp in still),
            )  # fmt: skip
            await self._rejoin()


async def unread_partitions(client: AIOKafkaAdminClient, group: str, topics: Collection[str]) -> set[TopicPartition]:
    """The partitions of the topics that no member is assigned; none while the group rebalances or has no members."""
    state, members = await describe_group(client, group)
    described = await client.describe_topics(sorted(topics))
    if state != _STABLE:
        return set()
    unread = {TopicPartition(topic["topic"], p["partition"]) for topic in described for p in topic["partitions"]}
    for *_, assignment in members:
        unread.difference_update(ConsumerProtocol.ASSIGNMENT.decode(assignment).partitions())
    return unread
