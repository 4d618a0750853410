"""What each fault case measured, as JSON lines; `python -m tests.faults.record` makes the table of docs/reliability.md.

`TICKPIPE_FAULT_REPORT` names the file that the cases append to.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass(frozen=True)
class Figures:
    """One case. Times are seconds."""

    case: str
    rounds: int
    ticks: int
    unknown: int
    lost: int
    doubled: int
    candles: int
    #: The longest time in which the table showed nothing newer although ticks were sent; None when nobody watched.
    standstill: float | None
    #: From the end of the flow until lag 0 and the whole table equal to the oracle's fold.
    settled: float
    seed: int
    #: Exit codes of processes that ended by themselves.
    ended: list[str]


def write(figures: Figures) -> None:
    """Append to the file that `TICKPIPE_FAULT_REPORT` names, if it does, and print."""
    line = json.dumps(asdict(figures))
    print(line)
    if path := os.environ.get("TICKPIPE_FAULT_REPORT"):
        with Path(path).open("a") as file:
            file.write(line + "\n")


def rows(lines: list[str]) -> str:
    """The Markdown table; of a case that ran several times the sum of rounds and ticks, and the longest times."""
    cases: dict[str, list[Figures]] = {}
    for line in lines:
        figures = Figures(**json.loads(line))
        cases.setdefault(figures.case, []).append(figures)
    text = [
        "| case | faults | ticks sent | lost | doubled | longest standstill | settled after |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case, runs in cases.items():
        standstills = [run.standstill for run in runs if run.standstill is not None]
        text.append(
            f"| {case} | {sum(run.rounds for run in runs)} | {sum(run.ticks for run in runs):,} "
            f"| {sum(run.lost for run in runs)} | {sum(run.doubled for run in runs)} "
            f"| {f'{max(standstills):.1f} s' if standstills else '–'} | {max(run.settled for run in runs):.1f} s |"
        )
    return "\n".join(text)


def main() -> None:
    """Put the table of the given file of JSON lines into docs/reliability.md."""
    table = rows(Path(sys.argv[1]).read_text().splitlines())
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
