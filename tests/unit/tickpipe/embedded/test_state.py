"""Who may believe `stack.json`, credentials, and ports that stay the same as long as they can."""

import os
import pwd
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from marketdata.errors import StackError
from tests.ports import free_port
from tests.waiting import wait_until
from tickpipe.embedded.state import (
    Ports,
    ServiceState,
    StackState,
    _held,
    find_stack,
    hold,
    is_free,
    is_locked,
    load_credentials,
    make_data_directory,
    require_free,
    stack_lock,
    write_json,
    write_state,
)

_STATE = StackState(
    supervisor_pid=os.getpid(),
    kafka_bootstrap="127.0.0.1:20001",
    database_url="postgresql://postgres:secret@127.0.0.1:20002/market",
    producer_url="http://127.0.0.1:18001",
    stream_url="",
    sink_url="",
    dashboard_url="",
    api_key="a key",
    started_at=datetime(2026, 1, 2, tzinfo=UTC),
    control="/run/control.sock",
    services=(
        ServiceState("kafka", 7, "running", 2, "kafka.log"),
        ServiceState("sink", None, "backoff", 3, "sink.log"),
    ),
)


def test_published_state_is_found_as_it_was(tmp_path: Path) -> None:
    with stack_lock(tmp_path):
        assert find_stack(tmp_path) is None
        write_state(tmp_path, _STATE)
        assert find_stack(tmp_path) == _STATE
    assert find_stack(tmp_path) is None


def test_state_of_a_killed_supervisor_is_not_believed(tmp_path: Path) -> None:
    with stack_lock(tmp_path):
        pass
    write_state(tmp_path, _STATE)
    assert find_stack(tmp_path) is None
    assert not is_locked(tmp_path)


def test_state_of_another_than_the_lock_holder_is_not_believed(tmp_path: Path) -> None:
    with stack_lock(tmp_path):
        write_state(tmp_path, replace(_STATE, supervisor_pid=os.getpid() + 1))
        assert is_locked(tmp_path)
        assert find_stack(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", '{"version": 2}', '{"version": 1}'])
def test_unusable_file_is_no_stack(tmp_path: Path, content: str) -> None:
    (tmp_path / "stack.json").write_text(content)
    with stack_lock(tmp_path):
        assert find_stack(tmp_path) is None


def test_file_of_another_shape_is_no_stack(tmp_path: Path) -> None:
    with stack_lock(tmp_path):
        write_json(tmp_path / "stack.json", {"version": 1, "supervisor_pid": os.getpid(), "services": [{"name": "x"}]})
        assert find_stack(tmp_path) is None


def test_what_cannot_hold_data_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not is_locked(tmp_path / "file" / "data")
    assert find_stack(tmp_path / "file" / "data") is None
    for unusable in (tmp_path / "file", tmp_path / "file" / "data", Path("/proc/data")):
        with pytest.raises(StackError, match=r"cannot hold the data of a stack \(.+\); choose another directory"):
            make_data_directory(unusable)
    make_data_directory(tmp_path / "new" / "data")
    assert list((tmp_path / "new" / "data").iterdir()) == []


def test_the_stack_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65_534)
    make_data_directory(tmp_path)
    (tmp_path / "stack.lock").touch()
    owner, user = pwd.getpwuid(tmp_path.stat().st_uid).pw_name, pwd.getpwuid(65_534).pw_name
    with pytest.raises(
        StackError, match=f"belongs to {owner}, and you are {user}; .*`sudo chown -R {user} {tmp_path}`"
    ):
        make_data_directory(tmp_path)


def test_a_disk_that_takes_no_more_is_named(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(StackError, match=r"cannot hold the data of a stack \(File too large\)"):
            make_data_directory(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_second_supervisor_is_refused(tmp_path: Path) -> None:
    with (
        stack_lock(tmp_path),
        pytest.raises(StackError, match=rf"already running on .* \(pid {os.getpid()}\)"),
        stack_lock(tmp_path),
    ):
        pass


def test_lock_is_not_inherited_by_children(tmp_path: Path) -> None:
    with stack_lock(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        # The kernel drops the child's copy a moment after exec.
        wait_until(lambda: not is_locked(tmp_path), what="a lock that is free")
        assert child.poll() is None
    finally:
        child.communicate(b"\n")


def test_state_knows_what_is_ready(tmp_path: Path) -> None:
    assert not _STATE.is_ready
    assert _STATE.service("kafka").restarts == 2
    with pytest.raises(StackError, match="it has kafka, sink"):
        _STATE.service("demo")


def test_secrets_do_not_show(tmp_path: Path) -> None:
    assert "secret" not in repr(_STATE)
    assert "a key" not in repr(_STATE)


def test_credentials_are_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    first = load_credentials(tmp_path)
    assert load_credentials(tmp_path) == first
    assert first.api_key != first.database_password
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert first.api_key not in repr(first)


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
    script = f"from tickpipe.embedded.state import hold; print(hold({port}))"
    asked = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "False"
    assert not hold(port)
    assert ours.claim("kafka") == port


@pytest.mark.parametrize("planted", ["link", "dangling link", "file", "writable folder"])
def test_claims_are_never_written_where_somebody_else_may_have_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    shared, target = tmp_path / "shared", tmp_path / "target"
    shared.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = shared / f"tickpipe-ports-{os.getuid()}"
    match planted:
        case "link":
            target.mkdir()
            folder.symlink_to(target)
        case "dangling link":
            folder.symlink_to(target)
        case "file":
            folder.touch()
        case _:
            folder.mkdir()
            folder.chmod(0o777)
    port = 12_345
    assert hold(port)
    os.close(_held.pop(port))
    assert (tmp_path / "home" / ".cache" / "tickpipe" / "ports" / str(port)).exists()
    assert not target.exists() or not list(target.iterdir())
    assert not folder.is_dir() or not list(folder.iterdir())


def test_port_that_another_stack_holds_is_replaced(tmp_path: Path) -> None:
    port = Ports(tmp_path).claim("kafka")
    os.close(_held.pop(port))
    script = f"import sys; from tickpipe.embedded.state import hold; print(hold({port}), flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        assert Ports(tmp_path).claim("kafka") != port
        other.communicate()


def test_a_port_that_was_taken_once_is_chosen_again_when_it_is_free(tmp_path: Path) -> None:
    first = free_port()
    with socket.create_server(("127.0.0.1", first)):
        other = Ports(tmp_path).choose(first, "127.0.0.1")
        assert other != first
        assert is_free(other)
    assert Ports(tmp_path).choose(first, "127.0.0.1") == first


def test_a_directory_that_was_copied_while_a_stack_ran_is_refused(tmp_path: Path) -> None:
    running, copied, moved = tmp_path / "running", tmp_path / "copied", tmp_path / "moved"
    with stack_lock(running):
        write_state(running, _STATE)
        shutil.copytree(running, copied)
    with pytest.raises(StackError, match=f"{copied} was copied while.*remove {copied}/stack.json"), stack_lock(copied):
        pass
    (copied / "stack.json").unlink()
    with stack_lock(copied):
        pass

    write_state(running, _STATE)  # as a kill leaves it
    with stack_lock(running):
        write_state(running, _STATE)
    write_state(running, _STATE)
    running.rename(moved)
    with stack_lock(moved):
        pass


def test_a_directory_that_was_copied_after_its_stack_had_stopped_is_taken(tmp_path: Path) -> None:
    with stack_lock(tmp_path / "first"):
        write_state(tmp_path / "first", _STATE)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    with stack_lock(tmp_path / "second"):
        assert find_stack(tmp_path / "second") is None


def test_torn_file_of_ports_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('{"kafka": 2')
    assert is_free(Ports(tmp_path).claim("kafka"))


def test_taken_port_of_the_user_is_an_error_with_the_cure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(StackError, match=f"port {port} is in use.*--producer-port"):
            require_free(port, "127.0.0.1", "--producer-port")
    require_free(port, "127.0.0.1", "--producer-port")
