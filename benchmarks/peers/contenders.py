"""How each contender is started; its own file says what it does."""

import asyncio
import sys
from asyncio.subprocess import Process
from pathlib import Path

import httpx

from benchmarks.peers.installed import (
    BYTEWAX,
    JAVA,
    QUIX,
    flink_class_path,
    kafka_streams_class_path,
    python_with,
)
from benchmarks.peers.running import Peer, Round
from benchmarks.peers.ticks import Bars
from benchmarks.rounds import NotMeasured

_HERE = Path(__file__).parent
STREAM_PORT = 18_994
#: How often the worker is asked whether it has begun (seconds).
_ASK_SECONDS = 0.02

#: A topic: its name, its number of ticks and the candles in it.
Topic = tuple[str, int, Bars]


def tickpipe(name: str, topic: Topic) -> Peer:
    """The stream app as it is deployed, with its own settings."""

    def environment(this: Round) -> dict[str, str]:
        return {
            "TICKPIPE_KAFKA_BOOTSTRAP": this.setup.settings.kafka_bootstrap,
            "TICKPIPE_KAFKA_PARTITIONS": "1",
            "TICKPIPE_TICKS_TOPIC": this.ticks_topic,
            "TICKPIPE_CANDLES_TOPIC": this.candles_topic,
            "TICKPIPE_STREAM_GROUP": this.group,
            "TICKPIPE_STREAM_PORT": str(STREAM_PORT),
            "TICKPIPE_LOG_LEVEL": "ERROR",
        }

    return Peer(name, *topic, lambda _: [sys.executable, "-m", "stream_app"], environment, _folds)


async def _folds(process: Process) -> int:
    """The worker says so in its metrics."""
    async with httpx.AsyncClient(timeout=5) as client:
        while process.returncode is None:
            try:
                text = (await client.get(f"http://127.0.0.1:{STREAM_PORT}/metrics")).text
            except httpx.HTTPError:
                text = ""
            for line in text.splitlines():
                if line.startswith("tickpipe_stream_ticks_total") and (done := int(float(line.split()[1]))):
                    return done
            await asyncio.sleep(_ASK_SECONDS)
    raise NotMeasured("the stream worker ended before it folded a tick")


def kafka_streams(name: str, topic: Topic, commit_interval_ms: int | None, written: str) -> Peer:
    """Kafka Streams, which publishes at each commit; None leaves its default of 30 s.

    Args:
        name: in the table.
        topic: what it reads.
        commit_interval_ms: None for its own default.
        written: `documented`, `tuned`, `in_memory` or `exactly_once`; KafkaStreamsCandles.java says what each is.
    """
    interval = "default" if commit_interval_ms is None else str(commit_interval_ms)

    def command(this: Round) -> list[str]:
        class_path = kafka_streams_class_path(this.setup.directory)
        return [
            JAVA, "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow", "-cp", class_path,
            "KafkaStreamsCandles", *_arguments(this), this.group, str(topic[1]), str(this.state), interval, written,
        ]  # fmt: skip

    return Peer(name, *topic, command)


def flink(name: str, topic: Topic, written: str) -> Peer:
    """Flink SQL in a cluster inside one process, which publishes windows as they close.

    Args:
        name: in the table.
        topic: what it reads.
        written: `documented` or `tuned`; FlinkCandles.java says what each is.
    """

    def command(this: Round) -> list[str]:
        opened = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in ("lang", "util", "time", "net")]
        class_path = flink_class_path(this.setup.directory)
        return [
            JAVA, *opened, "--sun-misc-unsafe-memory-access=allow", "-cp", class_path, "FlinkCandles",
            *_arguments(this), this.group, written,
        ]  # fmt: skip

    return Peer(name, *topic, command)


def quix(name: str, topic: Topic) -> Peer:
    """Quix Streams in an environment of its own."""

    def command(this: Round) -> list[str]:
        python = python_with(QUIX, (3, 13))
        return [python, str(_HERE / "with_quix.py"), *_arguments(this), this.group, str(this.state)]

    return Peer(name, *topic, command)


def bytewax(name: str, topic: Topic) -> Peer:
    """Bytewax in an environment of its own; it has no wheels for Python 3.13."""

    def command(this: Round) -> list[str]:
        return [python_with(BYTEWAX, (3, 12)), str(_HERE / "with_bytewax.py"), *_arguments(this)]

    return Peer(name, *topic, command)


def faust(name: str, topic: Topic) -> Peer:
    """Faust of the project's own version, with its own windows."""

    def command(this: Round) -> list[str]:
        return [sys.executable, str(_HERE / "with_faust.py"), *_arguments(this), this.group, str(this.state)]

    return Peer(name, *topic, command)


def _arguments(this: Round) -> list[str]:
    return [this.setup.settings.kafka_bootstrap, this.ticks_topic, this.candles_topic]
