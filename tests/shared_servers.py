"""One Kafka and one PostgreSQL for all processes of a run under xdist.

The controller, which outlives its workers, starts them when a worker first asks.
"""

import secrets
import threading
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import NamedTuple

from tests.guardian import folder_in_memory
from tests.servers import TEST_DATABASE, EmbeddedServers, formatted


class SharedServers(NamedTuple):
    """Where the servers of the run are; a test that stops one needs `own_servers`."""

    kafka_bootstrap: str
    database_url: str


class ServerDesk:
    """Tells the workers where the servers are, and starts them for the first who asks."""

    def __init__(self) -> None:
        self._servers: EmbeddedServers | None = None
        self._answer: SharedServers | str | None = None
        self._key = secrets.token_bytes(32)
        # All workers may ask at once.
        self._listener = Listener(("127.0.0.1", 0), backlog=64, authkey=self._key)
        threading.Thread(target=self._serve, name="server-desk", daemon=True).start()

    @property
    def address(self) -> tuple[int, bytes]:
        """What `ask` needs."""
        return self._listener.address[1], self._key

    def close(self) -> None:
        """Stop the servers, if any worker has asked for them."""
        self._listener.close()
        if self._servers is not None:
            self._servers.stop()

    def _serve(self) -> None:
        while True:
            try:
                worker = self._listener.accept()
            except (AuthenticationError, EOFError):
                continue  # not a worker of ours
            except OSError:
                return  # closed
            with worker:
                folder = Path(worker.recv())
                if self._answer is None:
                    self._answer = self._start(folder)
                worker.send(self._answer)

    def _start(self, folder: Path) -> SharedServers | str:
        try:
            data_dir = formatted((folder_in_memory() or folder) / "servers", folder / "blank")
            self._servers = EmbeddedServers(data_dir, database_settings=TEST_DATABASE)
            self._servers.start()
        except Exception as exc:
            return f"{type(exc).__name__}: {exc}"
        return SharedServers(self._servers.kafka_bootstrap, self._servers.database_url)


def ask(address: tuple[int, bytes], folder: Path) -> SharedServers:
    """Where the servers are, once they are ready; if nobody asked before, they store their data in the folder."""
    port, key = address
    connection: Connection[str, SharedServers | str]
    with Client(("127.0.0.1", port), authkey=key) as connection:
        connection.send(str(folder))
        answer = connection.recv()
    if isinstance(answer, str):
        raise RuntimeError(f"the shared servers did not start: {answer}")
    return answer
