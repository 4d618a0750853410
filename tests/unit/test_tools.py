"""A tool that is missing or broken skips its tests with the reason; in CI it fails them when .ci/run promised it."""

from pathlib import Path

import pytest

from tests import tools

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    return tmp_path


def install(folder: Path, name: str, script: str) -> None:
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def test_a_missing_tool_skips() -> None:
    with pytest.raises(pytest.skip.Exception, match="docker is not installed"):
        tools.find("docker")


def test_another_name_of_the_tool_does(path: Path) -> None:
    install(path, "chromium-browser", "exit 0")
    assert tools.find("chromium", "chromium-browser") == str(path / "chromium-browser")


def test_a_client_without_its_daemon_skips_with_its_words(path: Path) -> None:
    install(path, "docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    with pytest.raises(pytest.skip.Exception, match="docker does not work: Cannot connect to the Docker daemon"):
        tools.probe("docker", [tools.find("docker"), "info"])


def test_a_tool_that_hangs_or_cannot_be_run_skips(path: Path) -> None:
    install(path, "npm", "while :; do :; done")
    with pytest.raises(pytest.skip.Exception, match=r"npm does not work: .*timed out"):
        tools.probe("npm", [tools.find("npm")], seconds=0.2)
    (path / "npm").write_bytes(b"\x7fELF of another machine")
    with pytest.raises(pytest.skip.Exception, match=r"npm does not work: .*Exec format error"):
        tools.probe("npm", [tools.find("npm")])


def test_a_tool_that_works_says_what_it_says(path: Path) -> None:
    install(path, "g++", "echo 14.2")
    assert tools.probe("g++", [tools.find("g++"), "-dumpversion"]) == "14.2\n"


def test_in_ci_a_promised_tool_fails_and_another_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"g\+\+ is not installed; in CI it is promised"):
        tools.find("g++")
    with pytest.raises(pytest.skip.Exception, match="mount is not installed"):
        tools.find("mount")


def test_what_is_promised_is_installed() -> None:
    said = (ROOT / ".ci" / "run").read_text() + (ROOT / "tests" / "compose" / "install_engine.sh").read_text()
    assert [tool for tool in sorted(tools.PROMISED) if tool not in said] == []
