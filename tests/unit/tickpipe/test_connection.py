"""Which producer and which servers a command finds."""

import re
import sys
from pathlib import Path

import pytest

from marketdata.errors import StackError
from tickpipe.connection import StackServices, connected_settings, producer_address

_ENV = "COMPOSE_PROJECT_NAME=tickpipe-1\nTICKPIPE_API_KEY=key-of-compose\nTICKPIPE_PORT=28001\nTICKPIPE_DB_PASSWORD=x\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, in which a deployment's `.env` lies; no stack is on its data directory."""
    (tmp_path / ".env").write_text(_ENV)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_deployment_of_this_folder_names_port_and_key(folder: Path) -> None:
    assert producer_address(folder, None, None, "S") == ("http://127.0.0.1:28001", "key-of-compose")


def test_a_published_address_is_the_one_to_connect_to(folder: Path) -> None:
    (folder / ".env").write_text(_ENV + "TICKPIPE_BIND=192.168.1.5\n")
    assert producer_address(folder, None, None, None)[0] == "http://192.168.1.5:28001"


def test_keys_of_sources_take_the_place_of_the_one_key(folder: Path) -> None:
    (folder / ".env").write_text(_ENV + """TICKPIPE_API_KEYS='{"S":"key-of-source"}'\n""")
    assert producer_address(folder, None, None, "S")[1] == "key-of-source"


def test_options_come_before_the_deployment(folder: Path) -> None:
    assert producer_address(folder, "http://elsewhere", "a-key", None) == ("http://elsewhere", "a-key")
    assert producer_address(folder, None, "a-key", None) == ("http://127.0.0.1:28001", "a-key")


def test_servers_inside_the_deployment_are_reached_from_inside(folder: Path) -> None:
    with pytest.raises(StackError, match="docker compose run --rm tickpipe"):
        connected_settings(folder)


def test_another_env_is_no_deployment(folder: Path) -> None:
    (folder / ".env").write_text("TICKPIPE_PORT=28001\n")
    with pytest.raises(StackError, match="no stack runs"):
        producer_address(folder, None, None, None)


def test_without_a_stack_its_extra_is_not_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore into servers elsewhere works in the image, which does not have it."""
    monkeypatch.setitem(sys.modules, "tickpipe.embedded.stack", None)
    services = StackServices(folder / "data", re.compile(".*"))
    services.stop()
    services.start()
