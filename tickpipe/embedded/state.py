"""The published state of a running stack: `stack.json`, and the lock that says whether it is current."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from marketdata.errors import StackError
from tickpipe.embedded.files import read_json, write_json
from tickpipe.embedded.supervisor import State

_VERSION = 1
_STATE_FILE = "stack.json"
_LOCK_FILE = "stack.lock"
#: How long a start tries to take the lock: a reader that looks whether it is held holds it for an instant itself.
_LOCK_PATIENCE_SECONDS = 0.5


@dataclass(frozen=True)
class ServiceState:
    """One service as the supervisor last saw it."""

    name: str
    pid: int | None
    state: State
    restarts: int
    log: str


@dataclass(frozen=True)
class StackState:
    """A running stack. URLs are empty for services that it does not run."""

    supervisor_pid: int
    kafka_bootstrap: str
    database_url: str = field(repr=False)
    producer_url: str
    stream_url: str
    sink_url: str
    dashboard_url: str
    api_key: str = field(repr=False)
    started_at: datetime
    #: Path of the unix socket that takes commands.
    control: str
    services: tuple[ServiceState, ...]

    @property
    def is_ready(self) -> bool:
        """Whether every service is running."""
        return all(service.state == "running" for service in self.services)

    def service(self, name: str) -> ServiceState:
        """The service of that name.

        Raises:
            StackError: when the stack has none.
        """
        for service in self.services:
            if service.name == name:
                return service
        raise StackError(f"no service {name!r} in this stack; it has {', '.join(s.name for s in self.services)}")


def write_state(data_dir: Path, state: StackState) -> None:
    """Publish the state in one step."""
    write_json(
        data_dir / _STATE_FILE, {"version": _VERSION} | asdict(state) | {"started_at": state.started_at.isoformat()}
    )


def find_stack(data_dir: Path) -> StackState | None:
    """The stack that runs on the data directory, None when there is none or it has not published itself yet.

    A `stack.json` that a killed supervisor left behind is not believed: its lock went with it.
    """
    content = read_json(data_dir / _STATE_FILE)
    if content.pop("version", None) != _VERSION or _lock_holder(data_dir) != content.get("supervisor_pid"):
        return None
    return _parsed(content)


def is_locked(data_dir: Path) -> bool:
    """Whether a supervisor is alive on the data directory, published or not."""
    return _lock_holder(data_dir) is not None


@contextlib.contextmanager
def stack_lock(data_dir: Path) -> Iterator[None]:
    """Be the only supervisor of the data directory within the block.

    Raises:
        StackError: when another one is.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(data_dir / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(descriptor, data_dir)
        # The pid tells readers whether stack.json is this stack's: one of a killed supervisor may still be there.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
        (data_dir / _STATE_FILE).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _take(descriptor: int, data_dir: Path) -> None:
    deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 32, 0).decode()
                raise StackError(
                    f"a stack is already running on {data_dir} (pid {holder}); stop it or choose another data directory"
                ) from None
        time.sleep(0.02)


def _lock_holder(data_dir: Path) -> int | None:
    """The pid of the supervisor that holds the lock, None when nobody does."""
    try:
        descriptor = os.open(data_dir / _LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 32, 0)
        return int(pid) if pid.isdigit() else -1
    else:
        return None
    finally:
        os.close(descriptor)


def _parsed(content: dict[str, Any]) -> StackState | None:
    try:
        services = tuple(ServiceState(**service) for service in content.pop("services"))
        started_at = datetime.fromisoformat(content.pop("started_at"))
        return StackState(**content, services=services, started_at=started_at)
    except (KeyError, TypeError, ValueError):
        return None
