"""Contenders in turn, A B A B: what each round measured, and the ratios pair by pair.

Every benchmark ends in `run_rounds`, so that all of them print, store and plot the same things.
"""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console

from benchmarks.machine import Machine, busy_cores, this_machine, versions_of
from benchmarks.report import Report, console_table, store

#: Installed packages that every result names, beside Python; a benchmark may name more.
PACKAGES = ("aiokafka", "faust-streaming", "msgspec", "numpy", "pysimdjson")

#: Least width of the table (characters).
TABLE_WIDTH = 180


@dataclass(frozen=True)
class Measured:
    """One round of one contender."""

    #: From the first piece of work to the last (seconds).
    wall_seconds: float
    #: User and system time of the contender's processes in that span (seconds).
    cpu_seconds: float
    #: Largest resident set of the contender's processes (bytes).
    peak_bytes: int
    #: Pieces of work, such as ticks.
    work: int
    #: From the start of the process to the first piece of work (seconds); None when nothing was started.
    startup_seconds: float | None = None

    @property
    def rate(self) -> float:
        """Pieces of work a second."""
        return self.work / self.wall_seconds


def measured_child(
    command: Sequence[str], work: int, *, env: Mapping[str, str] | None = None
) -> tuple[Measured, list[str]]:
    """What a process of its own has measured and printed: wall seconds, CPU seconds and peak bytes; and what follows.

    Raises:
        CalledProcessError: when it failed.
    """
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)  # noqa: S603 - our own
    wall, cpu, peak, *rest = done.stdout.split()
    return Measured(float(wall), float(cpu), int(peak), work), rest


class NotMeasured(Exception):
    """A contender cannot take part on this machine, or does other work than the rest; the message says why.

    Raised by a contender, it leaves the table with that reason, and the other contenders go on.
    """


Contender = Callable[[], Measured]


def cpu_seconds(process: psutil.Process, *, alone: bool = False) -> float:
    """User and system time so far of a process and its descendants, the ended ones included (seconds).

    `alone` leaves the descendants out: for a contender inside the benchmark's own process, whose children are servers.
    """
    total = 0.0
    for one in _family(process, alone):
        # A child that ended between the listing and the look is in its parent's next figures.
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system + (0 if alone else times.children_user + times.children_system)
    return total


def peak_bytes(process: psutil.Process, *, alone: bool = False) -> int:
    """Largest resident set so far of a process, plus that of each living descendant unless `alone` (bytes).

    Where there is no /proc it is the resident set of this moment.
    """
    return sum(_peak_of(one) for one in _family(process, alone))


def _family(process: psutil.Process, alone: bool) -> list[psutil.Process]:
    return [process] if alone else [process, *process.children(recursive=True)]


def _peak_of(process: psutil.Process) -> int:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        with suppress(psutil.NoSuchProcess):
            return int(process.memory_info().rss)
        return 0
    # A zombie has no such line.
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def run_rounds(
    name: str,
    contenders: Mapping[str, Contender],
    *,
    rounds: int,
    unit: str,
    ours: Sequence[str] = (),
    packages: Sequence[str] = PACKAGES,
    versions: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """Run every contender once to warm up and then `rounds` times in turn; print and store what was measured.

    Args:
        name: of the files in `benchmarks/results`.
        contenders: each a function that runs one round. They run in this order.
        rounds: that count.
        unit: what `Measured.work` counts, in the plural.
        ours: the contenders that all others are compared with; by default the last.
        packages: installed packages whose versions the result names.
        versions: of what is not installed as a package here, by name.
        notes: sentences that stand under the table.
    """
    console = Console()
    machine: Machine = this_machine()
    busy = busy_cores()
    measured: dict[str, list[Measured]] = {contender: [] for contender in contenders}
    not_measured: dict[str, str] = {}
    for number in range(rounds + 1):
        for contender, run in contenders.items():
            if contender in not_measured:
                continue
            label = f"round {number}" if number else "warm-up"
            try:
                one = run()
            except NotMeasured as exc:
                not_measured[contender] = str(exc)
                console.print(f"{label}  {contender}: not measured: {exc}", markup=False)
                continue
            console.print(f"{label}  {contender}: {one.rate:,.0f} {unit}/s", markup=False, highlight=False)
            if number:
                measured[contender].append(one)
    report = Report.of(
        name, unit,
        rounds={one: found for one, found in measured.items() if one not in not_measured},
        ours=[one for one in ours or list(contenders)[-1:] if one not in not_measured],
        not_measured=not_measured,
        machine=machine,
        busy_cores=busy,
        versions=versions_of(packages) | dict(versions or {}),
        notes=list(notes),
    )  # fmt: skip
    # Names and ratios in one line each, also where the output is no terminal.
    Console(width=max(console.width, TABLE_WIDTH)).print(console_table(report))
    for path in store(report):
        console.print(f"wrote {path}", markup=False, highlight=False)
    return report
