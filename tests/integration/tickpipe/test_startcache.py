"""The cache of Kafka's classes is written once, and missed by no broker; `test_servers.py` sees that it is used."""

from pathlib import Path

import pytest

from tests.servers import EmbeddedServers
from tickpipe.embedded import kafka as embedded_kafka
from tickpipe.embedded.jars import Jars, resolve_jars
from tickpipe.embedded.kafka import local_kafka, ready_kafka
from tickpipe.embedded.state import Ports

pytestmark = [pytest.mark.full, pytest.mark.long(25)]


def test_a_cache_of_another_java_is_no_obstacle(tmp_path: Path) -> None:
    jars = _copied(tmp_path)
    jars.start_cache.write_bytes(b"not a cache")
    _boot(tmp_path, jars)


def test_where_no_cache_can_be_written_nobody_tries_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jars = _copied(tmp_path)
    monkeypatch.setattr(embedded_kafka, "resolve_jars", lambda _: jars)
    monkeypatch.setattr(embedded_kafka, "_BOOT_SECONDS", 0.0)  # ends before there is anything to write
    events: list[str] = []

    ready_kafka(events.append)
    ready_kafka(events.append)

    assert len(events) == 1
    assert jars.start_cache.stat().st_size == 0
    assert sorted(path.name for path in jars.folder.iterdir() if path.is_dir()) == ["jars", "modules"]
    _boot(tmp_path, jars)


def _copied(tmp_path: Path) -> Jars:
    """The same jars, in a folder where no cache is."""
    folder = tmp_path / "copied"
    folder.mkdir()
    for name in ("jars", "modules"):
        (folder / name).symlink_to(resolve_jars().folder / name)
    return Jars(folder)


def _boot(tmp_path: Path, jars: Jars) -> None:
    kafka = local_kafka(tmp_path, Ports(tmp_path), jars)
    servers = EmbeddedServers(tmp_path)
    servers._kafka, servers._kafka_child = kafka, type(servers._kafka_child)(kafka.spec)
    servers.start_kafka()
    servers.stop_kafka()
