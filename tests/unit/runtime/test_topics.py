"""A topic that was created can be used at once, although Kafka confirms it before every broker tells of it."""

from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.errors import UnknownTopicOrPartitionError

from runtime import topics as module
from runtime.settings import Settings, load_settings
from runtime.topics import ensure_topics, topics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class SlowToTell:
    """A cluster that tells of new topics when it is asked for the fourth time; the real one does so under load."""

    def __init__(self) -> None:
        self.asked = 0
        self.created: set[str] = set()

    async def describe_cluster(self) -> dict[str, str]:
        return {"cluster_id": "c"}

    async def _send_request(self, request: Any, _node: int | None) -> SimpleNamespace:
        unknown: list[Any] = [(UnknownTopicOrPartitionError.errno, name, 0, {}) for name in request._topics]
        return SimpleNamespace(topics=unknown)

    async def create_topics(self, new: list[Any]) -> SimpleNamespace:
        self.created = {topic.name for topic in new}
        return SimpleNamespace(topic_errors=[(name, 0, None) for name in self.created])

    async def list_topics(self) -> list[str]:
        self.asked += 1
        return sorted(self.created) if self.asked > 3 else []


async def test_creating_ends_when_the_topics_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, cluster = load_settings(), SlowToTell()

    @asynccontextmanager
    async def admin_client(_settings: Settings) -> "AsyncIterator[SlowToTell]":
        yield cluster

    monkeypatch.setattr(module, "admin_client", admin_client)
    await ensure_topics(settings)

    assert set(await cluster.list_topics()) == {topic.name for topic in topics(settings)}
    assert cluster.asked == 5  # once for what is missing, three times until they are told of, once here
