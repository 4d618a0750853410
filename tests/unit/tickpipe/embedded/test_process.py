"""Logs of child processes and the command that starts one."""

import os
import signal
from pathlib import Path

import pytest

from marketdata.errors import StackError
from tickpipe.embedded import process
from tickpipe.embedded.process import ServiceSpec, append_to_log, open_log, rotate_log, setpriv, tail


def _spec(**changes: object) -> ServiceSpec:
    facts: dict[str, object] = {"name": "x", "argv": ["run"], "env": {}, "ready": lambda: True, "log": Path("x.log")}
    return ServiceSpec(**(facts | changes))  # type: ignore[arg-type]  # rows of a test


def test_command_ties_the_child_to_its_parent() -> None:
    spec = _spec(death_signal=signal.SIGQUIT, privileges=["--reuid=65534"])
    assert spec.command == [setpriv(), "--pdeathsig", "QUIT", "--reuid=65534", "--", "run"]


def test_environment_is_not_shown(tmp_path: Path) -> None:
    assert "a secret" not in repr(_spec(env={"KEY": "a secret"}))


def test_missing_setpriv_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(StackError, match="install the package util-linux"):
        setpriv()


def test_large_log_is_rotated_under_its_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Arrange
    monkeypatch.setattr(process, "LOG_LIMIT_BYTES", 10)
    path = tmp_path / "logs" / "x.log"

    # Act
    with open_log(path) as log:
        os.write(log, b"longer than ten\n")
        rotate_log(path)
        os.write(log, b"next\n")

    # Assert
    assert path.with_name("x.log.1").read_text() == "longer than ten\n"
    assert path.read_text() == "next\n"


def test_tail_gives_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    for number in range(5):
        append_to_log(path, str(number))
    assert tail(path, lines=2) == "3\n4"
    assert tail(tmp_path / "none.log") == ""
