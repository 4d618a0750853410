"""Runs a service and records the calls of the project's own functions: `python -m tests.recorded_calls FILE SERVICE`.

Each call, and each resumption of a coroutine or generator, appends a line to the file: the time on the machine's
monotonic clock (nanoseconds), which all processes share, and the function as `module.Class.function`.
"""

import os
import runpy
import sys
import threading
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

#: The project's packages whose calls are recorded.
PACKAGES = ("marketdata", "runtime", "producer", "stream_app", "sink", "dashboard")


class Call(NamedTuple):
    """One call."""

    time_ns: int
    function: str


def read_calls(file: Path) -> list[Call]:
    """The calls that were recorded so far, in their order."""
    lines = file.read_text().splitlines(keepends=True)
    return [Call(int(line.split()[0]), line.split()[1]) for line in lines if line.endswith("\n")]


def _record(file: str) -> None:
    out = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    folders = tuple(f"{ROOT / package}{os.sep}" for package in PACKAGES)
    names: dict[CodeType, str] = {}

    def name_of(frame: FrameType) -> str:
        code = frame.f_code
        # Comprehensions, lambdas and the bodies of modules and classes are part of what surrounds them.
        if not code.co_filename.startswith(folders) or code.co_name.startswith("<"):
            return ""
        return f"{frame.f_globals['__name__']}.{code.co_qualname}"

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        if event != "call":
            return
        name = names.get(frame.f_code)
        if name is None:
            name = names[frame.f_code] = name_of(frame)
        if name:
            os.write(out, f"{time.monotonic_ns()} {name}\n".encode())

    threading.setprofile(profile)
    sys.setprofile(profile)


if __name__ == "__main__":
    _, calls_file, service = sys.argv
    _record(calls_file)
    sys.argv = [service]
    runpy.run_module(service, run_name="__main__", alter_sys=True)
