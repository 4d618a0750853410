"""`tickpipe archive` as a user runs it."""

import json
from pathlib import Path

import pytest
from aiokafka.admin import NewTopic

from archive.writer import Writer
from marketdata.wire import decode_frame, frame_key
from runtime.archive.files import LocalFiles
from runtime.archive.manifest import Catalogue
from runtime.kafka import admin_client
from runtime.logreader import own_log
from runtime.settings import Settings
from tests import preloaded
from tests.kafka_log import KafkaLog, read_records
from tests.services import environment
from tests.unit.archive.test_writer import frames


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"archive": str(tmp_path / "archive"), "kafka_partitions": 1})


def tickpipe(settings: Settings, *arguments: str, expect: int = 0, command: str = "archive") -> str:
    done = preloaded.run(["tickpipe", command, *arguments], environment=environment(settings))
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


async def test_status_check_compact_and_restore(settings: Settings, kafka: KafkaLog) -> None:
    # Arrange
    files = LocalFiles(Path(settings.archive))
    catalogue = Catalogue(files, await own_log(settings))
    writer = Writer(catalogue)
    log = frames(9)
    writer.resume(0)
    for begin in (0, 3, 6):
        writer.add(0, begin, begin + 2, log[begin : begin + 3])
        writer.flush(0)

    # Act and assert
    [state] = json.loads(tickpipe(settings, "status", "--json"))
    assert (state["ticks"], state["files"], state["next"]) == (18, 3, 9)
    assert "bytes a tick" in tickpipe(settings, "status")
    assert "3 files read, 0 faults" in tickpipe(settings, "check")
    with files.lock() as alone:
        assert alone
        assert "archiver runs" in tickpipe(settings, "compact", expect=1)
    assert "2 files fewer" in tickpipe(settings, "compact")
    assert "1 files read, 0 faults" in tickpipe(settings, "check")
    deleting = f"{settings.ticks_topic}.deleting"
    async with admin_client(settings) as client:
        await client.create_topics([NewTopic(deleting, 1, 1)])
    refused = tickpipe(settings, "restore", "--to", deleting, "--partition", "0", expect=1)
    assert "retention.ms=604800000 and needs -1" in refused
    restore = ("restore", "--to", settings.ticks_topic, "--partition", "0")
    assert "7 records" in tickpipe(settings, *restore, "--first", "2")
    assert "does not hold offsets 9 to 11" in tickpipe(settings, *restore, "--first", "8", "--last", "11", expect=1)
    records = await read_records(settings, settings.ticks_topic)
    assert [decode_frame(record.value) for record in records] == [frame for _, frame in [*log[2:], log[8]]]
    assert {record.key for record in records} == {frame_key("s", "EURUSD")}
    assert [record.timestamp for record in records][:2] == [frame.received for _, frame in log[2:4]]
    [file] = catalogue.manifest("2019-02-05", 0).files
    with files.create(file.path) as stream:
        stream.write(b"torn")
    assert "is damaged" in tickpipe(settings, "check", expect=1)


async def test_sql_reads_the_archive_and_the_end_of_the_log(settings: Settings, kafka: KafkaLog) -> None:
    log = frames(9)
    await kafka.send(*(frame for _, frame in [*log, log[1]]))
    writer = Writer(Catalogue(LocalFiles(Path(settings.archive)), await own_log(settings)))
    writer.resume(0)
    writer.add(0, 0, 5, log[:6])
    writer.flush(0)
    query = """select count(*) as n, count(distinct time) as times, max("offset") as last from ticks_raw"""
    assert tickpipe(settings, query, "--format", "csv", command="sql").endswith("n,times,last\n20,18,9\n")
    assert tickpipe(settings, "select count(*) as n from ticks", "--format", "csv", command="sql").endswith("n\n18\n")
    assert tickpipe(settings, "--archived", query, "--format", "csv", command="sql").endswith("n,times,last\n12,12,5\n")
