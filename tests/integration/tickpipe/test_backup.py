"""Backup and restore on a real Kafka and PostgreSQL: topics at equal offsets, rows that prove themselves."""

import time
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions, RecordsToDelete
from psycopg import sql

from marketdata.errors import KafkaUnavailable
from marketdata.tick import Frame
from marketdata.wire import Instrument, Reference, SenderCount, encode, reference_key
from runtime import clock
from runtime.kafka import admin_client, log_ends, new_producer
from runtime.kafka_groups import group_offsets
from runtime.logreader import LogReader, own_log, wait_for_log
from runtime.settings import Settings
from runtime.topics import ensure_topics
from sink.db.connection import connect
from sink.db.schema import migrate
from sink.verify import verify
from sink.writer import apply_reference
from tests.conftest import own_settings
from tests.integration.sink.fixed import new_writer
from tests.integration.sink.flow import Flow, RunningSink, day_frames, value
from tests.integration.tickpipe.backups import Silent, archives, restored
from tests.kafka_log import delete_topic
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.unit.sink.candles import MINUTE, candle
from tests.waiting import eventually
from tickpipe.backup import topics
from tickpipe.backup.archive import (
    ArchiveReader,
    Partition,
)
from tickpipe.backup.database import TABLES, DatabaseNotEmpty, whole_lines, with_other_log
from tickpipe.backup.engine import LogState, take_backup
from tickpipe.backup.topics import LogRecord, read_records
from tickpipe.replay.engine import set_offsets

pytestmark = pytest.mark.long(30)

#: Frames of 100 ticks each: a morning.
FRAMES = 240

#: Counts of long ago are forgotten.
_SEEN_MS = clock.now_ms() - 86_400_000

REFERENCE: list[Reference] = [
    SenderCount(
        source="S", server="Broker-Demo", account="1", build="3850", ea="PDC", version="1.65", address="10.0.0.7",
        counter="a", first_seen=_SEEN_MS, last_seen=_SEEN_MS + 500, ticks=3, bars=4,
    ),
    Instrument(source="S", symbol="EURUSD", point=0.00001, received=1_549_000_000_000),
]  # fmt: skip


@pytest.fixture
async def elsewhere(servers: EmbeddedServers, settings: Settings, tmp_path: Path) -> AsyncIterator[Settings]:
    """Another pipeline: its topics, its groups and its empty database are not those of `settings`."""
    name = f"r{settings.stream_group.rpartition('-')[2]}"
    yield own_settings(servers, name, data_dir=tmp_path / "elsewhere")
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE test_{name} WITH (FORCE)".encode())


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Without lasting names, with which a member stays in its group for ten seconds after it stopped."""
    return settings.model_copy(update={"sink_instance": "", "stream_instance": ""})


@pytest.fixture
async def flow(settings: Settings) -> AsyncIterator[Flow]:
    async with Flow(settings, await wait_for_log(settings)) as opened:
        yield opened


async def stored(settings: Settings, frames: list[Frame], flow: Flow) -> None:
    """Log the frames; the sink stores the candles of all but the last quarter, the rest waits for it."""
    candles = flow.candles(await flow.log_frames(frames), every=20)
    last_quarter = len(candles) * 3 // 4
    await flow.send(settings.reference_topic, [(reference_key(record), encode(record)) for record in REFERENCE])
    await flow.send_candles(candles[:last_quarter])
    async with RunningSink(settings) as sink:
        await eventually(lambda: sink_has_committed(settings, last_quarter))
        await eventually(lambda: has_senders(settings))
        assert sink.health.passes("database")
    await flow.send_candles(candles[last_quarter:])


async def has_senders(settings: Settings) -> bool:
    return all(rows(settings, table) for table in ("sender_counts", "instruments"))


async def sink_has_committed(settings: Settings, records: int) -> bool:
    committed = await group_offsets(settings, settings.sink_group, settings.candles_topic)
    return sum(committed.values()) >= records


async def log_reaches(settings: Settings, end: int) -> bool:
    return (await log_ends(settings, settings.ticks_topic))[0][1] == end


async def records_of(settings: Settings, topic: str) -> list[LogRecord]:
    """Every record of a topic's first partition."""
    begin, end = (await log_ends(settings, topic))[0]
    async with LogReader(settings) as reader:
        return [record async for record in topics.records_between(reader, TopicPartition(topic, 0), begin, end)]


def rows(settings: Settings, table: str) -> list[tuple[Any, ...]]:
    """A table without the name of the log."""
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        query = sql.SQL("SELECT to_jsonb(t) - 'log' FROM {} AS t ORDER BY 1").format(sql.Identifier(table))
        return connection.execute(query).fetchall()


async def test_everything_comes_back_proven_and_goes_on(
    settings: Settings, elsewhere: Settings, flow: Flow, tmp_path: Path
) -> None:
    # Arrange: the stream had folded up to frame 200, the sink had stored three quarters; something was rejected
    frames = day_frames()[: FRAMES + 20]
    await stored(settings, frames[:FRAMES], flow)
    await set_offsets(settings, settings.stream_group, {TopicPartition(settings.ticks_topic, 0): 200})
    await flow.producer.send_and_wait(
        settings.ticks_rejected_topic, b"no tick", partition=0, timestamp_ms=1_549_000_000_000,
        headers=[("reason", b"it is none")],
    )  # fmt: skip
    path = tmp_path / "backup.zip"
    # One of the senders has found the new producer already.
    await migrate(elsewhere.database_url.get_secret_value())
    async with await connect(elsewhere.database_url.get_secret_value()) as connection:
        await apply_reference(connection, REFERENCE)

    # Act
    manifest = await take_backup(settings, path, Silent(), with_topics=True)
    restored_at = int(time.time())
    outcome = await restored(elsewhere, path)

    # Assert: the log is the same record by record, the rows as well
    assert manifest.kafka is not None
    assert outcome.log is LogState.RESTORED
    ticks = await records_of(settings, settings.ticks_topic)
    assert len(ticks) == FRAMES
    assert await records_of(elsewhere, elsewhere.ticks_topic) == ticks
    rejected = await records_of(elsewhere, elsewhere.ticks_rejected_topic)
    assert rejected == await records_of(settings, settings.ticks_rejected_topic)
    assert rejected[0].headers == (("reason", b"it is none"),)
    for table in TABLES:
        assert rows(elsewhere, table) == rows(settings, table)
    assert len(rows(elsewhere, "market_data")) > 50
    report = await verify(elsewhere)
    assert (report.checked, report.equal, report.unprovable) == (outcome.candles, outcome.candles, [])

    # The groups go on where they were: the stream behind what it had folded, the sink with what waited for it.
    assert (await group_offsets(elsewhere, elsewhere.stream_group, elsewhere.ticks_topic))[0] == 200
    assert await group_offsets(elsewhere, elsewhere.sink_group, elsewhere.candles_topic) == {0: 0}
    async with Flow(elsewhere, await own_log(elsewhere)) as after, RunningSink(elsewhere):
        tail = await records_of(elsewhere, elsewhere.candles_topic)
        waiting = len(tail)
        # Kafka would delete what was emitted more than thirty days before the restore.
        assert min(record.timestamp for record in tail) > restored_at * 1000
        assert waiting == manifest.kafka.topics[1].partitions[0].records > 10
        await eventually(lambda: sink_has_committed(elsewhere, waiting))
        whole = after.candles([(record.offset, frame) for record, frame in zip(ticks, frames, strict=False)])
        assert len(rows(elsewhere, "market_data")) == len(whole)
        assert (await verify(elsewhere)).equal == len(whole)

        # New ticks lie behind the old ones, and count once: the minute in which the backup ended is whole.
        logged = await after.log_frames(frames[FRAMES:])
        assert logged[0][0] == FRAMES
        again = after.candles([*((r.offset, f) for r, f in zip(ticks, frames, strict=False)), *logged])
        await after.send_candles(again)
        await eventually(lambda: sink_has_committed(elsewhere, waiting + len(again)))
    report = await verify(elsewhere)
    assert (report.equal, report.pending, report.unprovable) == (len(again), [], [])
    async with await connect(elsewhere.database_url.get_secret_value()) as connection:
        assert await value(connection, "SELECT sum(volume) FROM market_data") == 100 * (FRAMES + 20)


@pytest.mark.full
async def test_holes_in_the_log_and_what_retention_took_are_kept(
    settings: Settings, elsewhere: Settings, flow: Flow, tmp_path: Path
) -> None:
    # Arrange: a transaction's marker takes offset 60; what is before 25 is gone
    frames = day_frames()[:120]
    logged = await flow.log_frames(frames[:59])
    producer = new_producer(settings, transactional_id=settings.sink_group)
    await producer.start()
    async with producer.transaction():
        await producer.send(settings.ticks_topic, msgspec.json.encode(frames[59]), key=b"S/EURUSD", partition=0)
    await producer.stop()
    await eventually(lambda: log_reaches(settings, 61))
    logged += [(59, frames[59]), *await flow.log_frames(frames[60:])]
    assert logged[60][0] == 61
    await flow.send_candles(flow.candles(logged[30:]))
    async with RunningSink(settings):
        await eventually(lambda: sink_has_committed(settings, 10))
    async with admin_client(settings) as client:
        await client.delete_records({TopicPartition(settings.ticks_topic, 0): RecordsToDelete(before_offset=25)})
    path = tmp_path / "backup.zip"

    # Act
    await take_backup(settings, path, Silent(), with_topics=True)
    await restored(elsewhere, path)

    # Assert
    assert (await log_ends(elsewhere, elsewhere.ticks_topic))[0] == (25, 121)
    original = {record.offset: record for record in await records_of(settings, settings.ticks_topic)}
    copy = {record.offset: record for record in await records_of(elsewhere, elsewhere.ticks_topic)}
    assert sorted(copy.keys() - original.keys()) == [60]
    assert copy.pop(60).value is None
    assert copy == original
    before, after = await verify(settings), await verify(elsewhere)
    assert (after.checked, after.equal, after.unprovable) == (before.checked, before.equal, before.unprovable)
    assert after.equal > 10


async def test_an_interrupted_restore_goes_on_and_foreign_records_stop_it(
    settings: Settings, elsewhere: Settings, flow: Flow, tmp_path: Path
) -> None:
    await stored(settings, day_frames()[:60], flow)
    path = tmp_path / "backup.zip"
    manifest = await take_backup(settings, path, Silent(), with_topics=True)
    assert manifest.kafka is not None
    part = Partition(0, 0, 60, 60)

    # Arrange: 20 of the 60 records had been written
    await ensure_topics(elsewhere)
    with ArchiveReader(path) as archive:
        found = read_records(archive.pieces("topics/ticks_topic/0.records"))
        async with topics.restoring_producer(elsewhere) as producer:
            half = topics.TopicRestore(elsewhere, producer, topics.TICKS, lambda _: None)
            await half.partition(
                part, topics.expected_log(part, islice(found, 20), same_offsets=False), same_offsets=True
            )

    # Act and assert: it goes on, and run once more it changes nothing
    for state in (LogState.RESTORED, LogState.PRESENT):
        assert (await restored(elsewhere, path, replace=True)).log is state
        assert await records_of(elsewhere, elsewhere.ticks_topic) == await records_of(settings, settings.ticks_topic)
        assert (await verify(elsewhere)).unprovable == []

    # A log that went on is the same log; one that has other records is not.
    await flow.send(settings.ticks_topic, [(None, b"more")])
    assert (await restored(settings, path, replace=True)).log is LogState.PRESENT
    other = await log_ends(elsewhere, elsewhere.ticks_rejected_topic)
    foreign = elsewhere.model_copy(update={"ticks_topic": elsewhere.ticks_rejected_topic})
    await flow.send(foreign.ticks_topic, [(None, b"foreign")])
    assert other[0] == (0, 0)
    with pytest.raises(topics.TopicsDiffer, match="offset 0 of"):
        await restored(foreign, path, replace=True)


async def test_the_database_alone_comes_back_to_the_log_that_is_here(
    settings: Settings, elsewhere: Settings, flow: Flow, tmp_path: Path
) -> None:
    # Arrange
    await stored(settings, day_frames()[:60], flow)
    path = tmp_path / "backup.zip"
    await take_backup(settings, path, Silent(), with_topics=False)
    before = {table: rows(settings, table) for table in TABLES}
    committed = await group_offsets(settings, settings.sink_group, settings.candles_topic)
    async with RunningSink(settings):
        await eventually(lambda: sink_has_committed(settings, len(before["market_data"]) + 1))

    # Act: what came since is in the log, and folded again from there
    with pytest.raises(DatabaseNotEmpty, match="--replace"):
        await restored(settings, path)
    outcome = await restored(settings, path, replace=True)

    # Assert
    assert outcome.log is LogState.PRESENT
    assert {table: rows(settings, table) for table in TABLES} == before
    assert await group_offsets(settings, settings.sink_group, settings.candles_topic) == committed
    report = await verify(settings)
    assert report.equal == report.checked == outcome.candles

    # In another Kafka the candles are there and nothing proves them.
    outcome = await restored(elsewhere, path)
    assert outcome.log is LogState.MISSING
    assert rows(elsewhere, "market_data") == before["market_data"]
    await ensure_topics(elsewhere)
    assert len((await verify(elsewhere)).unprovable) == outcome.candles


@pytest.mark.parametrize("made_again", [False, True])
async def test_the_topic_of_the_candles_was_deleted_since_or_has_fewer_partitions(
    settings: Settings, flow: Flow, tmp_path: Path, made_again: bool
) -> None:
    # Arrange
    async with admin_client(settings) as client:
        await client.create_partitions({settings.candles_topic: NewPartitions(total_count=3)})
    await set_offsets(settings, settings.sink_group, {TopicPartition(settings.candles_topic, 2): 0})
    await stored(settings, day_frames()[:60], flow)
    path = tmp_path / "backup.zip"
    await take_backup(settings, path, Silent(), with_topics=False)
    await delete_topic(settings, settings.candles_topic)
    if made_again:
        await ensure_topics(settings)

    # Act
    outcome = await restored(settings, path, replace=True)

    # Assert
    assert outcome.log is LogState.PRESENT
    assert (await verify(settings)).equal == outcome.candles
    assert await log_ends(settings, settings.candles_topic) == {0: (0, 0), 1: (0, 0)}


@pytest.mark.full
async def test_the_database_is_backed_up_while_kafka_is_down(
    settings: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    # Arrange
    down = {"kafka_bootstrap": f"127.0.0.1:{free_port()}"}
    await migrate(settings.database_url.get_secret_value())
    async with await connect(settings.database_url.get_secret_value()) as connection:
        await new_writer().write(connection, [candle(ts=MINUTE + n * 60_000) for n in range(100)])
    settings, elsewhere = settings.model_copy(update=down), elsewhere.model_copy(update=down)

    # Act
    manifest = await take_backup(settings, tmp_path / "backup.zip", Silent(), with_topics=False)
    outcome = await restored(elsewhere, tmp_path / "backup.zip")

    # Assert
    assert (manifest.kafka, outcome.candles, outcome.log) == (None, 100, LogState.MISSING)
    for table in TABLES:
        assert rows(elsewhere, table) == rows(settings, table)
    with pytest.raises(KafkaUnavailable, match="TICKPIPE_KAFKA_BOOTSTRAP"):
        await take_backup(settings, tmp_path / "with-topics.zip", Silent(), with_topics=True)
    assert archives(tmp_path) == ["backup.zip"]


def test_lines_are_kept_whole_and_only_the_log_is_renamed() -> None:
    rows = [b"c/t\t%d\tc/t\n" % n for n in range(50)] + [b"other\t1\tc/t\n", b"\\N\tc/t\n"]
    text = b"".join(rows)
    pieces = [text[start : start + 7] for start in range(0, len(text), 7)]
    for size in (1, 20, 1_000_000):
        lines = list(whole_lines(pieces, size))
        assert all(piece.endswith(b"\n") for piece in lines)
        assert b"".join(lines) == text
        renamed = b"".join(with_other_log(piece, "c/t", "new/t") for piece in lines)
        assert renamed == b"".join(b"new/t\t%d\tc/t\n" % n for n in range(50)) + b"".join(rows[50:])
