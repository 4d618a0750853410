"""Topics are created so that nothing that is wanted is deleted, and can be used at once.

Kafka confirms a topic before every broker tells of it.
"""

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
    async def admin_client(_settings: Settings, _shared: object = None) -> "AsyncIterator[SlowToTell]":
        yield cluster

    monkeypatch.setattr(module, "admin_client", admin_client)
    await ensure_topics(settings)

    assert set(await cluster.list_topics()) == {topic.name for topic in topics(settings)}
    assert cluster.asked == 5  # once for what is missing, three times until they are told of, once here


def test_ticks_are_retained_for_ever_and_candles_are_never_compacted() -> None:
    by_name = {topic.name: topic for topic in topics(load_settings())}

    assert by_name["ticks"].config["retention.ms"] == "-1"
    assert by_name["ticks"].config["cleanup.policy"] == "delete"
    assert by_name["candles.m1"].config["cleanup.policy"] == "delete"
    assert by_name["candles.broker"].config["cleanup.policy"] == "compact"


def test_a_lone_broker_writes_ticks_to_disk_every_second_and_replicas_need_not() -> None:
    alone, replicated = (topics(load_settings(kafka_replication=n))[0] for n in (1, 3))

    assert alone.config["flush.ms"] == "1000"
    assert "flush.ms" not in replicated.config
    assert replicated.replication == 3
