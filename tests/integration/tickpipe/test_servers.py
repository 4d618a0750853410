"""The two servers alone, as other tests use them."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from runtime.settings import Settings
from tests.servers import EmbeddedServers
from tests.waiting import wait_until
from tickpipe.embedded.jars import resolve_jars
from tickpipe.embedded.kafka import broker_answers, local_kafka, ready_kafka
from tickpipe.embedded.state import Ports

# Every other test stands on these servers, and test_stack.py kills them.
pytestmark = pytest.mark.full


@pytest.fixture
def another_clusters_pid(settings: Settings) -> Iterator[int]:
    """The pid of a PostgreSQL process that has nothing to do with the servers of the test."""
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        yield connection.info.backend_pid


def _processes_in(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found += [process.pid] if process.cwd() == str(folder) else []
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """For all tests of this file; once they are stopped, nothing answers."""
    with EmbeddedServers(tmp_path_factory.mktemp("both")) as servers:
        yield servers
    assert not broker_answers(int(servers.kafka_bootstrap.rpartition(":")[2]))


def test_a_broker_maps_the_cache_that_was_written(both: EmbeddedServers) -> None:
    cache = ready_kafka().start_cache
    assert cache.stat().st_size > 10_000_000
    maps = Path(f"/proc/{both._kafka_child._process.pid}/maps").read_text()  # type: ignore[union-attr]
    assert str(cache) in maps


def test_a_broker_of_another_cluster_is_not_taken_for_ours(tmp_path: Path, both: EmbeddedServers) -> None:
    port = int(both.kafka_bootstrap.rpartition(":")[2])
    assert broker_answers(port)
    assert not broker_answers(port, "another")

    # Theirs took the port between the moment when ours found it free and the moment when ours listens.
    ours = local_kafka(tmp_path, Ports(tmp_path), resolve_jars())
    taken = dataclasses.replace(ours, port=port)
    taken.prepare()
    assert not taken.spec.ready()


def test_servers_come_back_where_they_were_after_a_kill_and_a_stop(
    both: EmbeddedServers, another_clusters_pid: int
) -> None:
    bootstrap, url = both.kafka_bootstrap, both.database_url
    port = int(bootstrap.rpartition(":")[2])
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE stored AS SELECT 1 AS a_row")
        [(data,)] = connection.execute("SHOW data_directory")

    both.kill_postgres()
    pid_file = Path(data) / "postmaster.pid"
    wait_until(lambda: not _processes_in(pid_file.parent), what="the end of the killed server's children")
    _, _, rest = pid_file.read_text().partition("\n")
    pid_file.write_text(f"{another_clusters_pid}\n{rest}")
    both.start_postgres()
    both.stop_postgres()
    # As `cp -r` and `chown -R` leave it behind.
    for path in (pid_file.parent, *pid_file.parent.rglob("*")):
        os.chown(path, os.geteuid(), -1)
    pid_file.parent.chmod(0o755)
    both.start_postgres()
    both.stop_kafka()
    assert not broker_answers(port)
    both.start_kafka()

    assert (both.kafka_bootstrap, both.database_url) == (bootstrap, url)
    assert broker_answers(port)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT a_row FROM stored").fetchone() == (1,)
