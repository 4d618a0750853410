"""Ports that stay the same as long as they can."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from marketdata.errors import StackError
from tickpipe.embedded.ports import Ports, _kept, is_free, keep, require_free


def test_port_is_remembered(tmp_path: Path) -> None:
    assert Ports(tmp_path).claim("kafka") == Ports(tmp_path).claim("kafka")


def test_ports_of_one_stack_differ_and_lie_below_those_of_outgoing_connections(tmp_path: Path) -> None:
    ports = Ports(tmp_path)
    claimed = {ports.claim(str(number)) for number in range(20)}
    assert len(claimed) == 20
    assert all(20_000 <= port < 32_000 for port in claimed)


def test_taken_port_is_replaced(tmp_path: Path) -> None:
    port = Ports(tmp_path).claim("kafka")
    with socket.create_server(("127.0.0.1", port)):
        other = Ports(tmp_path).claim("kafka")
    assert other != port
    assert Ports(tmp_path).claim("kafka") == other


def test_port_of_a_server_that_restarts_is_not_given_to_another_stack(tmp_path: Path) -> None:
    """Nobody listens on the first one's ports; the second one, of another process, would find them free."""
    ours = Ports(tmp_path)
    port = ours.claim("kafka")
    script = f"from tickpipe.embedded.ports import keep; print(keep({port}))"
    asked = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "False"
    assert not keep(port)
    assert ours.claim("kafka") == port


def test_port_that_another_stack_keeps_is_replaced(tmp_path: Path) -> None:
    port = Ports(tmp_path).claim("kafka")
    os.close(_kept.pop(port))
    script = f"import sys; from tickpipe.embedded.ports import keep; print(keep({port}), flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        assert Ports(tmp_path).claim("kafka") != port
        other.communicate()


def test_torn_file_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('{"kafka": 2')
    assert is_free(Ports(tmp_path).claim("kafka"))


def test_taken_port_of_the_user_is_an_error_with_the_cure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(StackError, match=f"port {port} is in use.*--producer-port"):
            require_free(port, "127.0.0.1", "--producer-port")
    require_free(port, "127.0.0.1", "--producer-port")
