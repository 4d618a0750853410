"""Which test file costs how much processor time, and in which programs: `pytest --cpu-report FILE`.

What pytest itself uses is exact. The processes that tests start are sampled from /proc and are put down to the test in
their `PYTEST_CURRENT_TEST`, or in that of their parent; what ends between two samples is "brief", the rest of what the
system says of the children that ended while the file ran, whichever file had started them. The servers of the run serve
every file and are named for themselves.
"""

import os
import threading
import time
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import preloaded
from tests.guardian import RUNS_VARIABLE

_INTERVAL_SECONDS = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")
_NO_FILE = "(the whole run)"
_TEST = b"PYTEST_CURRENT_TEST="
#: What xdist has its workers run; each counts for itself.
_WORKER = "import sys;exec(eval(sys.stdin.readline()))"
#: The process that forks others for a pytest process, which counts what those have used.
_FORKER = f"python -m {preloaded.__name__}"
#: Programs by what their command line holds; the first that fits names the process.
_PROGRAMS = {
    "java": "java", "postgres": "postgres", "pg_ctl": "postgres", "initdb": "postgres", "chrom": "chromium",
    "playwright": "playwright", "pglite": "pglite", "cc1plus": "c++", "g++": "c++",
}  # fmt: skip

#: Seconds by (file, program). `ENDED` is what the system says of the children that ended while the file ran, `SAMPLED`
#: what of it other entries hold already.
Costs = defaultdict[tuple[str, str], float]
ENDED, SAMPLED = "ended", "sampled"
#: Since when (of the monotonic clock) which file ran, in order of time.
Began = list[tuple[float, str]]


class OwnTime:
    """What this pytest process and its ended children have used, by the file of the test that ran."""

    def __init__(self) -> None:
        self.costs: Costs = defaultdict(float)
        self.began: Began = []
        self._file = _NO_FILE
        self._last_own = self._last_ended = 0.0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if (file := nodeid.partition("::")[0]) != self._file:
            self.note()
            self._file = file
            self.began.append((time.monotonic(), file))

    def note(self) -> None:
        """Put what was used since the last time down to the file that ran."""
        now = os.times()
        own = now.user + now.system
        ended = now.children_user + now.children_system + preloaded.Forked.used_seconds
        self.costs[self._file, "pytest"] += own - self._last_own
        self.costs[self._file, ENDED] += ended - self._last_ended
        self._last_own, self._last_ended = own, ended

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.note()
        if (output := getattr(session.config, "workeroutput", None)) is not None:
            output["cpu"] = [(*key, seconds) for key, seconds in self.costs.items()]
            output["cpu_began"] = (os.getpid(), self.began)


@dataclass
class Seen:
    """A process as it was last seen."""

    file: str
    program: str
    seconds: float = 0.0
    at: float = 0.0
    #: The child of a pytest process that it is or that it is below of, and that process. Whoever left that family, as
    #: daemons do, has neither: nothing that ends adds its time to the children of pytest.
    child: "Seen | None" = None
    tester: int = 0


@dataclass
class Sampler:
    """Watches all processes below this run, as the guardian tells them."""

    run: str
    _seen: dict[tuple[int, str], Seen] = field(default_factory=dict)
    _pids: dict[int, Seen] = field(default_factory=dict)
    _foreign: set[int] = field(default_factory=set)
    _done: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._watch, name="cpu-report", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()
        self.sample()

    def costs(self, began: Mapping[int, Began]) -> Costs:
        """What was used, without pytest's processes, which count for themselves; `began` is by their number."""
        costs: Costs = defaultdict(float)
        alive = {id(one) for one in self._pids.values()}
        for one in self._seen.values():
            if one.program == "worker":
                continue
            costs[one.file, one.program] += one.seconds
            if one.child and id(one.child) not in alive and (files := began.get(one.tester)):
                last = bisect(files, one.child.at, key=lambda entry: entry[0]) - 1
                costs[files[last][1] if last >= 0 else _NO_FILE, SAMPLED] += one.seconds
        return costs

    def _watch(self) -> None:
        while not self._done.wait(_INTERVAL_SECONDS):
            self.sample()

    def sample(self) -> None:
        """Look at every process; one that is not ours is looked at once."""
        alive: dict[int, Seen] = {}
        parents: dict[int, int] = {}
        pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
        self._foreign.intersection_update(pids)
        for pid in pids:
            if pid in self._foreign:
                continue
            try:
                words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
                key = (pid, words[19])
                seen = self._seen.get(key) or self._look(pid, int(words[1]))
            except (OSError, ValueError):
                continue  # gone meanwhile, or another user's
            if seen is None:
                self._foreign.add(pid)
                continue
            self._seen[key] = alive[pid] = seen
            parents[pid] = int(words[1])
            seen.at = time.monotonic()
            seen.seconds = (int(words[11]) + int(words[12])) / _TICKS
        self.place(alive, parents)
        self._pids = alive

    def place(self, alive: Mapping[int, Seen], parents: Mapping[int, int]) -> None:
        """Note whose children they are now: parents first, whose numbers are larger once the numbers began again."""
        waiting = set(alive)

        def place(pid: int) -> None:
            if pid in waiting:
                waiting.remove(pid)
                place(parents[pid])
                self._place(alive[pid], parents[pid], alive)

        for pid in alive:
            place(pid)

    def _place(self, seen: Seen, parent: int, alive: Mapping[int, Seen]) -> None:
        """Note whose child it is now."""
        above = alive.get(parent)
        if seen.program == _FORKER:
            seen.child, seen.tester = None, parent
        elif above and above.program == _FORKER:
            seen.child, seen.tester = seen, above.tester
        elif parent == os.getpid() or (above and above.program == "worker"):
            seen.child, seen.tester = seen, parent
        else:
            seen.child, seen.tester = (above.child, above.tester) if above else (None, 0)

    def _look(self, pid: int, parent: int) -> Seen | None:
        folder = Path(f"/proc/{pid}")
        surroundings = (folder / "environ").read_bytes().split(b"\0")
        above = self._pids.get(parent)
        ours = any(one.startswith(RUNS_VARIABLE.encode()) and self.run.encode() in one for one in surroundings)
        if pid == os.getpid() or not (ours or above):
            return None
        words = (folder / "cmdline").read_text(errors="replace").split("\0")
        test = next((one for one in surroundings if one.startswith(_TEST)), b"").decode(errors="replace")
        file = test.partition("=")[2].partition("::")[0] or (above.file if above else _NO_FILE)
        return Seen(file, program(words, above.program if above else ""))


def program(words: list[str], parent: str = "") -> str:
    """What to call the process of a command line; a script's name and a module's tell more than `python`."""
    command = Path(words[0].partition(" ")[0].rstrip(":")).name
    if _WORKER in words:
        return "worker"
    for part, name in _PROGRAMS.items():
        if part in command or part in Path(words[1] if len(words) > 1 else "").name:
            return name
    if command.startswith("python") and "-m" in words:
        module, argument, *_ = *words[words.index("-m") + 1 :], "", ""
        return f"python -m {module} {argument if argument.isalpha() else ''}".rstrip()
    if command.startswith("python"):
        return next((f"python {Path(word).name}" for word in words[1:] if word.endswith(".py")), "python -c")
    return command or parent


class Report:
    """The report of the whole run, written by the process that started it."""

    def __init__(self, path: Path, own: OwnTime, sampler: Sampler, *, has_workers: bool) -> None:
        self._path = path
        self._has_workers = has_workers
        self._own = own
        self._sampler = sampler
        self._costs: Costs = defaultdict(float)
        self._began: dict[int, Began] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        output = getattr(node, "workeroutput", {})
        for file, program, seconds in output.get("cpu", []):
            self._costs[file, program] += seconds
        if began := output.get("cpu_began"):
            self._began[began[0]] = began[1]

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        self._own.note()
        costs = self._costs
        for (file, program), seconds in self._own.costs.items():
            if not self._has_workers:
                costs[file, program] += seconds
            elif program == "pytest":  # it runs no test itself, and its children are the workers
                costs[_NO_FILE, program] += seconds
        if not self._has_workers:
            self._began[os.getpid()] = self._own.began
        self._sampler.stop()
        for key, seconds in self._sampler.costs(self._began).items():
            costs[key] += seconds
        self._path.write_text("\n".join(lines(costs)) + "\n")


def lines(costs: Mapping[tuple[str, str], float]) -> Iterator[str]:
    """Both tables: seconds by program, and by file with its programs, the dearest first."""
    files: dict[str, dict[str, float]] = {}
    for (file, program), seconds in costs.items():
        of_file = files.setdefault(file, defaultdict(float))
        of_file[program] += seconds
    # One file's time may end in another, which was not sampled there: the files share the rest of the whole run.
    rests = {file: of_file.pop(ENDED, 0.0) - of_file.pop(SAMPLED, 0.0) for file, of_file in files.items()}
    beyond = sum(max(0.0, rest) for rest in rests.values())
    share = max(0.0, sum(rests.values())) / beyond if beyond else 0.0
    programs: dict[str, float] = defaultdict(float)
    for file, of_file in files.items():
        of_file["brief"] = max(0.0, rests[file]) * share
        for program, seconds in of_file.items():
            programs[program] += seconds
    yield f"{sum(programs.values()):8.1f} s in all"
    yield from (f"{seconds:8.1f} s  {program}" for program, seconds in _dearest(programs) if seconds >= 0.05)
    yield ""
    for file, of_file in sorted(files.items(), key=lambda item: -sum(item[1].values())):
        parts = (f"{program} {seconds:.1f}" for program, seconds in _dearest(of_file) if seconds >= 0.05)
        yield f"{sum(of_file.values()):8.1f} s  {file}: {', '.join(parts)}"


def _dearest(seconds: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(seconds.items(), key=lambda item: -item[1])


def start(config: pytest.Config, run: str) -> None:
    """Begin to count, when the run is asked for a report."""
    if not (path := config.getoption("cpu_report")):
        return
    own = OwnTime()
    config.pluginmanager.register(own)
    if not hasattr(config, "workerinput"):
        sampler = Sampler(run)
        sampler.start()
        has_workers = config.getoption("dist", default="no") != "no"
        config.pluginmanager.register(Report(Path(path).absolute(), own, sampler, has_workers=has_workers))
