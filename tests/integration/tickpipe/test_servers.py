"""The two servers alone, as other tests use them."""

from pathlib import Path

import psycopg

from tickpipe.embedded.kafka import broker_answers
from tickpipe.embedded.servers import EmbeddedServers


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
