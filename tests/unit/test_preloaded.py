"""What is forked behaves as `python -m` does, and is found and accounted for as such."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import preloaded
from tests.services import Process
from tests.waiting import PATIENCE_SECONDS, wait_until

#: Each is run by both; what it writes and its exit code must be the same.
ACTS = {
    "the surroundings": """
        import os, signal, sys
        print(__name__, sys.argv, os.getcwd(), sys.path[0], os.environ["TICKPIPE_ACT"], *sorted(os.environ), sep="\\n")
        print(sys.stdin.read(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), os.getpgid(0))
        print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGCHLD))
        print("an error", file=sys.stderr)
        """,
    "no descriptor but its own": """
        import os
        print(sorted(int(name) for name in os.listdir("/proc/self/fd"))[:3], len(os.listdir("/proc/self/fd")) < 6)
        """,
    "a number": "raise SystemExit(70)",
    "a sentence": "raise SystemExit('no settings')",
    "a fault": "raise ValueError('not foreseen')",
    "Ctrl-C": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "a kill": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "SIGTERM": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "what ends last": """
        import atexit, threading, time
        atexit.register(print, "at exit")
        threading.Thread(target=lambda: (time.sleep(0.05), print("a thread"))).start()
        print("the main thread")
        """,
    "a child": """
        import subprocess, sys
        raise SystemExit(subprocess.run([sys.executable, "-IS", "-c", "raise SystemExit(5)"]).returncode)
        """,
}


def test_it_writes_and_ends_as_an_interpreter_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TICKPIPE_ACT", "of this test")

    def heard(done: "subprocess.CompletedProcess[str]") -> list[object]:
        # Of a traceback the frames above the module are runpy's, which differ.
        return [done.returncode, *done.stdout.splitlines(), *done.stderr.splitlines()[-1:]]

    for number, (about, act) in enumerate(ACTS.items()):
        lines = [line.removeprefix(" " * 8) for line in act.strip().splitlines()]
        (tmp_path / f"act{number}.py").write_text("\n".join(lines))
        command = [f"act{number}", "--word", "two words"]
        alone = subprocess.run(
            [sys.executable, "-m", *command], env=dict(os.environ), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
        forked = preloaded.run(command)
        assert heard(forked) == heard(alone), about


def test_it_can_be_found_killed_and_accounted_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "waits.py").write_text("import time\nwhile time.process_time() < 0.2: pass\ntime.sleep(600)")
    used_before = preloaded.Forked.used_seconds
    process = Process(["waits", "--long"], 1, os.environ).start()
    folder = Path(f"/proc/{process.pid}")

    def words() -> list[str]:
        return (folder / "cmdline").read_text().rstrip("\0").split("\0")

    wait_until(lambda: words() == [sys.executable, "-m", "waits", "--long"], what="its command line")
    assert b"PYTEST_CURRENT_TEST=tests/unit/test_preloaded.py::" in (folder / "environ").read_bytes()
    wait_until(lambda: sum(map(int, (folder / "stat").read_text().split()[13:15])) >= 10, what="some work")
    assert process.peak_memory_mb() > 1
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0.1 <= preloaded.Forked.used_seconds - used_before < 60
    process.send_signal(signal.SIGTERM)  # it has ended, so nobody gets it


def test_what_an_interpreter_reads_at_its_start_needs_one() -> None:
    assert preloaded.suits(os.environ | {"TICKPIPE_LOG_LEVEL": "info"})
    assert not preloaded.suits(os.environ | {"TZ": "Asia/Tokyo"})
    assert not preloaded.suits(os.environ | {"LD_PRELOAD": "/lib/clock.so"})
    assert not preloaded.suits({name: value for name, value in os.environ.items() if name != "PATH"})
