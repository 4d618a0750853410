"""A clock that a test sets for a process of its own: what the process takes for the PC's time, while it runs."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

from tests import tools
from tests.waiting import PATIENCE_SECONDS


class FakedClock:
    """libfaketime in front of a process; time goes on from wherever it was set. Linux on x86-64 only."""

    def __init__(self, directory: Path) -> None:
        found = importlib.util.find_spec("libfaketime")
        if found is None or found.origin is None:
            tools.unavailable("libfaketime", "is installed on Linux only")
        self._library = Path(found.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
        self._file = directory / "clock"
        self.set("+30d")
        self._assert_it_works()
        self.set("+0")

    def _assert_it_works(self) -> None:
        said = subprocess.run(
            [sys.executable, "-IS", "-c", "import time; print(time.time())"],
            env=self.environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
        if said.returncode or float(said.stdout) < time.time() + 86_400:
            tools.unavailable("libfaketime", f"moves no clock here: {said.stderr.strip() or said.stdout.strip()}")

    def set(self, offset: str) -> None:
        """Put the clock forward or back, for example `+30d` or `-90m`; each is counted from the real time."""
        # Renamed, so that no half-written file is read.
        written = self._file.with_suffix(".new")
        written.write_text(f"{offset}\n")
        written.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the process."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # The file is read once a second: at every look it would cost more than all the rest.
            "FAKETIME_CACHE_DURATION": "1",
            # A clock that is put right does not move the monotonic one either.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
