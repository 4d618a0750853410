"""Tools from outside that some tests need: a tool is there and works, or its tests are skipped with the reason.

Where `CI=true` nothing is skipped for a tool that `.ci/run` installs: there it is an error that it does not work.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from tests.guardian import RUNS_VARIABLE

#: What `.ci/run` installs, or has installed by what it calls.
PROMISED = frozenset(("chromium", "docker", "g++", "node", "npm", "pgbouncer"))

_PROBE_SECONDS = 60


def find(*names: str) -> str:
    """The path of the first of these commands that is installed; the first name is the tool's."""
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        unavailable(names[0], "is not installed")
    return path


def probe(tool: str, command: Sequence[str | Path], *, cwd: Path | None = None, seconds: float = _PROBE_SECONDS) -> str:
    """Standard output of a command that shows whether the tool works."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        unavailable(tool, f"does not work: {exc}")
    if done.returncode:
        words = (done.stderr or done.stdout).strip() or f"it ends with {done.returncode}"
        unavailable(tool, f"does not work: {words[-300:]}")
    return done.stdout


@contextmanager
def small_disk(folder: Path, size: int | str) -> Iterator[Path]:
    """A file system of its own in a new folder, of so many bytes; the run's guardian takes it away at the latest."""
    folder.mkdir()
    source = os.environ[RUNS_VARIABLE].split()[-1]
    probe("mount", [find("mount"), "-t", "tmpfs", "-o", f"size={size}", source, folder])
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def unavailable(tool: str, reason: str) -> NoReturn:
    """Skip the test, or fail it where the tool was promised."""
    if os.environ.get("CI") == "true" and tool in PROMISED:
        pytest.fail(f"{tool} {reason}; in CI it is promised by .ci/run", pytrace=False)
    pytest.skip(f"{tool} {reason}")
