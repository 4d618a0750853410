"""A primary and its standby, which replicates while both run."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.ports import free_port
from tests.servers import Child
from tests.waiting import wait_until
from tickpipe.embedded.postgres import Postgres, server_binaries


class Server:
    """One PostgreSQL that is started, stopped and killed by hand."""

    def __init__(self, directory: Path, password: str) -> None:
        self._postgres = Postgres(directory, free_port(), password, server_binaries(), directory.with_suffix(".log"))
        self.port = self._postgres.port
        self.url = self._postgres.url
        self._child = Child(self._postgres.spec)
        self.stop, self.kill = self._child.stop, self._child.kill

    def start(self) -> None:
        self._child.start()
        self._child.wait_ready()

    def copy_of(self, primary: "Server") -> None:
        """Become a standby of the primary, by a copy of its files."""
        cluster = self._postgres.directory / "data"
        options = ["-D", str(cluster), "-d", primary.url, "-R", "-X", "stream", "--checkpoint=fast"]
        subprocess.run([str(server_binaries() / "pg_basebackup"), *options], check=True, capture_output=True)
        if os.geteuid() == 0:
            # The server does not run as root.
            for path in (self._postgres.directory, *self._postgres.directory.rglob("*")):
                shutil.chown(path, "nobody")

    def value(self, query: str) -> object:
        """The first column of the first row."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


@dataclass(frozen=True)
class Pair:
    primary: Server
    standby: Server

    def wait_replicated(self) -> None:
        """Wait until the standby has all that the primary has by now."""
        position = self.primary.value("SELECT pg_current_wal_lsn()")
        wait_until(lambda: self.standby.value(f"SELECT pg_last_wal_replay_lsn() >= '{position}'"), what="replication")


@contextmanager
def replicated(directory: Path) -> Iterator[Pair]:
    """A running primary with a running standby."""
    password = secrets.token_hex(8)
    pair = Pair(Server(directory / "primary", password), Server(directory / "standby", password))
    try:
        pair.primary.start()
        pair.standby.copy_of(pair.primary)
        pair.standby.start()
        yield pair
    finally:
        pair.standby.stop()
        pair.primary.stop()
