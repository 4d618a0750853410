"""What is written for Kafka, and whether it answers."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from marketdata.errors import StackError
from tickpipe.embedded.jars import Jars
from tickpipe.embedded.kafka import LEAST_START_BYTES, Kafka, _escaped, _new_cluster_id, broker_answers

ROOT = Path(__file__).parents[4]


def test_path_survives_the_properties_file() -> None:
    assert _escaped(Path("/home/josé/my data")) == "/home/jos\\u00e9/my data"
    with pytest.raises(StackError, match="comma"):
        _escaped(Path("/a,b"))


def test_cluster_id_is_no_option_of_the_command_line() -> None:
    assert all(len(_new_cluster_id()) == 22 and not _new_cluster_id().startswith("-") for _ in range(200))


def test_formatted_directory_is_not_formatted_again(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").touch()
    kafka = Kafka(
        directory=tmp_path, port=20001, controller_port=20002, jars=Jars(Path("none")), log=tmp_path / "x.log"
    )

    kafka.prepare()

    properties = (tmp_path / "server.properties").read_text()
    assert "advertised.listeners=BROKER://127.0.0.1:20001\n" in properties
    assert "auto.create.topics.enable=false\n" in properties
    assert kafka.bootstrap == "127.0.0.1:20001"


def test_kafka_is_not_started_on_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start there can empty the log of Kafka's metadata, and with it lose every topic."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").touch()
    left: list[int] = [LEAST_START_BYTES - 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=left[0], asked=path))
    kafka = Kafka(
        directory=tmp_path, port=20001, controller_port=20002, jars=Jars(Path("none")), log=tmp_path / "x.log"
    )

    with pytest.raises(StackError, match=r"data has 63 MB free.*Make room"):
        kafka.prepare()

    left[0] += 1
    kafka.prepare()


def test_compose_and_the_embedded_stack_ask_for_the_same_room() -> None:
    script = (ROOT / "compose" / "kafka" / "start.sh").read_text()
    assert f"least=$(({LEAST_START_BYTES // 2**20} * 1024 * 1024))\n" in script


def test_no_broker_no_answer() -> None:
    assert not broker_answers(1)
