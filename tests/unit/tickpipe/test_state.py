"""Who may believe `stack.json`."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from marketdata.errors import StackError
from tickpipe.embedded.files import load_credentials, write_json
from tickpipe.embedded.state import ServiceState, StackState, find_stack, is_locked, stack_lock, write_state

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
        deadline = time.monotonic() + 1
        while is_locked(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_locked(tmp_path)
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
