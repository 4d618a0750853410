"""What a figure depends on: the machine, what else it does and the versions."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Machine:
    """The machine that a benchmark ran on."""

    processor: str
    cores: int
    memory_bytes: int
    system: str
    kernel: str

    def __str__(self) -> str:
        """One line for people."""
        memory = f"{self.memory_bytes / 2**30:.0f} GiB"
        return f"{self.cores} cores of {self.processor}, {memory}, {self.system}, kernel {self.kernel}"


def this_machine() -> Machine:
    """Processor, cores that this process may use, memory, system and kernel."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        system=_system(),
        kernel=".".join(platform.release().split(".")[:2]),
    )


def busy_cores() -> float:
    """How many cores work at the moment, looked at for half a second.

    The load average would still tell of whatever ended within the last minute, such as another benchmark.
    """
    return float(sum(psutil.cpu_percent(interval=0.5, percpu=True))) / 100


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Version of Python and of each installed package."""
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()
