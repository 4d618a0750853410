"""Services as processes of their own for a benchmark."""

import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import httpx
import psutil

from tests import plainhttp

#: Services that are not ready after so long have failed (seconds).
START_SECONDS = 60.0


@contextmanager
def serving(ports: Mapping[str, int], variables: Mapping[str, str]) -> Iterator[dict[str, psutil.Process]]:
    """The processes of `python -m MODULE`, by module, once each answers on its port that it is ready.

    Raises:
        SystemExit: when one of them ends or does not become ready.
    """
    environment = os.environ | dict(variables)
    processes = {
        module: subprocess.Popen([sys.executable, "-m", module], env=environment)  # noqa: S603 - our own
        for module in ports
    }
    try:
        wait_ready(ports.values(), processes.values())
        yield {module: psutil.Process(process.pid) for module, process in processes.items()}
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()


def wait_ready(ports: Collection[int], processes: Collection[subprocess.Popen[bytes]] = ()) -> None:
    """Wait until what listens on each port says that it is ready.

    Raises:
        SystemExit: when one of the processes ends, or it takes too long.
    """
    deadline = time.monotonic() + START_SECONDS
    while not all(map(_is_ready, ports)):
        if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
            raise SystemExit(f"a service did not become ready on its port, one of {sorted(ports)}")
        time.sleep(0.1)


def _is_ready(port: int) -> bool:
    try:
        return plainhttp.get(f"http://127.0.0.1:{port}/ready", timeout=5).is_success
    except httpx.HTTPError:
        return False
