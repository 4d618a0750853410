"""The ports of a stack: chosen once, remembered in its data directory, used again as long as they are free."""

import fcntl
import os
import random
import socket
import tempfile
import time
from pathlib import Path

from marketdata.errors import StackError
from tickpipe.embedded.files import read_json, write_json

HOST = "127.0.0.1"

#: Inner ports come from here, below the range from which Linux takes the ports of outgoing connections (32768 and up).
#: A port in that range could be taken, while its server restarts, by the very client that retries to connect.
_INNER_PORTS = range(20_000, 32_000)
#: How long a taken port may take to become free: the children of a killed supervisor need a moment to die.
_PATIENCE_SECONDS = 1.0

#: File descriptors of the locks of the ports that this process keeps; the system closes them when it ends, however.
_kept: dict[int, int] = {}


class Ports:
    """The ports of one data directory, by the name of what listens there."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "ports.json"
        stored = read_json(self._path)
        self._ports: dict[str, int] = {name: port for name, port in stored.items() if isinstance(port, int)}

    def claim(self, name: str, first: int | None = None) -> int:
        """The remembered port of `name` if it is free, else `first` if that is, else another; it is remembered."""
        port = self._ports.get(name)
        if port is None or not (keep(port, again=True) and is_free(port)):
            taken = set(self._ports.values())
            candidates = [*([first] if first is not None else []), *shuffled(_INNER_PORTS)]
            port = next(port for port in candidates if port not in taken and is_free(port) and keep(port))
            self._ports[name] = port
            write_json(self._path, self._ports)
        return port


def keep(port: int, *, again: bool = False) -> bool:
    """Keep the port from other stacks as long as this process lives, also while nobody listens on it.

    Without that a stack that starts could take the port of another one's broker while that restarts. False when
    another process of this user keeps it, or this one does and it is not to be had `again`.
    """
    if port in _kept:
        return again
    directory = Path(tempfile.gettempdir()) / f"tickpipe-ports-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(directory / str(port), os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    _kept[port] = lock
    return True


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
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not is_free(port, host):
        if time.monotonic() < deadline:
            time.sleep(0.05)
            continue
        raise StackError(f"port {port} is in use; stop what listens there or choose another with {option}")


def shuffled(ports: range) -> list[int]:
    """The ports in any order."""
    return random.sample(ports, len(ports))
