"""Who may reach the embedded PostgreSQL from other machines: a role that reads tables and views, and nobody else."""

import socket
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from marketdata.errors import StackError
from sink.db.session import SQL
from tickpipe.embedded.state import HOST

#: The role that the services use; it owns everything and gets in from this machine alone.
OWNER: Final = "postgres"

#: PostgreSQL's own database, which every server has.
_MAINTENANCE: Final = "postgres"

#: A server of this machine answers at once, or is only just starting (seconds).
_CONNECT_SECONDS: Final = 2

_EVERYWHERE: Final = {"0.0.0.0": "0.0.0.0", "::": "*", "*": "*"}  # noqa: S104 - only what the user asks for


@dataclass(frozen=True)
class Access:
    """The database, the address that the server listens on, and the role that reads; no role without a password."""

    host: str = HOST
    database: str = "market"
    reader: str = "reader"
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.reader == OWNER:
            raise StackError(f"{OWNER} is the role of the services; choose another with --postgres-reader")
        if self.database in (_MAINTENANCE, "template0", "template1"):
            raise StackError(f"{self.database} is PostgreSQL's own database; choose another with --postgres-database")

    @property
    def listen_addresses(self) -> str:
        """PostgreSQL's setting; services of this machine use the loopback address whatever the host is."""
        if self.host in (HOST, "localhost"):
            return HOST
        return _EVERYWHERE.get(self.host, f"{HOST},{self.host}")

    @property
    def host_based_authentication(self) -> str:
        """The server's `pg_hba.conf`, which goes on with the one of the cluster for this machine's own connections."""
        database, reader = (f'"{name.replace(chr(34), chr(34) * 2)}"' for name in (self.database, self.reader))
        return (
            f"# Written at each start: from other machines this role gets in, and no other.\n"
            f"host {database} {reader} all scram-sha-256\n"
            f"include data/pg_hba.conf\n"
        )

    def reader_url(self, port: int) -> str:
        """The libpq URL for the role that reads, with the host by which other machines know this one if they may."""
        host = socket.gethostname() if self.host in _EVERYWHERE else self.host
        host = f"[{host}]" if ":" in host else host
        user, password = quote(self.reader, safe=""), quote(self.password, safe="")
        return f"postgresql://{user}:{password}@{host}:{port}/{quote(self.database, safe='')}"

    def provide(self, url: str) -> None:
        """Create what is missing, the database and the role, and give the role its rights and its password.

        Raises:
            psycopg.OperationalError: when the server does not answer.
        """
        about = {
            "database": sql.Identifier(self.database), "reader": sql.Identifier(self.reader),
            "password": sql.Literal(self.password),
        }  # fmt: skip

        def statement(name: str) -> sql.Composed:
            return sql.SQL(SQL[name].decode()).format(**about)

        with _connect(make_conninfo(url, dbname=_MAINTENANCE)) as connection:
            names = {"database": self.database, "reader": self.reader}
            has_database, has_reader = connection.execute(SQL["find_database_and_reader"], names).fetchone() or (0, 0)
            if not has_database:
                connection.execute(statement("create_database"))
            if self.password and not has_reader:
                connection.execute(statement("create_reader"))
        if self.password:
            with _connect(url) as connection:
                connection.execute(statement("set_up_reader"))


def _connect(url: str) -> "psycopg.Connection[Any]":
    # Whatever the database and the role say.
    stated = "-c search_path=public -c default_transaction_read_only=off -c statement_timeout=0"
    return psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT_SECONDS, options=stated)


#: For this machine alone, and without a role that reads.
LOCAL: Final = Access()
