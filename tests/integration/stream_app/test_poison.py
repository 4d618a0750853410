"""Records that are no frames, of every shape, and topics of rejected records in trouble: nothing else waits."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka.admin import NewTopic

from marketdata.wire import frame_key
from runtime.kafka import MAX_RECORD_BYTES, admin_client
from runtime.rejected import RejectedRecord, Which
from runtime.settings import Settings
from tests.days import eurusd_ticks
from tests.kafka_log import KafkaLog, delete_topic, frames_of, send_empty
from tests.rejected import rejected_records
from tests.services import Service, running
from tests.waiting import eventually

pytestmark = pytest.mark.long(42)

#: With the headers of a rejected record it is larger than the topic takes.
LARGE = os.urandom(MAX_RECORD_BYTES - 160)

KEY = frame_key("s", "EURUSD")


@asynccontextmanager
async def flow_around_poison(settings: Settings, kafka: KafkaLog) -> AsyncIterator[Service]:
    """A worker that is given two frames, what the test sends, and two frames more; at the end all must be committed."""
    good = frames_of(eurusd_ticks()[:400], 100)
    with running(settings, "stream_app") as [worker]:
        await kafka.send(*good[:2])
        yield worker
        await kafka.send(*good[2:])

        async def caught_up() -> bool:
            assert worker.returncode is None
            return await kafka.lag() == 0

        await eventually(caught_up, what="no lag")
        assert sum(candle.volume for candle in (await kafka.candles()).values()) == 400


async def partition_of(kafka: KafkaLog) -> int:
    [partition] = kafka.log
    return partition


async def rejected(settings: Settings) -> list[RejectedRecord]:
    return await rejected_records(settings, Which.TICKS)


@pytest.mark.contract
async def test_what_is_no_frame_is_stored_apart_and_stops_nothing(settings: Settings, kafka: KafkaLog) -> None:
    values = [b"", b"\xff", b"{}", b'{"v":2}', None]
    async with flow_around_poison(settings, kafka):
        for value in values:
            await kafka.producer.send_and_wait(settings.ticks_topic, value, key=KEY)
        # The last one has no key either.
        await send_empty(kafka.producer, settings.ticks_topic, await partition_of(kafka))

    found = sorted(await rejected(settings), key=lambda one: int(one.headers["offset"]))
    place = f"{settings.ticks_topic}-{await partition_of(kafka)}"
    assert [one.origin for one in found] == [f"{place}@{offset}" for offset in range(2, 8)]
    assert [(one.key, one.value) for one in found] == [*((KEY, value) for value in values), (None, None)]
    assert all(one.reason and one.is_whole for one in found)


@pytest.mark.parametrize("key", [KEY, pytest.param(None, marks=pytest.mark.full)])
async def test_a_record_that_outgrows_the_rejected_topic_is_known_by_its_place(
    settings: Settings, kafka: KafkaLog, key: bytes | None
) -> None:
    async with flow_around_poison(settings, kafka):
        sent = await kafka.producer.send_and_wait(settings.ticks_topic, LARGE, key=key)
        small = await kafka.producer.send_and_wait(settings.ticks_topic, b"no frame", key=key)

    found = {one.origin: one for one in await rejected(settings)}
    assert set(found) == {f"{settings.ticks_topic}-{at.partition}@{at.offset}" for at in (sent, small)}
    large = found[f"{settings.ticks_topic}-{sent.partition}@{sent.offset}"]
    assert (large.key, large.value, large.is_whole) == (key, None, False)
    assert large.size_bytes == len(LARGE) + len(key or b"")
    assert found[f"{settings.ticks_topic}-{small.partition}@{small.offset}"].value == b"no frame"


async def test_a_rejected_topic_that_was_deleted_is_created_again(settings: Settings, kafka: KafkaLog) -> None:
    async with flow_around_poison(settings, kafka):
        await delete_topic(settings, settings.ticks_rejected_topic)
        await kafka.producer.send_and_wait(settings.ticks_topic, b"no frame", key=KEY)

    assert [one.value for one in await rejected(settings)] == [b"no frame"]


async def test_a_rejected_topic_with_a_small_limit_costs_only_what_outgrows_it(
    settings: Settings, kafka: KafkaLog
) -> None:
    await delete_topic(settings, settings.ticks_rejected_topic)
    async with admin_client(settings) as client:
        small = NewTopic(settings.ticks_rejected_topic, 1, 1, topic_configs={"max.message.bytes": "2000"})
        await client.create_topics([small])
    values = [b"no frame", os.urandom(5_000), b"neither", os.urandom(1_000)]
    async with flow_around_poison(settings, kafka):
        # In one batch, so that the worker reads them together.
        futures = [await kafka.producer.send(settings.ticks_topic, value, key=KEY) for value in values]
        await asyncio.gather(*futures)

    found = sorted(await rejected(settings), key=lambda one: int(one.headers["offset"]))
    assert [one.value for one in found] == [values[0], None, values[2], values[3]]
    assert [one.is_whole for one in found] == [True, False, True, True]
