"""Partitions that are added are read by whoever is there, also when the leader was killed and came back."""

from functools import partial
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions

from runtime.aiokafka_internals import rejoin_group
from runtime.kafka import Consumer, SharedAdmin, admin_client
from runtime.kafka_access import client_options
from runtime.kafka_groups import GroupWatch, unread_partitions
from runtime.settings import Settings
from runtime.topics import ensure_topics
from tests.services import Service
from tests.waiting import eventually, wait_until


async def grow(settings: Settings, partitions: int) -> None:
    async with admin_client(settings) as client:
        await client.create_partitions({settings.ticks_topic: NewPartitions(total_count=partitions)})


@pytest.mark.contract
async def test_partitions_that_nobody_reads_are_found_and_given_out(settings: Settings) -> None:
    await ensure_topics(settings)
    # It does not hear of new partitions by itself, as a leader that came back does not.
    consumer = Consumer(
        settings.ticks_topic, group_id=settings.stream_group, metadata_max_age_ms=300_000, enable_auto_commit=False,
        **client_options(settings),
    )  # fmt: skip
    topics, before, admin = [settings.ticks_topic], settings.kafka_partitions, SharedAdmin(settings)

    async def assigned(count: int) -> bool:
        return len(consumer.assignment()) == count

    await consumer.start()
    try:
        await eventually(partial(assigned, before), what="the partitions")
        watch = GroupWatch(settings, admin, settings.stream_group, topics, partial(rejoin_group, consumer))
        await watch.step()
        await grow(settings, before + 2)
        unread = {TopicPartition(settings.ticks_topic, number) for number in (before, before + 1)}

        async def are_unread() -> bool:
            async with admin_client(settings) as client:
                return await unread_partitions(client, settings.stream_group, topics) == unread

        await eventually(are_unread, what="partitions that nobody reads")
        # One look is not enough: the group may be about to find them itself.
        await watch.step()
        assert await assigned(before)
        await watch.step()
        await eventually(partial(assigned, before + 2), what="all partitions")
        async with admin_client(settings) as client:
            assert await unread_partitions(client, settings.stream_group, topics) == set()
    finally:
        await admin.aclose()
        await consumer.stop()


@pytest.mark.full
async def test_a_killed_worker_reads_partitions_that_were_added_after_it_came_back(
    settings: Settings, tmp_path: Path
) -> None:
    await ensure_topics(settings)
    worker = Service("stream_app", settings, log=tmp_path / "log")
    try:
        worker.start().wait_ready()
        worker.kill()
        worker.start().wait_ready()
        await grow(settings, 4)
        wait_until(lambda: "partitions=[0, 1, 2, 3]" in worker.said(), what="all partitions")
    finally:
        worker.close()
