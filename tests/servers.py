"""Kafka and PostgreSQL alone, as children of the current process: what tests and benchmarks stand on."""

import asyncio
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType, TracebackType

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from marketdata.errors import StackError
from sink.db.schema import migrate
from tests.waiting import wait_until
from tickpipe.embedded.jars import one_at_a_time
from tickpipe.embedded.kafka import Kafka, local_kafka, ready_kafka
from tickpipe.embedded.postgres import Postgres, local_postgres
from tickpipe.embedded.process import ServiceSpec, spawn, tail
from tickpipe.embedded.state import Ports, load_credentials

_START_TIMEOUT_SECONDS = 60.0
_STOP_TIMEOUT_SECONDS = 15.0
_PROBE_INTERVAL_SECONDS = 0.05

#: For databases of tests: a killed server loses nothing by it, only a machine that fails would; and several test
#: processes have connections.
TEST_DATABASE: Mapping[str, str] = {"fsync": "off", "max_connections": "300", "max_wal_size": "256MB"}

#: Children die with the thread that started them, so one thread that lives as long as the process starts them all.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


class EmbeddedServers:
    """A real Kafka and a real PostgreSQL; `with EmbeddedServers(directory) as servers:` starts and stops both.

    The methods block, so a coroutine calls them through `asyncio.to_thread`. Ports and data stay the same over
    `stop_…`, `kill_…` and `start_…`. There is no supervisor: what is killed stays dead until it is started again.
    `short_lived` starts Kafka a second faster and runs it slower. `database_settings` are PostgreSQL's, by name.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        short_lived: bool = True,
        database_settings: Mapping[str, str] = MappingProxyType({}),
        on_event: Callable[[str], None] = lambda _: None,
    ) -> None:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        ports = Ports(data_dir)
        self._kafka: Kafka = local_kafka(data_dir, ports, ready_kafka(on_event), short_lived=short_lived)
        self._postgres: Postgres = local_postgres(data_dir, ports, load_credentials(data_dir).database_password)
        self._kafka_child = Child(self._kafka.spec)
        spec = self._postgres.spec
        # Of a setting that is given twice PostgreSQL takes the last.
        options = [word for setting in database_settings.items() for word in ("-c", "=".join(setting))]
        self._postgres_child = Child(replace(spec, argv=[*spec.argv, *options]))

    @property
    def kafka_bootstrap(self) -> str:
        """The broker, host:port."""
        return self._kafka.bootstrap

    @property
    def database_url(self) -> str:
        """The libpq URL of the empty database `market`, as superuser."""
        return self._postgres.url

    def __enter__(self) -> "EmbeddedServers":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def format(self) -> None:
        """Write the configuration and the empty clusters, and start nothing."""
        self._kafka.prepare()
        self._postgres.prepare()

    def start(self) -> None:
        """Start both and return when both are ready.

        Raises:
            StackError: with the end of the log of the one that failed.
        """
        self._kafka_child.start()
        self._postgres_child.start()
        self._kafka_child.wait_ready()
        self._postgres_child.wait_ready()

    def stop(self) -> None:
        """Stop both gracefully."""
        self._postgres_child.stop()
        self._kafka_child.stop()

    def start_kafka(self) -> None:
        """Start the broker and return when it is ready."""
        self._kafka_child.start()
        self._kafka_child.wait_ready()

    def stop_kafka(self) -> None:
        """Shut the broker down gracefully and return when it is gone."""
        self._kafka_child.stop()

    def kill_kafka(self) -> None:
        """Kill the broker with SIGKILL and return when it is gone."""
        self._kafka_child.kill()

    def pause_kafka(self) -> None:
        """Suspend the broker, which keeps its connections and answers nothing, until `resume_kafka`."""
        self._kafka_child.signal(signal.SIGSTOP)

    def resume_kafka(self) -> None:
        """Let a paused broker go on."""
        self._kafka_child.signal(signal.SIGCONT)

    def start_postgres(self) -> None:
        """Start the database and return when it is ready."""
        self._postgres_child.start()
        self._postgres_child.wait_ready()

    def stop_postgres(self) -> None:
        """Shut the database down, cutting its connections, and return when it is gone."""
        self._postgres_child.stop()

    def kill_postgres(self) -> None:
        """Kill the database with SIGKILL and return when it is gone; the next start does crash recovery."""
        self._postgres_child.kill()


def formatted(data_dir: Path, blank: Path) -> Path:
    """The new data directory, with empty clusters of Kafka and PostgreSQL: copied, a tenth of the work of making them.

    What is copied is made in the folder `blank`, which the processes of a run share, by the first who asks.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    blank.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = blank / "made"
    with one_at_a_time(blank):
        if not made.exists():
            EmbeddedServers(blank).format()
            made.touch()
    for name in ("kafka", "postgres"):
        (data_dir / name).mkdir(mode=0o700)
    # With the owners: PostgreSQL runs as another user when the tests run as root.
    for name in ("secrets.json", "kafka/data", "postgres/data"):
        subprocess.run(["cp", "-a", blank / name, data_dir / name], check=True)
    properties = data_dir / "kafka" / "data" / "meta.properties"
    new_id = f"cluster.id={uuid.uuid4().hex[:22]}"
    properties.write_text(re.sub(r"^cluster\.id=.*$", new_id, properties.read_text(), flags=re.M))
    return data_dir


def create_database(server_url: str, name: str, template: str = "template1") -> None:
    """Make a database that is a copy of another one, or empty."""
    names = map(sql.Identifier, (name, template))
    with psycopg.connect(server_url, autocommit=True) as connection:
        # To copy the files takes half the work of copying page by page, the way since PostgreSQL 15.
        way = " STRATEGY FILE_COPY" if connection.info.server_version >= 150_000 else ""
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names) + sql.SQL(way))


@cache
def schema_template(server_url: str) -> str:
    """The name of a database with the schema, on a server of this process's run, to be copied: a fifth of the work.

    It is made when it is first asked for, and stays as long as the server does.
    """
    name = f"template_{uuid.uuid4().hex[:12]}"
    create_database(server_url, name)
    migration = migrate(make_conninfo(server_url, dbname=name))
    # An asynchronous fixture, which has a loop in this thread already, may be the first to ask.
    with ThreadPoolExecutor(max_workers=1) as elsewhere:
        elsewhere.submit(asyncio.run, migration).result()
    return name


class Child:
    """One server process that is started and stopped by hand."""

    def __init__(self, spec: ServiceSpec) -> None:
        self._spec = spec
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self._spec.prepare()
            self._process = _spawner.submit(spawn, self._spec).result()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while not self._spec.ready():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise StackError(f"{self._spec.name} did not start; the end of its log:\n{tail(self._spec.log)}")
            time.sleep(_PROBE_INTERVAL_SECONDS)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(self._spec.stop_signal)
        try:
            self._process.wait(_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            if number == signal.SIGSTOP:
                # On a busy machine its threads go on for a moment.
                child = psutil.Process(self._process.pid)
                wait_until(lambda: child.status() == psutil.STATUS_STOPPED, what="a process that stands still")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
