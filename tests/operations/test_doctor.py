"""`tickpipe doctor` on one pipeline: faults are planted one by one, and each is told with its cure."""

import asyncio
import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner

from marketdata.contract.http import Right
from runtime.api_keys import ApiKey, Secret, write_keys
from runtime.kafka import admin_client, new_consumer
from runtime.settings import Settings, load_settings
from sink.db.schema import migrate
from tests.conftest import own_settings
from tests.extras import Installed
from tests.faked_clock import FakedClock
from tests.finished_topics import finish_topics
from tests.ports import free_port
from tests.servers import EmbeddedServers
from tests.services import Service, environment, running
from tests.waiting import wait_until
from tickpipe.backup.archive import FORMAT, DatabasePart, Manifest, new_archive
from tickpipe.cli import app
from tickpipe.upkeep import Level, ends_of_keys

pytestmark = pytest.mark.long(30)


@pytest.fixture(scope="module")
def pipeline(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Producer, stream worker and sink, with ticks of a sender that is heard."""
    made = own_settings(servers, uuid.uuid4().hex[:12], data_dir=tmp_path_factory.mktemp("data"))
    with running(made, "producer", "stream_app", "sink") as (producer, *_):
        send(producer, "Broker-A")
        wait_until(lambda: line(made, "senders")["level"] == "green", what="the sender in the database")
        yield made
    finish_topics(made)


def send(producer: Service, source: str, *, ahead: timedelta = timedelta(0)) -> None:
    now_ms = int((datetime.now(UTC) + ahead).timestamp() * 1000)
    ticks = [{"symbol": "EURUSD", "time_msc": now_ms - n * 100, "bid": 1.1} for n in range(5)]
    assert producer.post(ticks, X_Source=source).status_code == 200


def doctor(settings: Settings, *options: str) -> tuple[int, list[dict[str, str]]]:
    result = CliRunner().invoke(app, ["doctor", "--json", *options], env=environment(settings))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, json.loads(result.stdout)


def line(settings: Settings, part: str, *options: str) -> dict[str, str]:
    """The worst line of a part."""
    _, lines = doctor(settings, *options)
    found = [each for each in lines if each["part"].startswith(part)]
    return max(found, key=lambda each: list(Level).index(Level(each["level"])), default={"level": "", "found": ""})


def changed(settings: Settings, **others: object) -> Settings:
    return settings.model_copy(update=load_settings(**others).model_dump(include=set(others)))


def execute(settings: Settings, *statements: str) -> None:
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def test_nothing_is_wrong(pipeline: Settings, tmp_path: Path) -> None:
    backup = CliRunner().invoke(app, ["backup", str(tmp_path)], env=environment(pipeline))
    assert backup.exit_code == 0, backup.output

    code, lines = doctor(pipeline, "--backups", str(tmp_path))

    # How full the disk of this machine is, is no matter of the pipeline.
    assert {each["part"]: each["level"] for each in lines if not each["part"].startswith("disk")} == dict.fromkeys(
        [
            "installation", "backups", "producer", "database", "schema", "rights in the database", "senders",
            "zone of Broker-A", "clocks", "Kafka", "topics", "rights in Kafka", "stream", "sink",
        ],
        "green",
    )  # fmt: skip
    assert any(each["part"].startswith("disk of broker") for each in lines)
    assert code == 0 or any(each["level"] == "red" for each in lines if each["part"].startswith("disk"))


def test_servers_that_are_away(pipeline: Settings) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    away = changed(
        pipeline, kafka_bootstrap=nowhere, database_url=f"postgresql://nobody@{nowhere}/none", producer_port=free_port()
    )

    code, lines = doctor(away)

    told = {each["part"]: each for each in lines if each["level"] == "red"}
    assert code == 1
    assert {"producer", "database", "Kafka"} <= told.keys()
    assert "TICKPIPE_DATABASE_URL" in told["database"]["cure"]
    assert "TICKPIPE_KAFKA_BOOTSTRAP" in told["Kafka"]["cure"]
    assert "--producer" in told["producer"]["cure"]


def test_a_topic_that_deletes_ticks(pipeline: Settings) -> None:
    asyncio.run(retain(pipeline, "604800000"))
    wait_until(lambda: line(pipeline, "topics")["level"] == "red", what="the topic")
    found = line(pipeline, "topics")
    asyncio.run(retain(pipeline, "-1"))

    assert "retention.ms=604800000" in found["found"]
    assert "tickpipe topics fix --yes" in found["cure"]


async def retain(settings: Settings, retention_ms: str) -> None:
    config = {"retention.ms": retention_ms}
    async with admin_client(settings) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.ticks_topic, config)])


def test_a_topic_that_is_missing(pipeline: Settings) -> None:
    elsewhere = changed(pipeline, candles_rejected_topic=f"missing.{uuid.uuid4().hex}")

    found = line(elsewhere, "topics")

    assert (found["level"], found["found"]) == ("red", f"{elsewhere.candles_rejected_topic} is missing")
    assert found["cure"] == "tickpipe topics create"


def test_a_schema_that_was_not_migrated(pipeline: Settings, servers: EmbeddedServers) -> None:
    empty = own_settings(servers, uuid.uuid4().hex[:12])
    found = line(changed(pipeline, database_url=empty.database_url.get_secret_value()), "schema")

    assert (found["level"], found["cure"]) == ("red", "tickpipe db migrate")

    asyncio.run(migrate(empty.database_url.get_secret_value()))
    execute(empty, "INSERT INTO tickpipe_migrations (name, sha256) VALUES ('9999_later.sql', '')")
    found = line(changed(pipeline, database_url=empty.database_url.get_secret_value()), "schema")
    assert (found["level"], "9999_later.sql" in found["found"]) == ("red", True)

    execute(empty, "UPDATE tickpipe_migrations SET sha256 = 'of before' WHERE name LIKE '0002%'")
    found = line(changed(pipeline, database_url=empty.database_url.get_secret_value()), "schema")
    assert (found["level"], "0002_timeframes.sql" in found["found"]) == ("red", True)


def test_a_role_that_may_only_read(pipeline: Settings) -> None:
    role = f"looker_{uuid.uuid4().hex[:8]}"
    execute(
        pipeline, f"CREATE ROLE {role} LOGIN PASSWORD 'looker-password'",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
    )  # fmt: skip
    url = make_conninfo(pipeline.database_url.get_secret_value(), user=role, password="looker-password")  # noqa: S106 - of this test

    found = line(changed(pipeline, database_url=url), "rights in the database")

    execute(pipeline, f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    assert found["level"] == "red"
    assert f"{role} lacks DELETE on broker_bars" in found["found"]
    assert "SELECT" not in found["found"]
    assert f"TO {role}" in found["cure"]


def test_a_producer_whose_clock_is_wrong(pipeline: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakedClock(tmp_path)
    clock.set("-90s")
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    other = changed(pipeline, producer_port=free_port())
    service = Service("producer", other)
    monkeypatch.undo()
    try:
        service.start().wait_ready()
        found = line(other, "clocks")
    finally:
        service.close()

    assert found["level"] == "red"
    assert found["found"] in [f"the producer's clock is {n} s behind the database's" for n in (89, 90, 91)]
    assert "NTP" in found["cure"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small volume")
def test_a_volume_that_is_almost_full(pipeline: Settings, tmp_path: Path) -> None:
    with small_volume(tmp_path / "volume") as volume:
        (volume / "ballast").write_bytes(b"\0" * (7 << 20))
        settings = changed(pipeline, data_dir=str(volume))

        found = line(settings, f"disk of {volume}")

    assert (found["level"], found["found"][:3]) == ("yellow", "0.0")
    assert "TICKPIPE_TICKS_RETENTION_DAYS" in found["cure"]


@contextmanager
def small_volume(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_zone_that_does_not_fit(pipeline: Settings) -> None:
    service = Service("producer", pipeline)
    send(service, "Broker-B", ahead=timedelta(hours=2))
    part = "zone of Broker-B"
    wait_until(lambda: line(pipeline, part)["level"] == "red", what="the zone")
    found = line(pipeline, part)

    assert "2.0 h ahead" in found["found"]
    assert 'TICKPIPE_SOURCE_ZONES=\'{"Broker-B":' in found["cure"]
    assert line(pipeline, "zone of Broker-A")["level"] == "green"
    # What would follow from the other zone's candles is no matter of the next test.
    execute(pipeline, "DELETE FROM sender_counts WHERE source = 'Broker-B'")


def test_a_backup_that_is_old_or_damaged(pipeline: Settings, tmp_path: Path) -> None:
    none = line(pipeline, "backups", "--backups", str(tmp_path))
    made = datetime.now(UTC) - timedelta(days=30)
    with new_archive(tmp_path / "old.zip") as archive:
        archive.finish(Manifest(FORMAT, "0.1.0", made, DatabasePart("postgresql", (), ()), None, {}))
    old = line(pipeline, "backups", "--backups", str(tmp_path))

    assert (none["level"], old["level"], old["found"]) == ("red", "red", "the newest is 30 days old")
    assert "tickpipe backup --topics" in old["cure"]


def test_a_sender_that_fell_silent_while_others_send(pipeline: Settings) -> None:
    execute(
        pipeline,
        "INSERT INTO sender_counts SELECT 'Broker-C', 'Server', '7', build, ea, version, address, counter,"
        " now() - interval '3 hours', now() - interval '2 hours', 5, 0 FROM sender_counts LIMIT 1",
    )
    one = line(pipeline, "senders")
    execute(
        pipeline,
        "UPDATE sender_counts SET first_seen = now() - interval '1 day', last_seen = now() - interval '3 hours'",
    )
    all_of_them = line(pipeline, "senders")
    execute(
        pipeline, "DELETE FROM sender_counts WHERE source = 'Broker-C'", "UPDATE sender_counts SET last_seen = now()"
    )

    assert one["level"] == "yellow"
    assert one["found"].startswith("Broker-C Server 7")
    assert one["found"].endswith("has been silent for 2 h while others send")
    assert (all_of_them["level"], "nobody sends; the last was heard" in all_of_them["found"]) == ("yellow", True)


def test_groups_in_which_nobody_runs(pipeline: Settings) -> None:
    other = changed(pipeline, stream_group=f"idle-{uuid.uuid4().hex}")

    found = line(other, "stream")

    assert found["level"] == "red"
    assert found["found"].startswith("none runs, ")
    assert "docker compose up -d stream" in found["cure"]
    assert line(other, "sink")["level"] == "green"


def test_a_group_that_lags(pipeline: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickpipe.doctor._MUCH_LAG", 0)
    settings = changed(pipeline, stream_group=f"slow-{uuid.uuid4().hex[:8]}")

    async def asked() -> dict[str, str]:
        consumer = new_consumer(settings, settings.ticks_topic, group_id=settings.stream_group)
        await consumer.start()
        try:
            while not consumer.assignment():
                await consumer.getmany(timeout_ms=200)
            return await asyncio.to_thread(line, settings, "stream")
        finally:
            await consumer.stop()

    found = asyncio.run(asked())
    assert (found["level"], found["cure"].rpartition(" ")[2]) == ("yellow", "stream=2")
    assert re.match(rf"1 in the group {settings.stream_group}, \d+ records wait", found["found"])


def test_extras_that_are_not_installed(tmp_path: Path) -> None:
    script = (
        "from runtime.settings import load_settings; from tickpipe.upkeep import installed;"
        "print(*[(str(l.level), l.cure) for l in installed(load_settings(otlp_endpoint='http://collector:4318'))])"
    )
    done = Installed(tmp_path, "sink").run(script)

    assert done.stdout.startswith("('red', \"in a clone of Tickpipe: pip install '.[otel]'; or unset"), done.stderr
    assert "asks for it, in a clone" in done.stdout
    assert "pip install '.[arrow,dashboard,embedded,producer,proof,sql,stream]'" in done.stdout


def test_keys_that_end(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    path = tmp_path / "api-keys.json"

    def found(*ends: datetime | None, revoked: bool = False) -> list[tuple[str, str]]:
        secrets = tuple(Secret(f"{n}", now, end) for n, end in enumerate(ends))
        key = ApiKey(
            name="pc7", source="A", rights=(Right.INGEST,), secrets=secrets, revoked_at=now if revoked else None
        )
        write_keys(path, [key])
        return [(line.level, line.found) for line in ends_of_keys(path)]

    day = timedelta(days=1)
    assert list(ends_of_keys(path)) == []
    assert found(None) == [("green", "none of 1 ends within 14 days")]
    assert found(now + 15 * day) == [("green", "none of 1 ends within 14 days")]
    assert found(now + 13.5 * day) == [("yellow", "pc7 ends in 13 days")]
    assert found(now - 3.5 * day) == [("red", "pc7 ended 3 days ago")]
    # While the former of two ends, the other lasts; and nobody waits for a key that was revoked.
    assert found(None, now + day) == [("green", "none of 1 ends within 14 days")]
    assert found(now - day, revoked=True) == [("green", "none of 1 ends within 14 days")]
    path.write_text("no keys")
    ((level, said),) = [(line.level, line.found) for line in ends_of_keys(path)]
    assert level == "red"
    assert "cannot be read as keys" in said
