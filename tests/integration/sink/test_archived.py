"""Once Kafka holds only the end of the log, the archive answers for the rest: verify and ticks are the same."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace as with_fields
from functools import partial
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from archive.metrics import Metrics
from archive.retention import LocalRetention
from archive.writer import Writer
from marketdata.candle import Candle
from marketdata.errors import ArchiveDamaged
from marketdata.fold import CandleFold
from marketdata.offsets import normalized, position
from marketdata.refold import Proof
from marketdata.tick import Frame
from marketdata.wire import encode
from runtime.archive.files import LocalFiles
from runtime.archive.manifest import Catalogue
from runtime.archive.reader import ArchiveReader
from runtime.kafka import admin_client, log_ends
from runtime.logreader import own_log
from runtime.settings import Settings
from runtime.ticklog import TickLog
from sink.db.connection import Connection
from sink.verify import verify
from tests import oracle
from tests.integration.sink.flow import Flow, value
from tests.integration.sink.test_ticks import (
    WANTED,
    Log,
    commit,
    minutes_of_frames,
    read,
    store,
)
from tests.ports import free_port
from tests.services import Service
from tests.unit.sink.candles import MINUTE, frame
from tests.waiting import eventually


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Topics of two partitions, and an archiver that deletes from Kafka whatever is a day old: all of these ticks."""
    return settings.model_copy(
        update={
            "kafka_partitions": 2, "archive": str(tmp_path / "archive"), "archive_port": free_port(),
            "archive_flush_seconds": 0.3, "ticks_local_retention_days": 1,
        }
    )  # fmt: skip


async def log_to(flow: Flow, partition: int, frames: list[Frame | None]) -> Log:
    """Write these with the time of their first tick, as the producer does; None is a record that is no frame."""
    log: Log = []
    for one in frames:
        sent = await flow.producer.send_and_wait(
            flow.settings.ticks_topic, b"no frame" if one is None else encode(one), key=b"k", partition=partition,
            timestamp_ms=MINUTE if one is None else one.ticks[0].time_msc,
        )  # fmt: skip
        if one is not None:
            log.append((position(partition, sent.offset), one))
    return log


@pytest.fixture
async def log(settings: Settings, connection: Connection, flow: Flow) -> Log:
    """Ticks in both partitions, late ones, resends and a record that is no frame, with the candles of all stored."""
    early, late = minutes_of_frames(*range(8)), minutes_of_frames(8, 9, 10, 11)
    other = [replace(one, symbol="USDJPY") for one in minutes_of_frames(0, 3, 6)]
    behind = frame(MINUTE + 45_000, 1.05, count=2)
    log = await log_to(flow, 0, [*early[:5], *early[2:5], other[0], *early[5:], other[1], None, behind])
    log += await log_to(flow, 1, [*late, other[2], *late[1:3]])
    await store(settings, connection, flow, log)
    ends = await log_ends(settings, settings.ticks_topic)
    await commit(settings, *(end for _, (_, end) in sorted(ends.items())))
    return log


@pytest.fixture
async def emptied(settings: Settings, log: Log) -> AsyncIterator[Settings]:
    """The same once the archiver has deleted everything from Kafka that it may."""
    assert log
    archiver = Service("archive", settings).start()
    try:

        async def is_empty() -> bool:
            return all(first == end > 0 for first, end in (await log_ends(settings, settings.ticks_topic)).values())

        await eventually(is_empty, what="everything deleted from Kafka")
        yield settings
    finally:
        archiver.close()


async def test_everything_is_proven_from_the_archive(
    emptied: Settings, connection: Connection, flow: Flow, log: Log
) -> None:
    # Arrange: some minutes arrive after the rest is gone, one of them late and so half in the archive
    before = await value(connection, "SELECT count(*) FROM market_data")
    log += await log_to(flow, 0, [frame(MINUTE + 50_000, 1.4, count=2), *minutes_of_frames(20, 21)])
    log.sort(key=lambda one: one[0])
    await connection.execute("TRUNCATE market_data")
    await store(emptied, connection, flow, log)
    await commit(emptied, *(end for _, (_, end) in sorted((await log_ends(emptied, emptied.ticks_topic)).items())))
    rows = await _rows(connection)
    ticks = await read(emptied, connection)

    # Act
    whole = await verify(emptied, complete=True)
    await connection.execute("TRUNCATE market_data")
    mended = await verify(emptied, complete=True, repair=True)
    after = await verify(emptied, complete=True)
    some = await read(emptied, connection, with_fields(WANTED, first_ms=MINUTE + 60_000))

    # Assert
    assert (whole.checked, whole.equal, whole.unprovable, whole.missing) == (len(rows), len(rows), [], [])
    assert len(rows) == before + 1
    assert mended.repaired >= len(rows)
    assert await _rows(connection) == rows
    assert (after.checked, after.equal, after.unprovable, after.missing) == (len(rows), len(rows), [], [])
    assert [minute.is_gone for minute in ticks] == [False] * len(ticks)
    assert await read(emptied, connection) == ticks
    assert some == [minute for minute in ticks if minute.ts >= MINUTE + 60_000]


async def test_without_the_archive_the_same_is_unprovable(emptied: Settings, connection: Connection) -> None:
    report = await verify(emptied.model_copy(update={"archive": ""}), complete=True)
    assert report.checked == 0
    assert len(report.unprovable) == await value(connection, "SELECT count(*) FROM market_data")


async def test_records_that_kafka_loses_while_they_are_read_come_from_the_archive(
    settings: Settings, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archiver deletes between the question where the log begins and the reading."""
    archiver = Service("archive", settings.model_copy(update={"ticks_local_retention_days": 0})).start()
    try:
        await eventually(partial(_is_archived, settings, log), what="everything archived")
    finally:
        archiver.close()
    proofs = [Proof(*key, normalized(ranges)) for key, ranges in oracle.minutes_in(log).items()]
    async with TickLog(settings) as tick_log:
        expected = await tick_log.refold(proofs)
        bounds = tick_log._bounds

        async def then_deleted(partition: int) -> tuple[int, int]:
            found = await bounds(partition)
            tp = TopicPartition(settings.ticks_topic, partition)
            async with admin_client(settings) as client:
                await client.delete_records({tp: RecordsToDelete(found[1] - 1)})
            return found

        monkeypatch.setattr(tick_log, "_bounds", then_deleted)
        tick_log._ends.clear()
        found = await tick_log.refold(proofs)
    assert found.unprovable == set()
    assert {proof: _candle(fold) for proof, fold in found.folds.items()} == {
        proof: _candle(fold) for proof, fold in expected.folds.items()
    }


async def test_what_differs_in_the_archive_is_not_deleted_from_kafka(settings: Settings, log: Log) -> None:
    # Arrange: archived by a writer that got one price wrong
    catalogue = Catalogue(LocalFiles(Path(settings.archive)), await own_log(settings))
    writer = Writer(catalogue)
    of_partition = [(place & (1 << 48) - 1, one) for place, one in log if place < 1 << 48]
    wrong: list[tuple[int, Frame]] = [
        (offset, replace(one, ticks=[replace(one.ticks[0], bid=9.9), *one.ticks[1:]]) if offset == 4 else one)
        for offset, one in of_partition
    ]
    writer.resume(0)
    writer.add(0, 0, wrong[-1][0], wrong)
    writer.flush(0)

    # Act
    with pytest.raises(ArchiveDamaged, match="offset 4 of partition 0"):
        await LocalRetention(settings, catalogue, writer, Metrics(CollectorRegistry())).step(asyncio.Event())

    # Assert
    assert (await log_ends(settings, settings.ticks_topic))[0][0] == 0


async def _is_archived(settings: Settings, log: Log) -> bool:
    reader = ArchiveReader(Catalogue(LocalFiles(Path(settings.archive)), await own_log(settings)))
    found = sum(len(chunk) for partition in (0, 1) for chunk in reader.read(partition, 0, 1 << 40))
    return found == len(log)


def _candle(fold: CandleFold) -> Candle | None:
    return fold.candle(log="l", offsets=(), closed=True, emitted=0)


async def _rows(connection: Connection) -> list[tuple[object, ...]]:
    query = (
        "SELECT source, symbol, ts, open, high, low, close, volume, real_volume, spread, first_tick, last_tick, log,"
        " offsets, closed FROM market_data ORDER BY source, symbol, ts"
    )
    return await (await connection.execute(query.encode())).fetchall()
