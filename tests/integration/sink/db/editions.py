"""The three editions that the tests of timeframes run on, each as a source of empty databases."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests import tools
from tests.ports import free_port
from tests.servers import create_database
from tests.waiting import PATIENCE_SECONDS

_PGLITE = Path(__file__).parent / "pglite"

#: Names a server of any edition, such as TimescaleDB's Apache edition, to run on as well.
GIVEN_SERVER = os.environ.get("TICKPIPE_TEST_DATABASE_DSN")

EDITIONS = ["postgresql", "pglite", *(["given"] if GIVEN_SERVER else [])]

#: PGlite takes five times as long for the same statements: `make test` runs on it what is its own.
MOST_EDITIONS = [pytest.param(name, marks=pytest.mark.full if name == "pglite" else ()) for name in EDITIONS]

every_edition = pytest.mark.parametrize("database", EDITIONS, indirect=True)

#: npm's download of 30 MB, at most (seconds).
_INSTALL_TIMEOUT_SECONDS = 120


@contextmanager
def database_on(server_url: str, template: str | None = None) -> Iterator[str]:
    """A database of a server that is there: a copy of another one, or empty."""
    name = f"timeframes_{uuid.uuid4().hex[:12]}"
    create_database(server_url, name, template or "template1")
    yield make_conninfo(server_url, dbname=name)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def pglite_database() -> Iterator[str]:
    """An empty database of TimescaleDB's community edition, which takes one connection at a time."""
    port = free_port()
    server = subprocess.Popen(
        ["node", str(_PGLITE / "server.mjs"), str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_PGLITE
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        if server.stdout.readline() != b"ready\n":
            tools.unavailable("npm", "installed a PGlite that does not start in this Node.js")
        # Any password does.
        yield f"postgresql://postgres:any@127.0.0.1:{port}/postgres?sslmode=disable"
    finally:
        server.stdin.close()
        server.stdout.close()
        server.wait(PATIENCE_SECONDS)


def install_pglite() -> None:
    """Install what `pglite_database` needs, once; skips the test where that cannot be."""
    tools.probe("npm", [tools.find("node"), "--version"])
    if (_PGLITE / "node_modules" / "@unni-craftsman").exists():
        return
    install = [tools.find("npm"), "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel", "error"]
    tools.probe("npm", install, cwd=_PGLITE, seconds=_INSTALL_TIMEOUT_SECONDS)
