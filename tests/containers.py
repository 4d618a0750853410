"""Kafka and TimescaleDB in containers, for `TICKPIPE_TEST_STACK=containers`: what EmbeddedServers does, with the images
that the compose files name."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from tests.ports import free_port
from tickpipe.embedded.kafka import broker_answers

_COMPOSE = Path(__file__).parents[1] / "compose" / "compose.yaml"
_PASSWORD = "of-a-test-database"  # noqa: S105 - the container lives as long as the test run
_START_TIMEOUT_SECONDS = 90.0
_STOP_TIMEOUT_SECONDS = 20

#: Ryuk, which removes what a killed run leaves behind, is one more image that not every registry has.
testcontainers_config.ryuk_disabled = True


def image(repository: str) -> str:
    """The image that the compose files use, with its tag."""
    found = re.search(rf":-({re.escape(repository)}:[\w.-]+)\}}", _COMPOSE.read_text())
    assert found, repository
    return found[1]


class ContainerServers:
    """A real Kafka and a real TimescaleDB in containers; ports and data stay the same over stop, kill and start."""

    def __init__(self) -> None:
        self._network = Network()
        kafka_port, postgres_port = free_port(), free_port()
        self.kafka_bootstrap = f"127.0.0.1:{kafka_port}"
        self.database_url = f"postgresql://tickpipe:{_PASSWORD}@127.0.0.1:{postgres_port}/market"
        self._kafka = (
            DockerContainer(image("apache/kafka"))
            .with_bind_ports(9092, kafka_port)
            .with_envs(
                KAFKA_NODE_ID="1",
                KAFKA_PROCESS_ROLES="broker,controller",
                KAFKA_LISTENERS="PLAINTEXT://:9092,CONTROLLER://127.0.0.1:9093",
                KAFKA_ADVERTISED_LISTENERS=f"PLAINTEXT://{self.kafka_bootstrap}",
                KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
                KAFKA_CONTROLLER_LISTENER_NAMES="CONTROLLER",
                KAFKA_CONTROLLER_QUORUM_VOTERS="1@127.0.0.1:9093",
                KAFKA_AUTO_CREATE_TOPICS_ENABLE="false",
                KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR="1",
                KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS="1",
                KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR="1",
                KAFKA_TRANSACTION_STATE_LOG_MIN_ISR="1",
                KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS="1",
                KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS="0",
                KAFKA_BROKER_SESSION_TIMEOUT_MS="3000",
                KAFKA_BROKER_HEARTBEAT_INTERVAL_MS="1000",
                KAFKA_HEAP_OPTS="-Xmx512m",
            )
        )
        self._postgres = (
            DockerContainer(image("timescale/timescaledb"))
            .with_bind_ports(5432, postgres_port)
            .with_envs(POSTGRES_USER="tickpipe", POSTGRES_DB="market", POSTGRES_PASSWORD=_PASSWORD)
        )

    def __enter__(self) -> "ContainerServers":
        self._network.create()
        try:
            for container in (self._kafka, self._postgres):
                container.with_network(self._network).start()
            self._wait(self._kafka_answers)
            self._wait(self._postgres_answers)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def start(self) -> None:
        """Start what is down of the two and return when both are ready."""
        self.start_kafka()
        self.start_postgres()

    def start_kafka(self) -> None:
        """Start the broker and return when it is ready."""
        _docker(self._kafka).start()
        self._wait(self._kafka_answers)

    def stop_kafka(self) -> None:
        """Shut the broker down in an orderly way and return when it is gone."""
        _docker(self._kafka).stop(timeout=_STOP_TIMEOUT_SECONDS)

    def kill_kafka(self) -> None:
        """Kill the broker with SIGKILL and return when it is gone."""
        _kill(self._kafka)

    def pause_kafka(self) -> None:
        """Suspend the broker, which keeps its connections and answers nothing, until `resume_kafka`."""
        _docker(self._kafka).pause()

    def resume_kafka(self) -> None:
        """Let a paused broker go on."""
        _docker(self._kafka).unpause()

    def start_postgres(self) -> None:
        """Start the database and return when it is ready."""
        _docker(self._postgres).start()
        self._wait(self._postgres_answers)

    def stop_postgres(self) -> None:
        """Shut the database down, cutting its connections, and return when it is gone."""
        _docker(self._postgres).kill(signal="SIGINT")
        _docker(self._postgres).wait()

    def kill_postgres(self) -> None:
        """Kill the database with SIGKILL and return when it is gone; the next start does crash recovery."""
        _kill(self._postgres)

    def _remove(self) -> None:
        for container in (self._kafka, self._postgres):
            if container.get_wrapped_container() is not None:
                container.stop()
        self._network.remove()

    def _kafka_answers(self) -> bool:
        return broker_answers(int(self.kafka_bootstrap.rpartition(":")[2]))

    def _postgres_answers(self) -> bool:
        try:
            psycopg.connect(self.database_url, connect_timeout=3).close()
        except psycopg.OperationalError:
            return False
        return True

    def _wait(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while not ready():
            for container in (self._kafka, self._postgres):
                state = _docker(container)
                state.reload()
                assert state.status == "running", state.logs(tail=20).decode()
            assert time.monotonic() < deadline, "a server did not answer in time"
            time.sleep(0.1)


def _docker(container: DockerContainer) -> Any:
    return container.get_wrapped_container()


def _kill(container: DockerContainer) -> None:
    _docker(container).kill()
    _docker(container).wait()
