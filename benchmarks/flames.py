"""Where the time goes, as flame graphs: `python -m benchmarks.flames [fold] [sink] [producer]`.

py-spy looks at each service 200 times a second while it works as in its benchmark, from its first piece of work on, and
the graphs go to docs/images. Wide is where it is often; frames of C code show as the Python that called them.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.fold import filled, measured, new_worker
from benchmarks.ingest import SERVER, TICKS, body_of, posting, variables
from benchmarks.page import PAGE
from benchmarks.services import serving
from benchmarks.sink import prepared, sinking
from tests.days import EURUSD_COUNT
from tests.servers import EmbeddedServers

IMAGES = PAGE.parent / "images"

#: Looks a second.
RATE = 200

CANDLES = 300_000
BODIES = 6_000
PORT = 18_994


@contextmanager
def watched(pid: int, name: str) -> Iterator[None]:
    """Record the process as long as the block runs."""
    path = IMAGES / f"flame-{name}.svg"
    command = [
        str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(pid), "--rate", str(RATE),
        "--nolineno", "--format", "flamegraph", "--output", str(path),
    ]  # fmt: skip
    recorder = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # noqa: S603 - a tool
    try:
        yield
    finally:
        # It writes the graph when it is interrupted.
        recorder.send_signal(signal.SIGINT)
        _, said = recorder.communicate()
    if recorder.returncode:
        raise SystemExit(f"py-spy failed; it needs the right to trace processes (as root it has it):\n{said.decode()}")
    # Its title is the command, with the folders of this machine.
    path.write_text(path.read_text().replace(" ".join(command), f"{name}: where the time goes"))
    print(f"wrote {path}")


def fold() -> None:
    """The stream worker, a backlog of single ticks."""
    with filled(Namespace(ticks=EURUSD_COUNT, frame=1)) as (settings, ticks), new_worker(settings) as worker:
        measured(1, [worker])
        with watched(worker.pid, "fold"):
            measured(ticks, [worker])


def sink() -> None:
    """The sink, into an empty table."""
    with prepared(CANDLES) as (settings, _):
        sinking(settings, CANDLES, lambda pid: watched(pid, "sink"))()


def producer() -> None:
    """The producer, bodies of one tick and of 200."""
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedServers(Path(directory)) as servers,
        serving({SERVER: PORT}, variables(servers.kafka_bootstrap, PORT)) as processes,
    ):
        for name, ticks, count in (("producer-one", 1, 10 * BODIES), ("producer-bodies", TICKS, BODIES)):
            bodies = [body_of(number, ticks) for number in range(count)]
            with watched(processes[SERVER].pid, name):
                posting(processes[SERVER], PORT, "/ingest/tick", bodies, ticks)()


GRAPHS: dict[str, Callable[[], None]] = {"fold": fold, "sink": sink, "producer": producer}


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("services", nargs="*", default=list(GRAPHS), metavar="SERVICE", help=", ".join(GRAPHS))
    options = parser.parse_args()
    if unknown := set(options.services) - set(GRAPHS):
        parser.error(f"no such service: {', '.join(sorted(unknown))}; there are {', '.join(GRAPHS)}")
    for name in options.services:
        GRAPHS[name]()


if __name__ == "__main__":
    main()
