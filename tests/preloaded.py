"""Starts `python -m MODULE` without its imports: they are done once, in a process that forks those which tests ask for.

A service imports for about a second of a processor before it begins, and a run of the tests starts some hundreds. What
is forked runs the module from its first line, with its own arguments, environment and outputs, and ends as an
interpreter would. The stack's processes are started as users start them, and so is what asks for that here: `suits`.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import IO, Any

from tests.guardian import RUNS_VARIABLE
from tests.waiting import PATIENCE_SECONDS

#: What services and commands import, also that which they import late.
_MODULES = (
    "producer.__main__", "stream_app.__main__", "sink.__main__", "dashboard.__main__", "tickpipe.cli",
    "relay.collector", "relay.server", "relay.service",
    "faust.app.router", "faust.assignor.partition_assignor", "faust.tables.manager", "faust.web.apps.router",
    "faust.web.cache.backends.memory", "faust.web.drivers.aiohttp", "faust.worker",
    "httptools", "uvicorn.lifespan.on", "uvicorn.loops.uvloop", "uvicorn.protocols.http.httptools_impl",
)  # fmt: skip
#: Room in the memory that /proc shows as the command line and the environment, for those of what is forked.
_ROOM = " " * 1024
_SHOWN_VARIABLES = (RUNS_VARIABLE, "PYTEST_CURRENT_TEST")
_MOST_BYTES = 1 << 17


class Forked:
    """A process that `start` began: what `subprocess.Popen` has of it."""

    #: What those that have ended had used, the children that they had waited for included (seconds of a processor).
    used_seconds = 0.0

    def __init__(self, pid: int, ended: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: when that takes longer than `timeout` (seconds).
        """
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], timeout)[0]:
            code, seconds = json.loads(os.read(self._ended, 100) or "[-9, 0]")
            os.close(self._ended)
            self.returncode = code
            Forked.used_seconds += seconds
        return self.returncode


def suits(environment: Mapping[str, str]) -> bool:
    """Whether a process with these variables is to be forked: not in benchmarks, nor with what interpreters read."""
    names = {*environment, *os.environ} - {"PYTEST_CURRENT_TEST"}
    ours = all(name.startswith("TICKPIPE_") or environment.get(name) == os.environ.get(name) for name in names)
    return ours and RUNS_VARIABLE in environment


def run(
    words: Sequence[str], *, environment: Mapping[str, str] | None = None, timeout: float = PATIENCE_SECONDS
) -> "subprocess.CompletedProcess[str]":
    """Run `python -m WORDS` to its end, and keep what it writes.

    Raises:
        subprocess.TimeoutExpired: when that takes longer (seconds).
    """
    variables = os.environ if environment is None else environment
    assert suits(variables), "these variables are for an interpreter of its own"
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = start(words, variables, stdout=out, stderr=err)
        try:
            code = process.wait(timeout)
        finally:
            process.send_signal(signal.SIGKILL)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(words, code, out.read(), err.read())


def start(
    words: Sequence[str], environment: Mapping[str, str], *, stdout: int | IO[Any] = 1, stderr: int | IO[Any] = 2
) -> Forked:
    """Start `python -m WORDS`, in the current folder."""
    return _forker().start(words, environment, stdout, stderr)


@cache
def _forker() -> "_Forker":
    return _Forker()


def close() -> None:
    """End the process that forks, if there is one."""
    if _forker.cache_info().currsize:
        _forker().close()
        _forker.cache_clear()


class _Forker:
    """The process that forks, seen from the tests."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        variables = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), _ROOM],
                env=variables | {"TICKPIPE_TEST_ROOM": _ROOM},
                cwd=Path(__file__).parents[1],
                pass_fds=[theirs.fileno()],
            )

    def start(
        self, words: Sequence[str], environment: Mapping[str, str], stdout: int | IO[Any], stderr: int | IO[Any]
    ) -> Forked:
        files = [one if isinstance(one, int) else one.fileno() for one in (stdout, stderr)]
        sys.stdout.flush()
        ended, end = os.pipe()
        try:
            with self._turn:
                request = json.dumps([words, dict(environment), os.getcwd()]).encode()
                socket.send_fds(self._connection, [request], [*files, end])
                answer = self._connection.recv(100)
        finally:
            os.close(end)
        assert answer, "the process that forks has ended"
        return Forked(int(answer), ended)

    def close(self) -> None:
        self._connection.close()
        self._process.wait(PATIENCE_SECONDS)


def _serve(connection: socket.socket) -> None:
    """Fork what is asked for until the other end closes; tell each one's end through its pipe."""
    ends: dict[int, int] = {}

    def tell_ends(_number: int, _frame: FrameType | None) -> None:
        while ends:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if not pid:
                return
            end = ends.pop(pid)
            os.write(end, json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime]).encode())
            os.close(end)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for pytest
    signal.signal(signal.SIGCHLD, tell_ends)
    for module in _MODULES:
        importlib.import_module(module)
        if module.endswith("__main__"):
            del sys.modules[module]  # it is run each time
    gc.collect()
    gc.freeze()
    while True:
        request, files, *_ = socket.recv_fds(connection, _MOST_BYTES, 3)
        if not request:
            return
        # A process may end before its pipe is noted.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if not pid:
            connection.close()
            os.closerange(files[2], files[2] + 1)
            for end in ends.values():
                os.close(end)
            words, environment, folder = json.loads(request)
            _run(words, environment, folder, files[:2])
        ends[pid] = files[2]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        for file in files[:2]:
            os.close(file)
        connection.send(str(pid).encode())


def _run(words: list[str], environment: dict[str, str], folder: str, files: list[int]) -> None:
    """Be the interpreter that `python -m WORDS` starts; this does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), *files)):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    sys.path[0] = folder
    os.environ.clear()
    os.environ.update(environment)
    _show([sys.executable, "-m", *words], [f"{name}={environment.get(name, '')}" for name in _SHOWN_VARIABLES])
    gc.unfreeze()
    sys.argv = list(words)
    code = 1
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as exc:
        if exc.code is None or isinstance(exc.code, int):
            code = exc.code or 0
        else:
            print(exc.code, file=sys.stderr)
    except KeyboardInterrupt:
        code = -signal.SIGINT
        traceback.print_exc()
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]  # as an interpreter does: it waits for threads …
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        signal.raise_signal(signal.Signals(-code))
    os._exit(code & 0xFF)


def _show(command: list[str], variables: list[str]) -> None:
    """Have /proc show these as the command line and the environment: by them processes are found and accounted for."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    # Fields 48 to 51 of proc(5), of which the state, the first of these, is the third.
    for words, place in ((command, 45), (variables, 47)):
        begin, end = int(fields[place]), int(fields[place + 1])
        text = "\0".join((*words, "")).encode()[: end - begin - 1]
        ctypes.memmove(begin, text.ljust(end - begin, b"\0"), end - begin)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
