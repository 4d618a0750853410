"""What a broker answers until it has found a group's coordinator is waited for by those that ask the coordinator."""

from types import SimpleNamespace

from aiokafka import TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError

from runtime.kafka_groups import committed_offsets, describe_group


class NewBroker:
    """A broker that makes the topic of offsets when it is first asked for a group, as a new one does."""

    def __init__(self) -> None:
        self.asked = 0

    def _coordinate(self) -> None:
        self.asked += 1
        if self.asked == 1:
            raise GroupCoordinatorNotAvailableError

    async def list_consumer_group_offsets(self, _group: str) -> dict[TopicPartition, SimpleNamespace]:
        self._coordinate()
        return {TopicPartition("t", 0): SimpleNamespace(offset=7), TopicPartition("t", 1): SimpleNamespace(offset=-1)}

    async def describe_consumer_groups(self, _groups: list[str]) -> list[SimpleNamespace]:
        self._coordinate()
        return [SimpleNamespace(groups=[(0, "g", "Stable", "consumer", "range", ["member"])])]


async def test_a_groups_coordinator_is_waited_for_whoever_asks() -> None:
    assert await committed_offsets(NewBroker(), "g") == {TopicPartition("t", 0): 7}
    assert await describe_group(NewBroker(), "g") == ("Stable", ["member"])
