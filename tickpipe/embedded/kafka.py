"""Apache Kafka as one local process, a single KRaft node, and the cache with which its JVM starts fast."""

import asyncio
import base64
import os
import secrets
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from marketdata.errors import StackError
from tickpipe.embedded.jars import SHORT_LIVED_JVM, Jars, OnEvent, one_at_a_time, resolve_jars
from tickpipe.embedded.kafka_users import KafkaUsers
from tickpipe.embedded.process import ServiceSpec, server_environment, spawn
from tickpipe.embedded.state import HOST, Ports

_FORMAT_TIMEOUT_SECONDS = 120
_CONNECT_SECONDS = 2.0

#: With less Kafka is not started: after a crash a start rewrites the indexes, also that of the metadata log. When the
#: disk has no room for it, Kafka takes that log for damaged and empties it, and every topic is gone
#: (docs/decisions/0019). A start with 4 MB left went well; the indexes of a large log take more.
LEAST_START_BYTES = 64 * 2**20

#: How long the broker that writes the start cache may take to boot.
_BOOT_SECONDS = 60.0
#: The JVM writes the cache after the broker has ended; 6 s on a quiet machine.
_WRITE_SECONDS = 120.0

#: Fixed, and taken at the start: a heap that may grow does for hours before the JVM collects what is old (measured:
#: from 420 to 500 MB in half an hour of little traffic), which cannot be told from a leak.
_HEAP = ("-Xms256m", "-Xmx256m", "-XX:+AlwaysPreTouch")

_LOG4J = """\
# Written by tickpipe at every start.
Configuration:
  status: ERROR
  Appenders:
    Console:
      name: console
      PatternLayout: { pattern: "%d{ISO8601} %-5p %m (%c{1})%n" }
      # A broker in trouble repeats itself; the log must not fill the disk.
      BurstFilter: { level: WARN, rate: 20, maxBurst: 400 }
  Loggers:
    Root:
      level: WARN
      AppenderRef: { ref: console }
"""

_SERVER_PROPERTIES = """\
# Written by tickpipe at every start.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=BROKER://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=BROKER://{host}:{port}
listener.security.protocol.map=BROKER:{protocol},CONTROLLER:{protocol}
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
log.dirs={data_dir}
num.partitions=1
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
# A group of one machine need not wait for members that start later.
group.initial.rebalance.delay.ms=0
# 128 MB by default, half of the heap; this is enough to compact 300,000 keys at once.
log.cleaner.dedupe.buffer.size=8388608
# A broker that was killed may register again only after its old session; 9 s by default, measured as 11 s of absence.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=1000
"""


@dataclass(frozen=True)
class Kafka:
    """A single-node Kafka in `data_dir/kafka` on two fixed ports of 127.0.0.1."""

    directory: Path
    port: int
    controller_port: int
    jars: Jars
    log: Path
    #: None for one that asks nobody for a login.
    users: KafkaUsers | None = None
    short_lived: bool = False

    @property
    def bootstrap(self) -> str:
        """What clients connect to, host:port."""
        return f"{HOST}:{self.port}"

    @property
    def spec(self) -> ServiceSpec:
        """The broker as a child process."""
        options = [*_HEAP, "-XX:+ExitOnOutOfMemoryError", *self._crash_report]
        if self.short_lived:
            options += SHORT_LIVED_JVM
        options.append(f"-Dlog4j2.configurationFile={self._log4j}")
        return ServiceSpec(
            name="kafka",
            argv=self.jars.command(options, "kafka.Kafka", str(self._properties)),
            env=server_environment(),
            ready=self.answers,
            log=self.log,
            prepare=self.prepare,
            cwd=self.directory,
        )

    @property
    def cluster_id(self) -> str:
        """What the data directory was formatted with; call `prepare` first."""
        lines = (self.directory / "data" / "meta.properties").read_text().splitlines()
        return next(line.removeprefix("cluster.id=") for line in lines if line.startswith("cluster.id="))

    def answers(self) -> bool:
        """Whether the broker takes requests; once it does, it has its users."""
        if self.users is None:
            return broker_answers(self.port, self.cluster_id)
        return _listens(self.port) and asyncio.run(self.users.set_up(self.bootstrap, self.cluster_id))

    @property
    def command_config(self) -> Path:
        """What Kafka's own tools need to log in, once `prepare` was called."""
        return self.directory / "client.properties"

    @property
    def _properties(self) -> Path:
        return self.directory / "server.properties"

    @property
    def _log4j(self) -> Path:
        return self.directory / "log4j2.yaml"

    @property
    def _crash_report(self) -> tuple[str, ...]:
        """Options with which a JVM that crashes reports beside its log, and leaves nothing in the user's folder."""
        folder = str(self.log.parent).replace("%", "%%")
        return f"-XX:ErrorFile={folder}/kafka-crash-%p.log", "-XX:-CreateCoredumpOnCrash"

    def prepare(self) -> None:
        """Write the configuration; format the data directory if that was never done.

        Raises:
            StackError: with Kafka's own message when it fails, and when the disk has too little room for a start.
        """
        data_dir = self.directory / "data"
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_room(data_dir if data_dir.exists() else self.directory)
        self._log4j.write_text(_LOG4J)
        properties = _SERVER_PROPERTIES.format(
            host=HOST, port=self.port, controller_port=self.controller_port, data_dir=_escaped(data_dir),
            protocol="PLAINTEXT" if self.users is None else "SASL_PLAINTEXT",
        )  # fmt: skip
        if self.users is not None:
            properties += self.users.properties()
            _write_secret(self.command_config, self.users.command_config())
        _write_secret(self._properties, properties)
        if (data_dir / "meta.properties").exists():
            return
        options = [*SHORT_LIVED_JVM, *self._crash_report, f"-Dlog4j2.configurationFile={self._log4j}"]
        arguments = ["format", "-t", _new_cluster_id(), "-c", str(self._properties)]
        done = subprocess.run(  # noqa: S603 - the command is ours
            self.jars.command(options, "kafka.tools.StorageTool", *arguments),
            env=server_environment(),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=_FORMAT_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode:
            raise StackError(f"Kafka could not format {data_dir}:\n{done.stdout}{done.stderr}".rstrip())


def local_kafka(
    data_dir: Path, ports: Ports, jars: Jars, users: KafkaUsers | None = None, *, short_lived: bool = False
) -> Kafka:
    """The Kafka of a data directory. With `short_lived` it starts a little faster and runs slower."""
    return Kafka(
        directory=data_dir.absolute() / "kafka",
        port=ports.claim("kafka"),
        controller_port=ports.claim("kafka_controller"),
        jars=jars,
        log=data_dir.absolute() / "logs" / "kafka.log",
        users=users,
        short_lived=short_lived,
    )


def broker_answers(port: int, cluster_id: str | None = None, timeout_seconds: float = 2.0) -> bool:
    """Whether the broker of this cluster (None: of any) listens on the local port, is registered and takes requests.

    Asks for the cluster's metadata (protocol version 4) by hand: a broker accepts connections before it lists itself,
    and a topic created in between fails. A client library would need an event loop and retries of its own. Another
    cluster's broker, which took the port a moment before ours wanted it, does not count.
    """
    header = struct.pack(">hhih", 3, 4, 1, -1)  # key Metadata, version, correlation id, no client id
    request = header + struct.pack(">i?", 0, False)  # no topics, none to be created
    try:
        with socket.create_connection((HOST, port), timeout_seconds) as connection:
            connection.settimeout(timeout_seconds)
            connection.sendall(struct.pack(">i", len(request)) + request)
            size = int.from_bytes(connection.recv(4, socket.MSG_WAITALL))
            answer = connection.recv(size, socket.MSG_WAITALL)
    except OSError:
        return False
    if len(answer) < 12:
        return False
    correlation_id, _throttle_ms, brokers = struct.unpack(">iii", answer[:12])
    named = b"" if cluster_id is None else struct.pack(">h", len(cluster_id)) + cluster_id.encode()
    return bool(correlation_id == 1 and brokers >= 1 and named in answer)


def _require_room(directory: Path) -> None:
    if (free := shutil.disk_usage(directory).free) < LEAST_START_BYTES:
        raise StackError(
            f"{directory} has {free // 2**20} MB free, and without {LEAST_START_BYTES // 2**20} MB a start of Kafka "
            "can lose every topic. Make room; it is tried again"
        )


def _write_secret(path: Path, content: str) -> None:
    path.touch(mode=0o600)
    path.write_text(content)


def _listens(port: int) -> bool:
    """Whether anything listens; a client of Kafka would complain of a port where nothing does."""
    with suppress(OSError), socket.create_connection((HOST, port), _CONNECT_SECONDS):
        return True
    return False


def _new_cluster_id() -> str:
    """A random UUID as Kafka writes it; never with a leading dash, which the tool would take for an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def _escaped(path: Path) -> str:
    """The path as a value of a Java properties file, which is read as Latin-1 with backslash escapes.

    Raises:
        StackError: for a comma, which separates the entries of `log.dirs` and cannot be escaped.
    """
    if "," in str(path):
        raise StackError(f"Kafka cannot store its data in a folder with a comma in its name: {path}; choose another")
    units = str(path).encode("utf-16-be")
    characters = [int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2)]
    return "".join(chr(c) if 0x20 <= c < 0x7F and c != 0x5C else f"\\u{c:04x}" for c in characters)


def ready_kafka(on_event: OnEvent = lambda _: None) -> Jars:
    """The jars, downloaded, and with their start cache written, when this machine has none yet.

    The cache holds Kafka's classes loaded, linked and profiled, so that every later JVM starts with them; the JVM
    writes it (JEP 483, 514 and 515) when a broker that ran for it ends. Measured on two cores: a broker is ready after
    0.9 s instead of 2.6 and has used 1.3 s of processor time instead of 4.5; the cache takes 66 MB. One written by a
    broker that compiles with the first compiler alone serves all of Kafka's programs, and better than another.

    Raises:
        StackError: when the jars cannot be downloaded.
    """
    jars = resolve_jars(on_event)
    if jars.start_cache.exists():
        return jars
    with one_at_a_time(jars.folder):
        if not jars.start_cache.exists():
            on_event("preparing Apache Kafka to start fast (about 10 s, once per machine)")
            _write_start_cache(jars)
    return jars


def main() -> None:
    """Prepare Kafka for this machine and report it on standard error."""
    try:
        ready_kafka(lambda message: print(message, file=sys.stderr, flush=True))
    except StackError as exc:
        sys.exit(f"error: {exc}")


def _write_start_cache(jars: Jars) -> None:
    """Write the cache beside the jars; an empty file where that fails, so that it is not tried at every start."""
    target = jars.start_cache
    with tempfile.TemporaryDirectory(dir=jars.folder, prefix="start-") as name:
        written = Path(name) / "cache.aot"
        with suppress(StackError, OSError, subprocess.SubprocessError):
            _run_broker(jars, Path(name), written)
        written.touch()
        os.replace(written, target)


def _run_broker(jars: Jars, directory: Path, written: Path) -> None:
    # With a login, so that the cache has its classes as well.
    users = KafkaUsers(secrets.token_urlsafe(24))
    kafka = local_kafka(directory, Ports(directory), jars, users, short_lived=True)
    kafka.prepare()
    spec = kafka.spec
    java, *arguments = spec.argv
    broker = spawn(replace(spec, argv=[java, f"-XX:AOTCacheOutput={written}", *arguments]))
    try:
        deadline = time.monotonic() + _BOOT_SECONDS
        while not spec.ready() and broker.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        broker.terminate()
        broker.wait(_WRITE_SECONDS)
    finally:
        broker.kill()
        broker.wait()


if __name__ == "__main__":
    main()
