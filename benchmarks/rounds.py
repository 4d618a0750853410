"""Contenders in turn, A B A B, and their figures: medians, spread, ratios pair by pair."""

import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Measured:
    """One round of one contender."""

    #: From the first piece of work to the last (seconds).
    wall_seconds: float
    #: User and system time of the contender's process in that span (seconds).
    cpu_seconds: float
    #: Largest resident set of the contender's process (bytes).
    peak_bytes: int
    #: Pieces of work, such as ticks.
    work: int

    @property
    def rate(self) -> float:
        """Pieces of work a second."""
        return self.work / self.wall_seconds


Contender = Callable[[], Measured]


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process so far (seconds)."""
    times = process.cpu_times()
    return float(times.user + times.system)


def run_rounds(name: str, contenders: Mapping[str, Contender], *, rounds: int, unit: str) -> None:
    """Run every contender once to warm up and then `rounds` times in turn; print and store what was measured.

    The first contender is the one that the others are compared with.
    """
    console = Console()
    measured: dict[str, list[Measured]] = {contender: [] for contender in contenders}
    for number in range(rounds + 1):
        for contender, run in contenders.items():
            one = run()
            warm_up = number == 0
            console.print(f"{'warm-up' if warm_up else f'round {number}'}  {contender}: {one.rate:,.0f} {unit}/s")
            if not warm_up:
                measured[contender].append(one)
    base = next(iter(measured))
    table = Table("contender", f"{unit}/s median", "min", "max", "CPU s", "peak MB", f"ratio to {base}", title=name)
    for contender, all_rounds in measured.items():
        rates = sorted(one.rate for one in all_rounds)
        ratios = [one.rate / other.rate for one, other in zip(all_rounds, measured[base], strict=True)]
        table.add_row(
            contender, f"{median(rates):,.0f}", f"{rates[0]:,.0f}", f"{rates[-1]:,.0f}",
            f"{median(one.cpu_seconds for one in all_rounds):.2f}",
            f"{max(one.peak_bytes for one in all_rounds) / 1e6:.0f}", f"{median(ratios):.2f}",
        )  # fmt: skip
    console.print(table)
    RESULTS.mkdir(exist_ok=True)
    stored = {
        "name": name,
        "unit": unit,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {p: version(p) for p in ("aiokafka", "faust-streaming", "msgspec")}
        | {"python": platform.python_version()},
        "rounds": {contender: [asdict(one) for one in all_rounds] for contender, all_rounds in measured.items()},
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(stored, indent=2) + "\n")
