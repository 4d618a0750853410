"""Child processes of the stack: their specification, their logs, and a start with which none outlives its parent."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from marketdata.errors import StackError

#: A log larger than this is moved to `NAME.log.1`, which drops what was there.
LOG_LIMIT_BYTES = 10_000_000
#: Environment variables that would configure a server which is configured here: libpq's and PostgreSQL's, the JVM's,
#: and the locale, by whose rules Java turns names into upper case (a Kafka that starts in Turkish finds no CLASSİC).
_OF_SERVERS = ("PG", "LC_", "LANG", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS")

#: How much of a log is read to quote its last lines.
_TAIL_BYTES = 16_384


@dataclass(frozen=True)
class ServiceSpec:
    """One child process: how it is started, when it counts as ready, how it is stopped.

    `env` is the whole environment. `ready` is called in a thread, over and over, until it returns True; it must return
    within a few seconds. `prepare` runs in a thread before every start and may do slow work once (formatting a data
    directory); what it raises counts as a failed start.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    ready: Callable[[], bool]
    log: Path
    #: Names of the services that must have been ready once before this one starts; it is stopped before them.
    after: Sequence[str] = ()
    prepare: Callable[[], None] = lambda: None
    stop_signal: signal.Signals = signal.SIGTERM
    #: The signal that the kernel sends the child when its parent ends.
    death_signal: signal.Signals = signal.SIGKILL
    #: Options of setpriv(1), for a server that must run as another user.
    privileges: Sequence[str] = ()

    @property
    def command(self) -> list[str]:
        """The argv that is started: setpriv(1), followed by `argv`.

        PR_SET_PDEATHSIG is set by setpriv and not by a `preexec_fn`, because the kernel clears it when the user
        changes, and because no Python should run between fork and exec in a process that has threads.
        """
        death_signal = self.death_signal.name.removeprefix("SIG")
        return [setpriv(), "--pdeathsig", death_signal, *self.privileges, "--", *self.argv]


def server_environment() -> dict[str, str]:
    """The environment of Kafka and PostgreSQL: ours, but none of it configures them."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OF_SERVERS)}
    return inherited | {"LC_ALL": "C.UTF-8"}


def setpriv() -> str:
    """The path of setpriv(1).

    Raises:
        StackError: when the machine has none.
    """
    found = shutil.which("setpriv", path=os.environ.get("PATH", os.defpath) + ":/usr/bin:/bin")
    if found is None:
        raise StackError("the command setpriv is missing; install the package util-linux")
    return found


def spawn(spec: ServiceSpec) -> subprocess.Popen[bytes]:
    """Start the process with its output appended to its log, in a session of its own.

    In its own session it does not receive the terminal's Ctrl-C. The kernel binds PR_SET_PDEATHSIG to the *thread* that
    started the child: call this from a thread that lives as long as the child.
    """
    with open_log(spec.log) as log:
        return subprocess.Popen(  # noqa: S603 - the command is ours
            spec.command,
            env=dict(spec.env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[int]:
    """A descriptor that appends to the log, so that `rotate_log` works under a writer; rotates first if need be."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    rotate_log(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def append_to_log(path: Path, line: str) -> None:
    """Add our own line to a child's log. A full disk is ignored: the child matters more."""
    with contextlib.suppress(OSError), open_log(path) as log:
        os.write(log, line.encode() + b"\n")


def rotate_log(path: Path) -> None:
    """Copy a log that grew too large to `NAME.log.1` and empty it; the process that writes it need not know."""
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        shutil.copyfile(path, path.with_name(path.name + ".1"))
        os.truncate(path, 0)


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""
