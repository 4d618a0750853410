"""One Kafka and one PostgreSQL for all processes of a run under xdist.

The controller, which outlives its workers, starts them when a worker first asks.
"""

import tempfile
import threading
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import NamedTuple

from tests.servers import TEST_DATABASE, EmbeddedServers


class SharedServers(NamedTuple):
    """Where the servers of the run are; a test that stops one needs `own_servers`."""

    kafka_bootstrap: str
    database_url: str


class ServerDesk:
    """Tells the workers where the servers are, and starts them for the first who asks."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tickpipe-tests-", ignore_cleanup_errors=True)
        self._servers: EmbeddedServers | None = None
        self._answer: SharedServers | str | None = None
        # All workers may ask at once.
        self._listener = Listener(str(Path(self._folder.name) / "desk"), "AF_UNIX", backlog=64)
        threading.Thread(target=self._serve, name="server-desk", daemon=True).start()

    @property
    def address(self) -> str:
        """What `ask` needs."""
        return str(self._listener.address)

    def close(self) -> None:
        """Stop the servers, if any worker has asked for them."""
        self._listener.close()
        if self._servers is not None:
            self._servers.stop()
        self._folder.cleanup()

    def _serve(self) -> None:
        while True:
            try:
                worker = self._listener.accept()
            except OSError:
                return  # closed
            with worker:
                if self._answer is None:
                    self._answer = self._start()
                worker.send(self._answer)

    def _start(self) -> SharedServers | str:
        try:
            self._servers = EmbeddedServers(Path(self._folder.name) / "servers", database_settings=TEST_DATABASE)
            self._servers.start()
        except Exception as exc:
            return f"{type(exc).__name__}: {exc}"
        return SharedServers(self._servers.kafka_bootstrap, self._servers.database_url)


def ask(address: str) -> SharedServers:
    """Where the servers are, once they are ready."""
    connection: Connection[None, SharedServers | str]
    with Client(address, "AF_UNIX") as connection:
        answer = connection.recv()
    if isinstance(answer, str):
        raise RuntimeError(f"the shared servers did not start: {answer}")
    return answer
