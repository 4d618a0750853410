"""Records that are no candles, of every shape, and topics of rejected records in trouble: nothing else waits."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka.admin import NewTopic

from runtime.kafka import admin_client
from runtime.rejected import RejectedRecord, Which
from runtime.settings import Settings
from sink.db.connection import Connection
from tests.integration.sink.flow import Flow, RunningSink, value
from tests.kafka_log import delete_topic, group_lag, send_empty
from tests.rejected import rejected_records
from tests.unit.sink.candles import MINUTE, candle
from tests.waiting import eventually

#: With the headers of a rejected record it is larger than the topic takes; Kafka's default for a batch is 1,048,588.
LARGE = os.urandom(1_048_588 - 160)


@asynccontextmanager
async def flow_around_poison(settings: Settings, connection: Connection, flow: Flow) -> AsyncIterator[None]:
    """A sink that is given two candles, what the test sends, and two candles more; at the end all must be committed."""
    good = [candle(ts=MINUTE + i * 60_000, log=flow.own_log) for i in range(4)]

    async def stored_and_committed() -> bool:
        stored = await value(connection, "SELECT count(*) FROM market_data")
        return bool(stored == 4) and await group_lag(settings, settings.sink_group, settings.candles_topic) == 0

    async with RunningSink(settings):
        await flow.send_candles(good[:2])
        yield
        await flow.send_candles(good[2:])
        await eventually(stored_and_committed)


async def rejected(settings: Settings) -> list[RejectedRecord]:
    return await rejected_records(settings, Which.CANDLES)


async def test_a_record_without_key_and_value_is_stored_as_such(
    settings: Settings, connection: Connection, flow: Flow
) -> None:
    async with flow_around_poison(settings, connection, flow):
        offset = await send_empty(flow.producer, settings.candles_topic)

    [found] = await rejected(settings)
    assert (found.key, found.value, found.is_whole) == (None, None, True)
    assert found.origin == f"{settings.candles_topic}-0@{offset}"


@pytest.mark.parametrize("key", [b"key", None])
async def test_a_record_that_outgrows_the_rejected_topic_is_known_by_its_place(
    settings: Settings, connection: Connection, flow: Flow, key: bytes | None
) -> None:
    async with flow_around_poison(settings, connection, flow):
        offsets = await flow.send(settings.candles_topic, [(key, LARGE), (key, b"no candle")])

    large, small = sorted(await rejected(settings), key=lambda one: int(one.headers["offset"]))
    assert (large.key, large.value, large.is_whole) == (key, None, False)
    assert large.size_bytes == len(LARGE) + len(key or b"")
    assert large.origin == f"{settings.candles_topic}-0@{offsets[0]}"
    assert (small.key, small.value, small.is_whole) == (key, b"no candle", True)


async def test_a_rejected_topic_that_was_deleted_is_created_again(
    settings: Settings, connection: Connection, flow: Flow
) -> None:
    async with flow_around_poison(settings, connection, flow):
        await delete_topic(settings, settings.candles_rejected_topic)
        await flow.send(settings.candles_topic, [(b"key", b"no candle")])

    assert [one.value for one in await rejected(settings)] == [b"no candle"]


async def test_a_rejected_topic_with_a_small_limit_costs_only_what_outgrows_it(
    settings: Settings, connection: Connection, flow: Flow
) -> None:
    await delete_topic(settings, settings.candles_rejected_topic)
    async with admin_client(settings) as client:
        small = NewTopic(settings.candles_rejected_topic, 1, 1, topic_configs={"max.message.bytes": "2000"})
        await client.create_topics([small])
    values = [b"no candle", os.urandom(5_000), b"neither", os.urandom(1_000)]
    async with flow_around_poison(settings, connection, flow):
        await flow.send(settings.candles_topic, [(b"key", each) for each in values])

    found = sorted(await rejected(settings), key=lambda one: int(one.headers["offset"]))
    assert [one.value for one in found] == [values[0], None, values[2], values[3]]
    assert [one.is_whole for one in found] == [True, False, True, True]


async def test_a_candle_of_records_that_the_log_cannot_hold_is_rejected_and_replaces_nothing(
    settings: Settings, connection: Connection, flow: Flow
) -> None:
    beyond = candle([(0, 10**9)], log=flow.own_log, volume=10**9, high=99.0, closed=True)
    elsewhere = candle([(700, 0, 9)], log=flow.own_log, volume=10**9, high=99.0, closed=True)

    async with flow_around_poison(settings, connection, flow):
        await flow.send_candles([beyond, elsewhere])

    found = await rejected(settings)
    assert ["far beyond the end of the log" in one.headers["reason"] for one in found] == [True, True]
    assert await value(connection, "SELECT max(high) FROM market_data") < 99
