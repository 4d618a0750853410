"""A server of the project on a thread of the test's process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from tests.waiting import PATIENCE_SECONDS, wait_until


@contextmanager
def served(server: uvicorn.Server) -> Iterator[str]:
    """Its URL, while it answers."""
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, what="a server that listens")
        yield f"http://127.0.0.1:{server.config.port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)
