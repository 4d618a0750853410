"""Ports for the servers of tests, none of them given twice while many test processes run at once."""

import fcntl
import random
import tempfile
from pathlib import Path
from typing import IO, Final

from tickpipe.embedded.ports import is_free

#: Below the range from which Linux takes the ports of outgoing connections, and apart from the stack's own.
_RANGE: Final = range(10_000, 17_000)

#: Locks of the ports that this process was given; the system frees them when it ends, however it ends.
_locks: Final[list[IO[str]]] = []


def free_port() -> int:
    """A port that nobody listens on, and that no other test process is given as long as this one lives."""
    directory = Path(tempfile.gettempdir()) / "tickpipe-test-ports"
    directory.mkdir(exist_ok=True)
    for port in random.sample(_RANGE, len(_RANGE)):
        lock = (directory / str(port)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        if is_free(port):
            _locks.append(lock)
            return port
        lock.close()
    raise RuntimeError("every port for tests is in use")
