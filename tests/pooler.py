"""A real PgBouncer in front of the tests' PostgreSQL, with two sessions for all of its clients."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests import tools
from tests.ports import free_port
from tests.waiting import wait_until

#: Sessions that the pooler has with each database.
SESSIONS = 2

_CONFIGURATION = """
[databases]
* = host={host} port={port} user={user} password={password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = {pool_mode}
default_pool_size = {sessions}
max_client_conn = 200
"""


@contextmanager
def pooler(server_url: str, directory: Path, *, pool_mode: str = "transaction") -> Iterator[int]:
    """The port of a running PgBouncer, which has the user and the password of this URL for each client."""
    command = tools.find("pgbouncer")
    server = conninfo_to_dict(server_url)
    port = free_port()
    file = directory / f"pgbouncer-{pool_mode}.ini"
    values = {name: server[name] for name in ("host", "port", "user", "password")}
    file.write_text(_CONFIGURATION.format(**values, own_port=port, pool_mode=pool_mode, sessions=SESSIONS))
    # It refuses to run as root, and reads its file before it changes the user.
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    with file.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen([command, *user, str(file)], stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(through(server_url, port), process), what="an answer of PgBouncer")
        yield port
    finally:
        process.terminate()
        process.wait()


def through(url: str, port: int) -> str:
    """The URL of the same database by way of the pooler."""
    return make_conninfo(url, port=port)


def _answers(url: str, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, f"PgBouncer ended with {process.returncode}"
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True
