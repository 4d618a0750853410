"""The units for systemd: what systemd itself says about them, and that their command starts the service."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from tests import plainhttp
from tests.ports import free_port
from tests.waiting import PATIENCE_SECONDS, wait_until
from tickpipe.cli import app
from tickpipe.install import Unit, What

_AWKWARD = ("--db", 'a "folder" of 100 % $HOME\\ea.db')


@pytest.fixture
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("what", list(What))
@pytest.mark.parametrize("user", ["root", None], ids=["system", "user"])
def test_systemd_finds_nothing_wrong(tmp_path: Path, what: What, user: str | None) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (package systemd)")
    unit = Unit(what, _AWKWARD, tmp_path, user)
    file = tmp_path / unit.name
    file.write_text(unit.text())

    command = [analyze, "verify", "--man=no", "--recursive-errors=no", "--system" if user else "--user", str(file)]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS, env=environment
    )

    said = [line for line in done.stderr.splitlines() if unit.name in line or str(file) in line]
    assert (done.returncode, said) == (0, []), done.stderr


def test_a_word_reaches_the_command_as_it_was_given() -> None:
    [line] = [line for line in Unit(What.RELAY, _AWKWARD, Path("/srv/50%"), None).text().splitlines() if "Exec" in line]
    assert line.endswith('relay serve --db "a \\"folder\\" of 100 %% $$HOME\\\\ea.db"')


@pytest.mark.usefixtures("_home")
def test_a_unit_is_written_shown_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickpipe.install._RUNS", tmp_path / "no systemd")
    monkeypatch.setenv("TICKPIPE_GRACE_SECONDS", "9")
    unit = tmp_path / "config" / "systemd" / "user" / "tickpipe.service"
    runner = CliRunner()
    options = ["install-service", "--user"]

    shown = runner.invoke(app, [*options, "--print", "up", "--", "--producer-host", "::"])
    assert not unit.exists()
    installed = runner.invoke(app, [*options, "up", "--", "--producer-host", "::"])
    assert unit.read_text() == shown.stdout
    assert "tickpipe up --producer-host ::\n" in shown.stdout
    assert "systemctl --user enable --now tickpipe.service" in installed.output
    assert "TICKPIPE_GRACE_SECONDS" in installed.output
    assert runner.invoke(app, [*options, "--uninstall"]).exit_code == 0
    assert not unit.exists()
    again = runner.invoke(app, [*options, "--uninstall"])
    assert (again.exit_code, "There is no" in again.output) == (0, True)


@pytest.mark.usefixtures("_home")
def test_the_command_of_the_unit_starts_the_relay(tmp_path: Path) -> None:
    port = free_port()
    text = Unit(What.RELAY, ("--port", str(port)), tmp_path, None).text()
    [command] = [line.removeprefix("ExecStart=") for line in text.splitlines() if line.startswith("ExecStart=")]
    assert command.startswith(sys.executable)

    with subprocess.Popen(command.split(), cwd=tmp_path, stderr=subprocess.DEVNULL) as relay:
        try:
            wait_until(lambda: _answers(port), what="a relay")
        finally:
            relay.terminate()
    assert (tmp_path / "ea.db").exists()


def _answers(port: int) -> bool:
    try:
        return plainhttp.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.HTTPError:
        return False
