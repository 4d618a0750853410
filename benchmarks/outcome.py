"""Results that are no rounds of contenders: printed, and stored as Markdown and JSON with where they come from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Self

from rich.console import Console

from benchmarks.machine import busy_cores, this_machine, versions_of
from benchmarks.report import RESULTS, store_text, where
from benchmarks.rounds import PACKAGES


@dataclass(frozen=True)
class Beginning:
    """When a benchmark began, and how many cores were busy then."""

    at: str
    busy_cores: float

    @classmethod
    def now(cls) -> Self:
        """This moment."""
        return cls(datetime.now(UTC).isoformat(timespec="seconds"), busy_cores())

    def store(self, name: str, lines: Sequence[str], figures: Mapping[str, Any], *, after: Sequence[str] = ()) -> None:
        """Print the lines, what they depend on and what stands `after` that; write them and the figures."""
        machine, versions = this_machine(), versions_of(PACKAGES)
        text = "\n".join([*lines, *where(self.at, machine, self.busy_cores, versions), *after])
        path = store_text(name, text)
        stored = {"name": name, **asdict(self), "machine": asdict(machine), "versions": versions, **figures}
        (RESULTS / f"{name}.json").write_text(json.dumps(stored, indent=2) + "\n")
        console = Console()
        console.print(text, markup=False, highlight=False)
        console.print(f"wrote {path}", markup=False, highlight=False)
