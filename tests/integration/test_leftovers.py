"""A test run that ends, in whatever way, leaves no process behind: servers, services and detached stacks."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.long(55)

ROOT = Path(__file__).parents[2]

#: A test that uses what tests use, says so, and never ends.
INNER = """
import subprocess
import sys
import time
from pathlib import Path
from tests.services import running

DETACH = '''
import sys
from pathlib import Path
from tickpipe.embedded.stack import StackConfig, start_detached
start_detached(StackConfig(Path(sys.argv[1]), producer_port=0, services=("kafka", "postgres", "producer")))
'''

def test_that_is_in_the_middle(settings, tmp_path):
    # As `tickpipe up --detach` does: the process that starts the stack ends.
    subprocess.run([sys.executable, "-c", DETACH, str(tmp_path / "stack")], check=True)
    with running(settings, "producer"):
        Path(__file__).with_name("ready").touch()
        time.sleep(600)
"""


#: Where libfaketime has what a process shares with its children; one that is killed leaves it behind.
MEMORY = Path("/dev/shm")  # noqa: S108

#: A test that forgets a process, which has a session of its own, and a disk; one that kills what has a faked clock.
FORGETFUL = """
import os
import subprocess
from pathlib import Path
from tests import tools
from tests.faked_clock import FakedClock
from tests.waiting import wait_until

FORGOTTEN = []

def test_that_forgets(tmp_path):
    subprocess.Popen(["sleep", "600.25"], start_new_session=True, stdout=subprocess.DEVNULL)
    if os.geteuid() == 0:
        FORGOTTEN.append(tools.small_disk(tmp_path / "forgotten", "1m"))
        FORGOTTEN[0].__enter__()

def test_that_kills(tmp_path):
    asleep = subprocess.Popen(["sleep", "600.5"], env=os.environ | FakedClock(tmp_path).environment)
    wait_until(Path(f"/dev/shm/faketime_shm_{asleep.pid}").exists)
    asleep.kill()
    asleep.wait()
    Path(__file__).with_name("killed").write_text(str(asleep.pid))
"""


def command_of(folder: Path, *options: str) -> list[str]:
    """A pytest of its own on `test_inner.py` in the folder, with the fixtures of these tests."""
    return [
        sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider",
        "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "--basetemp", str(folder / "temp"),
        *options, str(folder / "test_inner.py"),
    ]  # fmt: skip


@contextmanager
def run_in_the_middle(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], list[psutil.Process]]]:
    """A pytest of its own in the middle of a test, and every process that it has started, directly or not."""
    (folder / "test_inner.py").write_text(INNER)
    with (folder / "output").open("wb") as output:
        run = subprocess.Popen(
            command_of(folder, *options), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    started: list[psutil.Process] = []
    try:
        wait_until(lambda: (folder / "ready").exists() or run.poll() is not None, what="the middle of a test")
        assert run.poll() is None, (folder / "output").read_text()
        detached = [p for p in psutil.process_iter(["cmdline"]) if _names(p, "tickpipe.embedded", str(folder))]
        assert len(detached) == 1
        for parent in (psutil.Process(run.pid), *detached):
            started += parent.children(recursive=True)
        started += detached
        yield run, started
    finally:
        for process in (*started, psutil.Process(run.pid) if run.poll() is None else None):
            if process is not None and process.is_running():
                process.kill()


def _names(process: psutil.Process, *words: str) -> bool:
    command = " ".join(process.info["cmdline"] or [])
    return all(word in command for word in words)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("number", "options"),
    [
        pytest.param(signal.SIGKILL, ("-n", "1"), marks=pytest.mark.full),
        pytest.param(signal.SIGINT, ("-n", "1"), marks=pytest.mark.full),
        pytest.param(signal.SIGKILL, (), marks=pytest.mark.full),
        pytest.param(signal.SIGINT, (), marks=pytest.mark.full),
    ],
    ids=["controller-killed", "workers-interrupted", "killed", "interrupted"],
)
def test_no_process_is_left(tmp_path: Path, number: signal.Signals, options: tuple[str, ...]) -> None:
    with run_in_the_middle(tmp_path, *options) as (run, started):
        names = [process.name() for process in started]
        assert names.count("java") == 2, names

        # A Ctrl-C reaches everybody whom the terminal knows.
        (os.killpg if number is signal.SIGINT else os.kill)(run.pid, number)
        run.wait(PATIENCE_SECONDS)
        _, alive = psutil.wait_procs(started, timeout=PATIENCE_SECONDS)

        assert [" ".join(process.cmdline()) for process in alive] == []
        left = [p for p in psutil.process_iter(["cmdline"]) if _names(p, str(tmp_path)) and p.pid != os.getpid()]
        assert [p.info["cmdline"] for p in left] == []


def test_what_a_test_forgot_is_ended_and_named(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(FORGETFUL)
    done = subprocess.run(
        command_of(tmp_path, "-W", "ignore"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "sleep 600.25" in done.stderr
    assert [p for p in psutil.process_iter(["cmdline"]) if _names(p, "sleep", "600.25")] == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    # Without libfaketime that test was skipped.
    if (killed := tmp_path / "killed").exists():
        assert list(MEMORY.glob(f"*faketime_s*_{killed.read_text()}")) == []
