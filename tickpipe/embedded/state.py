"""The data directory of a stack: its ports, its credentials, its published state, and the lock of its supervisor.

Each is a small JSON file, written whole or not at all and readable by its owner only.
"""

import contextlib
import fcntl
import json
import os
import pwd
import random
import secrets
import shlex
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from marketdata.errors import StackError
from runtime.files import replace_file
from runtime.security_settings import scram_login
from tickpipe.embedded.supervisor import State

HOST = "127.0.0.1"

#: The user of Kafka that commands log in as; it may do everything.
KAFKA_ADMINISTRATOR = "tickpipe"

#: Inner ports come from here, below the range from which Linux takes the ports of outgoing connections (32768 and up).
#: A port in that range could be taken, while its server restarts, by the very client that retries to connect.
_INNER_PORTS = range(20_000, 32_000)
#: How long a taken port may take to become free (seconds).
_PATIENCE_SECONDS = 1.0

#: File descriptors of the locks of the ports that this process holds; the system closes them however it ends.
_held: dict[int, int] = {}

#: More than what a full disk has left in blocks that are begun.
_PROBE_BYTES = 65_536

_VERSION = 1
_STATE_FILE = "stack.json"
_LOCK_FILE = "stack.lock"
#: How long a start tries to take the lock: a reader that checks it holds it for an instant itself.
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
    #: For the role that may read the database, and do no more.
    reader_url: str = field(default="", repr=False)
    kafka_password: str = field(default="", repr=False)

    @property
    def kafka_settings(self) -> dict[str, str]:
        """Settings of a client that may do everything with the stack's Kafka, by their names."""
        login = scram_login(KAFKA_ADMINISTRATOR, self.kafka_password)
        return login | {"kafka_bootstrap": self.kafka_bootstrap}

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
    """Publish the state atomically."""
    own = {"version": _VERSION, "inode": data_dir.stat().st_ino, "started_at": state.started_at.isoformat()}
    write_json(data_dir / _STATE_FILE, asdict(state) | own)


def find_stack(data_dir: Path) -> StackState | None:
    """The stack that runs on the data directory, None when there is none or it has not published its state yet.

    A `stack.json` that a killed supervisor left behind does not count: its lock is gone.
    """
    content = read_json(data_dir / _STATE_FILE)
    content.pop("inode", None)
    if content.pop("version", None) != _VERSION or _lock_holder(data_dir) != content.get("supervisor_pid"):
        return None
    return _parsed(content)


def is_locked(data_dir: Path) -> bool:
    """Whether a supervisor is alive on the data directory, published or not."""
    return _lock_holder(data_dir) is not None


def make_data_directory(data_dir: Path) -> None:
    """Make the directory, if it is not there yet, and see whether something can be written to it.

    Raises:
        StackError: when not, because the disk is full, say, what is there is no directory, or it is another user's.
    """
    _require_own(data_dir)
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir) as probe:
            probe.write(b"\0" * _PROBE_BYTES)
    except OSError as exc:
        raise StackError(
            f"{data_dir} cannot hold the data of a stack ({exc.strerror}); choose another directory with --data-dir, "
            "or correct that"
        ) from exc


def _require_own(data_dir: Path) -> None:
    """Check that no other user has run a stack here: each would make files that the other one cannot read."""
    try:
        owner = (data_dir / _LOCK_FILE).stat().st_uid
    except PermissionError:
        owner = data_dir.stat().st_uid
    except OSError:
        return  # there is no stack yet
    if owner != os.geteuid():
        raise StackError(
            f"the stack of {data_dir} belongs to {_user(owner)}, and you are {_user(os.geteuid())}; start it as that "
            f"user, or make it your own with `sudo chown -R {_user(os.geteuid())} {shlex.quote(str(data_dir))}`"
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # only known by its number here, as in a container
        return str(uid)


@contextlib.contextmanager
def stack_lock(data_dir: Path) -> Iterator[None]:
    """Hold the lock of the data directory's only supervisor within the block.

    Raises:
        StackError: when another supervisor holds it, the directory was copied while a stack ran on it, or it cannot be
            written.
    """
    make_data_directory(data_dir)
    descriptor = os.open(data_dir / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(descriptor, data_dir)
        _require_original(data_dir)
        # By the pid readers know whether stack.json is this stack's: a killed supervisor may have left one behind.
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


def _require_original(data_dir: Path) -> None:
    """Check that what a killed stack left behind is where it was left.

    `stack.json` is there while a stack runs, and after it was killed. A copy has it as well, but another inode; the
    files of its servers are of different moments then, and what is missing or torn would show up much later.
    """
    path = data_dir / _STATE_FILE
    inode = read_json(path).get("inode")
    if inode is not None and inode != data_dir.stat().st_ino:
        raise StackError(
            f"{data_dir} was copied while the stack ran, so its files are of different moments. Stop the stack there "
            f"with `tickpipe down` and copy again, or take a backup there with `tickpipe backup` and restore it here. "
            f"If the stack had been killed before it was copied, remove {path} and start again"
        )


def _lock_holder(data_dir: Path) -> int | None:
    """The pid of the supervisor that holds the lock, None when nobody does."""
    try:
        descriptor = os.open(data_dir / _LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
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


@dataclass(frozen=True)
class Credentials:
    """The key of the producer's API, which may speak for any source, and the passwords of the servers."""

    api_key: str = field(repr=False)
    database_password: str = field(repr=False)
    reader_password: str = field(repr=False)
    services_password: str = field(repr=False)
    kafka_password: str = field(repr=False)


def load_credentials(data_dir: Path) -> Credentials:
    """The credentials of the data directory; made and stored in `secrets.json`, mode 0600, when there are none."""
    path = data_dir / "secrets.json"
    stored = read_json(path)
    wanted = {name: stored.get(name) or secrets.token_urlsafe(24) for name in Credentials.__dataclass_fields__}
    if wanted != stored:
        write_json(path, stored | wanted)
    return Credentials(**wanted)


class Ports:
    """The ports of one data directory, by the name of what listens there."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "ports.json"
        stored = read_json(self._path)
        self._ports: dict[str, int] = {name: port for name, port in stored.items() if isinstance(port, int)}

    def choose(self, first: int, host: str) -> int:
        """`first`, else a free one for this time; nothing is remembered."""
        if becomes_free(first, host) and hold(first, again=True):
            return first
        return next(port for port in shuffled(_INNER_PORTS) if self._is_new(port) and is_free(port, host))

    def _is_new(self, port: int) -> bool:
        return port not in self._ports.values() and hold(port)

    def claim(self, name: str) -> int:
        """The remembered port of `name` if it is free, else another; it is remembered."""
        port = self._ports.get(name)
        if port is None or not (hold(port, again=True) and is_free(port)):
            port = next(port for port in shuffled(_INNER_PORTS) if is_free(port) and self._is_new(port))
            self._ports[name] = port
            write_json(self._path, self._ports)
        return port


def hold(port: int, *, again: bool = False) -> bool:
    """Hold the port against other stacks as long as this process lives, also while nobody listens on it.

    Without that a stack that starts could take the port of another one's broker while that restarts. False when
    another process of this user holds it, or this one does and `again` is not set.
    """
    if port in _held:
        return again
    folder = _claims_folder()
    try:
        lock = os.open(str(port), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    _held[port] = lock
    return True


def _claims_folder() -> int:
    """A descriptor of the folder of all this user's claims.

    Anybody may put a folder, or a link to another, into a shared folder before us; such a one is left alone.

    Raises:
        StackError: when there is no folder of our own.
    """
    candidates = (
        Path(tempfile.gettempdir()) / f"tickpipe-ports-{os.getuid()}",
        Path.home() / ".cache" / "tickpipe" / "ports",
    )
    for path in candidates:
        with contextlib.suppress(OSError):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            found = os.fstat(folder)
            if found.st_uid == os.getuid() and not found.st_mode & 0o022:
                return folder
            os.close(folder)
    raise StackError(f"ports are claimed in {candidates[0]} or {candidates[1]}, and neither is ours alone")


def is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen on the port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Servers set this option, so connections of a former server that linger in TIME_WAIT must not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def require_free(port: int, host: str, option: str) -> None:
    """Check a port that the user chose.

    Raises:
        StackError: when it is in use, naming the `option` that chooses another.
    """
    if not becomes_free(port, host):
        raise StackError(f"port {port} is in use; stop what listens there or choose another with {option}")


def becomes_free(port: int, host: str) -> bool:
    """Whether the port is free, or is so in a moment: the children of a killed supervisor need one to die."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (found := is_free(port, host)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def shuffled(ports: range) -> list[int]:
    """The ports in random order."""
    return random.sample(ports, len(ports))


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file; empty when the file is missing, torn or not an object."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: object) -> None:
    """Replace the file atomically, mode 0600: a reader sees the old content or the new."""
    replace_file(path, f"{json.dumps(content, indent=2)}\n".encode())
