"""Folding again from a real log, and what of it cannot be proven."""

import asyncio
import time
from contextlib import aclosing, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.fetch import FetchRequest
from msgspec.structs import replace

from marketdata.errors import UnknownTopic
from marketdata.refold import Proof, TickFold
from marketdata.tick import Tick
from runtime.kafka import SharedAdmin, admin_client, log_ends
from runtime.logreader import LogClients, LogReader, changed_records, own_log
from runtime.settings import Settings
from runtime.ticklog import Refolded, TickLog
from tests.kafka_log import KafkaLog, delete_ticks_topic, frames_of

MINUTE_MS = 1_700_000_040_000

#: More partitions than a topic of the tests has.
NO_PARTITION = 1_000


async def ten_frames(kafka: KafkaLog) -> int:
    """The partition of ten records of one tick each, at offsets 0 to 9."""
    await kafka.send(*frames_of([Tick(MINUTE_MS + n, 1.1, 1.2, 0.0, 0.0, 6) for n in range(10)], 1))
    [partition] = kafka.log
    return partition


def volume(outcome: Refolded, one: Proof) -> int:
    candle = outcome.folds[one].candle(log="log", offsets=one.ranges, closed=True, emitted=0)
    assert candle is not None
    return candle.volume


def proof(partition: int, first: int, last: int) -> Proof:
    return Proof("s", "EURUSD", MINUTE_MS, ((partition, first, last),))


async def test_between_two_ranges_nothing_is_fetched(
    settings: Settings, kafka: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that stays open, as the archiver's does, once asked the broker a hundred times a second."""
    partition, topic = await ten_frames(kafka), settings.ticks_topic
    fetches: list[object] = []
    send = AIOKafkaClient.send

    async def count_and_send(client: AIOKafkaClient, node: int, request: Any, **others: Any) -> Any:
        if isinstance(request, FetchRequest):
            fetches.append(request)
        return await send(client, node, request, **others)

    monkeypatch.setattr(AIOKafkaClient, "send", count_and_send)
    async with LogReader(settings) as reader:

        async def offsets(first: int, last: int) -> list[int]:
            return [each.offset async for polled in reader.read(topic, partition, first, last) for each in polled]

        assert await offsets(0, 9) == list(range(10))
        await asyncio.sleep(0.1)  # for the one that was under way
        before = len(fetches)
        await asyncio.sleep(0.5)
        assert len(fetches) == before > 0
        # What follows is read all the same, and so is what was given up in the middle.
        await ten_frames(kafka)
        assert await offsets(10, 19) == list(range(10, 20))
        async for _ in reader.read(topic, partition, 0, 19, max_records=1):
            break
        assert await offsets(3, 12) == list(range(3, 13))


async def test_kept_clients_serve_the_next_question_without_connecting_until_one_fails(
    settings: Settings, kafka: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Arrange
    partition, topic = await ten_frames(kafka), settings.ticks_topic
    connected: list[object] = []
    connect = AIOKafkaConnection.connect

    async def count_and_connect(connection: AIOKafkaConnection) -> Any:
        connected.append(connection)
        return await connect(connection)

    monkeypatch.setattr(AIOKafkaConnection, "connect", count_and_connect)
    async with aclosing(LogClients(settings)) as clients:

        async def ask() -> LogReader:
            async with clients.reader() as reader, clients.admin.client() as client:
                assert await reader.ends(topic, partition) == (await log_ends(settings, topic, client))[partition]
                assert [len(polled) async for polled in reader.read(topic, partition, 0, 9)]
                return reader

        # Act
        first = await ask()
        before = len(connected)
        again = await ask()

        # Assert
        assert again is first
        assert len(connected) == before > 0
        # Each of two at once has its own.
        async with clients.reader() as one, clients.reader() as two:
            assert one is not two
        # One that is given up in the middle of a range serves the next.
        with suppress(asyncio.CancelledError):
            async with clients.reader() as reader:
                async for _ in reader.read(topic, partition, 0, 9, max_records=1):
                    raise asyncio.CancelledError
        assert await ask() is reader
        # What failed does not.
        with pytest.raises(UnknownTopic):
            async with clients.reader() as reader:
                await reader.ends("missing", 0)
        assert await ask() is not reader


async def test_a_kept_reader_sees_that_the_topic_was_deleted(settings: Settings, kafka: KafkaLog) -> None:
    partition, topic = await ten_frames(kafka), settings.ticks_topic
    async with aclosing(LogClients(settings)) as clients:
        async with clients.reader() as reader:
            assert await reader.ends(topic, partition) == (0, 10)
        await delete_ticks_topic(settings)
        with pytest.raises(UnknownTopic):
            async with asyncio.timeout(10), clients.reader() as reader:
                await reader.ends(topic, partition)


async def test_a_partition_that_the_topic_lacks_makes_its_proofs_unprovable(
    settings: Settings, kafka: KafkaLog
) -> None:
    began = time.monotonic()
    async with TickLog(settings) as tick_log:
        nowhere, there = proof(NO_PARTITION, 0, 5), proof(await ten_frames(kafka), 0, 5)
        outcome = await tick_log.refold([nowhere, there])

    assert outcome.unprovable == {nowhere}
    assert volume(outcome, there) == 6
    assert time.monotonic() - began < 30


async def test_a_record_that_the_log_lost_or_replaced_is_noticed_and_one_that_retention_took_is_not(
    settings: Settings, kafka: KafkaLog
) -> None:
    partition = await ten_frames(kafka)
    topic, tp = settings.ticks_topic, TopicPartition(settings.ticks_topic, partition)
    async with LogReader(settings) as reader, admin_client(settings) as client:
        records = [record async for polled in reader.read(topic, partition, 0, 9) for record in polled]

        async def changed(**others: Any) -> bool:
            record: Any = SimpleNamespace(**{"offset": 4, "value": records[4].value} | others)
            return await changed_records(settings, client, topic, {partition: record}) == [partition]

        assert not await changed()
        assert not await changed(offset=9, value=records[9].value)
        assert await changed(value=records[5].value)
        # The log ends before it.
        assert await changed(offset=10)
        await client.delete_records({tp: RecordsToDelete(before_offset=5)})
        assert not await changed(value=b"other")
        assert await changed(offset=5, value=b"other")


async def test_tasks_share_a_connection_until_one_of_them_fails(settings: Settings, kafka: KafkaLog) -> None:
    async with aclosing(SharedAdmin(settings)) as admin:
        async with admin.client() as first:
            assert set(await log_ends(settings, settings.ticks_topic, first)) == set(range(settings.kafka_partitions))
        async with admin.client() as second:
            assert second is first
        with pytest.raises(UnknownTopic):
            async with admin.client() as client:
                await log_ends(settings, "missing", client)
        async with admin.client() as third:
            assert third is not first
            await own_log(settings, third)


async def test_a_topic_that_is_gone_is_named(settings: Settings, kafka: KafkaLog) -> None:
    await delete_ticks_topic(settings)
    async with TickLog(settings) as tick_log:
        with pytest.raises(UnknownTopic, match=settings.ticks_topic) as caught:
            await tick_log.refold([proof(0, 0, 5)])
    assert caught.value.retriable


async def test_no_more_ticks_are_held_than_allowed_whatever_the_candles_count(
    settings: Settings, kafka: KafkaLog
) -> None:
    """Eight minutes of 1,000 quotes of a symbol charted by last, sent twice: none counts, and each is held."""
    minutes = [MINUTE_MS + n * 60_000 for n in range(8)]
    frames = [
        replace(frame, mode="last")
        for begin in minutes
        for frame in frames_of([Tick(begin + n, 1.1, 1.2, 1.15, 3.0, 6) for n in range(1_000)], 1_000)
    ]
    await kafka.send(*frames, *frames)
    [partition] = kafka.log
    proofs = [
        Proof("s", "EURUSD", begin, ((partition, n, n), (partition, 8 + n, 8 + n))) for n, begin in enumerate(minutes)
    ]
    async with TickLog(settings) as tick_log:
        parts = [set(part.folds) async for part in tick_log.refold_parts(proofs, max_ticks=2_500)]
        counted = [part async for part in tick_log.refold_parts(proofs[:1], new_fold=TickFold, max_ticks=500)]
        outcome = await tick_log.refold(proofs, max_ticks=2_500)

    assert parts == [set(proofs[n : n + 2]) for n in (0, 2, 4, 6)]
    assert [len(list(fold.rows())) for part in counted for fold in part.folds.values()] == [1_000]  # type: ignore[attr-defined]
    assert [(fold.latest - fold.ts, fold.ticks_held) for fold in outcome.folds.values()] == [(999, 0)] * 8


async def test_what_retention_deletes_while_it_is_read_is_unprovable(
    settings: Settings, kafka: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = await ten_frames(kafka)
    ends = LogReader.ends

    async def ends_and_delete(reader: LogReader, topic: str, number: int) -> tuple[int, int]:
        found = await ends(reader, topic, number)
        async with admin_client(settings) as client:
            await client.delete_records({TopicPartition(topic, number): RecordsToDelete(before_offset=4)})
        return found

    monkeypatch.setattr(LogReader, "ends", ends_and_delete)
    async with TickLog(settings) as tick_log:
        taken, left = proof(partition, 0, 5), proof(partition, 5, 9)
        outcome = await tick_log.refold([taken, left])

    assert outcome.unprovable == {taken}
    assert volume(outcome, left) == 5


async def test_whether_the_log_holds_records_is_told_for_holes_and_ends(settings: Settings, kafka: KafkaLog) -> None:
    partition = await ten_frames(kafka)
    async with admin_client(settings) as client:
        tp = TopicPartition(settings.ticks_topic, partition)
        await client.delete_records({tp: RecordsToDelete(before_offset=4)})
    async with TickLog(settings) as tick_log:
        held = [await tick_log.holds_records(partition, *span) for span in ((0, 3), (0, 4), (9, 20), (10, 20))]
    assert held == [False, True, True, False]
