"""Ends what a test run started and left behind, also when the run is killed.

Every process below a run carries the run's name in its environment, whatever session, parent or user it has since. The
guardian, a process beside pytest, waits until pytest's end of a pipe closes, which it does when pytest ends in any way,
ends whoever carries the name, and takes away the disks that carry it, whose folders no later run could delete, what the
run's servers stored in memory, and what libfaketime leaves there of killed processes. Under xdist the controller and
each worker have one of their own.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

#: The names of the runs that a process belongs to: a run inside a test belongs to two.
RUNS_VARIABLE = "TICKPIPE_TEST_RUNS"
#: How long processes have to end in an orderly way, and how long the killed ones have to be gone (seconds).
_TERMINATE_SECONDS, _KILL_SECONDS = 5.0, 15.0
_PROBE_INTERVAL_SECONDS = 0.1


#: Where Linux has a file system in memory, and the room that the servers of a run may need there (bytes).
_MEMORY, _ROOM_BYTES = Path("/dev/shm"), 4 * 2**30  # noqa: S108 - a folder in it has the run's random name


def folder_in_memory() -> Path | None:
    """A folder in memory that goes when this process has ended, however that is; None where there is too little room.

    A test's database is some hundred small files: made there they take a third of the work, and no waiting.
    """
    run = os.environ.get(RUNS_VARIABLE, "").rpartition(" ")[2]
    try:
        if not run or shutil.disk_usage(_MEMORY).free < _ROOM_BYTES:
            return None
        folder = _folder_of(run)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None
    return folder


def _folder_of(run: str) -> Path:
    return _MEMORY / f"tickpipe-tests-{run}"


class Guardian:
    """The guardian of this process, which marks itself so that whatever it starts from now on is guarded."""

    def __init__(self) -> None:
        run = self.run = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, "-IS", __file__, run],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,  # the terminal's Ctrl-C is for pytest
        )  # fmt: skip
        os.environ[RUNS_VARIABLE] = f"{os.environ.get(RUNS_VARIABLE, '')} {run}".lstrip()

    def dismiss(self) -> list[str]:
        """End what is left and say what it was, as `PID COMMAND`."""
        left, _ = self._process.communicate()
        return left.splitlines()


def main() -> None:
    """Wait for the end of the run, and clear up."""
    run = sys.argv[1]
    sys.stdin.read()
    found: dict[int, str] = {}
    for number, seconds in ((signal.SIGTERM, _TERMINATE_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
        deadline = time.monotonic() + seconds
        told: set[int] = set()
        while (members := _members(run)) and time.monotonic() < deadline:
            for pid in members - told:
                found.setdefault(pid, _command(pid))
                _send(pid, number)
            told |= members
            time.sleep(_PROBE_INTERVAL_SECONDS)
    _unmount(run)
    shutil.rmtree(_folder_of(run), ignore_errors=True)
    _forget_clocks()
    try:
        print(*(f"{pid} {command}" for pid, command in found.items()), sep="\n", end="", flush=True)
    except BrokenPipeError:
        os._exit(0)  # the run was killed, nobody listens


def _members(run: str) -> set[int]:
    """Who carries the name, and their descendants: PostgreSQL's processes, for one, overwrite their environment."""
    members, parents = set(), {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        pid = int(folder.name)
        try:
            # "PID (NAME) STATE PARENT …", where the name may hold anything.
            state, parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue  # gone meanwhile
        if state == "Z":
            continue
        parents[pid] = int(parent)
        try:
            if run.encode() in (folder / "environ").read_bytes():
                members.add(pid)
        except OSError:
            continue  # another user's
    while more := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= more
    return members


def _unmount(run: str) -> None:
    try:
        mounts = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return  # not Linux
    for source, folder, *_ in map(str.split, mounts):
        if source == run:
            subprocess.run(["umount", "--lazy", folder], check=False)


def _forget_clocks() -> None:
    """Take away what libfaketime shares between a process and its children, where the process is gone."""
    for file in _MEMORY.glob("*faketime_s*_*"):
        pid = re.fullmatch(r"(?:sem\.faketime_sem|faketime_shm)_(\d+)", file.name)
        if pid and not Path("/proc", pid[1]).exists():
            with suppress(OSError):
                file.unlink()


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()[:200]
    except OSError:
        return ""


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


if __name__ == "__main__":
    main()
