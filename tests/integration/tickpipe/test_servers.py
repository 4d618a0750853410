"""The two servers alone, as other tests use them."""

import dataclasses
from pathlib import Path

import psycopg

from tests.servers import EmbeddedServers
from tickpipe.embedded.jars import resolve_jars
from tickpipe.embedded.kafka import broker_answers, local_kafka
from tickpipe.embedded.state import Ports


def test_servers_come_back_where_they_were_after_a_kill_and_a_stop(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path) as servers:
        bootstrap, url = servers.kafka_bootstrap, servers.database_url
        port = int(bootstrap.rpartition(":")[2])
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS a_row")

        servers.kill_postgres()
        servers.start_postgres()
        servers.stop_kafka()
        assert not broker_answers(port)
        servers.start_kafka()

        assert (servers.kafka_bootstrap, servers.database_url) == (bootstrap, url)
        assert broker_answers(port)
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT a_row FROM kept").fetchone() == (1,)
    assert not broker_answers(port)


def test_a_broker_of_another_cluster_is_not_taken_for_ours(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path / "theirs") as theirs:
        port = int(theirs.kafka_bootstrap.rpartition(":")[2])
        assert broker_answers(port)
        assert not broker_answers(port, "another")

        # Theirs took the port between the moment when ours found it free and the moment when ours listens.
        (tmp_path / "ours").mkdir()
        ours = local_kafka(tmp_path / "ours", Ports(tmp_path / "ours"), resolve_jars())
        taken = dataclasses.replace(ours, port=port)
        taken.prepare()
        assert not taken.spec.ready()
