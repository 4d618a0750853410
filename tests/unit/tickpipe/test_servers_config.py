"""What is written for Kafka, and who PostgreSQL runs as."""

import os
from pathlib import Path

import pytest

from marketdata.errors import StackError
from tickpipe.embedded.jars import Jars
from tickpipe.embedded.kafka import Kafka, _escaped, _new_cluster_id, broker_answers
from tickpipe.embedded.postgres import Postgres, Privileges, open_to_all, unprivileged


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


def test_no_broker_no_answer() -> None:
    assert not broker_answers(1)


def test_password_is_quoted_in_the_url_and_does_not_show() -> None:
    postgres = Postgres(directory=Path("x"), port=20003, password="p@ss/word", binaries=Path("bin"), log=Path("x.log"))  # noqa: S106 - made up
    assert postgres.url == "postgresql://postgres:p%40ss%2Fword@127.0.0.1:20003/market"
    assert "p@ss" not in repr(postgres)


def test_ordinary_user_stays_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged([Path("/root/x")]) == Privileges()


def test_root_becomes_nobody_and_keeps_a_capability_only_where_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    barred = tmp_path / "barred"
    barred.mkdir(mode=0o700)
    assert not open_to_all(barred / "data")

    outside, inside = unprivileged([Path("/usr/bin")]), unprivileged([barred / "data"])

    assert not any("dac_override" in option for option in outside.setpriv_options)
    assert any("dac_override" in option for option in inside.setpriv_options)
    assert outside.uid == inside.uid != 0
