"""What each fault case measured, as JSON lines; `python -m tests.faults.record` makes the tables of the page.

`TICKPIPE_FAULT_REPORT` names the file that the cases append to. Figures of bad nights of full length are stored in
docs/nights.jsonl.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

#: Bad nights, one a line, beside the page.
NIGHTS = PAGE.parent / "nights.jsonl"

#: What `make soak` found, beside the page.
SOAK = PAGE.parent / "soak.json"

#: What `make bench-flood` found, beside the page.
FLOOD = PAGE.parent / "flood.json"


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
    #: Candles that the log proves and the table does not have at all.
    missing_rows: int = 0


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


def night_rows(lines: list[str]) -> str:
    """The Markdown table of bad nights, one a row and their sum."""
    nights = sorted((Figures(**json.loads(line)) for line in lines), key=lambda night: night.seed)
    text = [
        "| seed | kills and misfortunes | ticks sent | lost | doubled | rows missing | settled after |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    text += [
        f"| {night.seed} | {night.rounds} | {night.ticks:,} | {night.lost} | {night.doubled} | {night.missing_rows} "
        f"| {night.settled:.1f} s |"
        for night in nights
    ]
    sums = [sum(getattr(night, name) for night in nights) for name in ("rounds", "ticks", "lost", "doubled")]
    missing, settled = sum(night.missing_rows for night in nights), max(night.settled for night in nights)
    rounds, ticks, lost, doubled = sums
    text.append(f"| {len(nights)} nights | {rounds} | {ticks:,} | {lost} | {doubled} | {missing} | {settled:.1f} s |")
    return "\n".join(text)


def soak_text(found: dict[str, Any]) -> str:
    """What a soak found, in Markdown."""
    text = [
        f"{found['minutes']:g} minutes, {found['faults']} faults, {found['ticks']:,} ticks, none lost, none "
        f"doubled (seed {found['seed']}):",
        "",
        "| process | most memory | last third against middle third | descriptors, the same |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, growth in found["memory"].items():
        descriptors = found["descriptors"][name]
        text.append(f"| {name} | {found['most_memory_mb'][name]} MB | {growth:+.1%} | {descriptors:+.1%} |")
    return "\n".join([*text, "", "![memory, descriptors and lag over time](soak.png)"])


def flood_text(found: dict[str, Any]) -> str:
    """What one sender noticed of floods, in Markdown."""
    text = [
        f"{found['machine']}, at a load of {found['load']}:",
        "",
        "| beside | writes of the flood | requests | refused | median | 99 of 100 within | longest | memory |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    text += [
        f"| {one['flood']} | {one['pieces']:,} | {one['requests']:,} | {one['refused']} | {one['p50_ms']} ms "
        f"| {one['p99_ms']} ms | {one['longest_ms']} ms | {one['memory_mb']} MB |"
        for one in found["floods"]
    ]
    return "\n".join(text)


def with_stored(page: str) -> str:
    """The page with what is stored beside it."""
    page = _replaced(page, "nights", night_rows(NIGHTS.read_text().splitlines()))
    flood = flood_text(json.loads(FLOOD.read_text())) if FLOOD.exists() else "No figures are stored yet."
    page = _replaced(page, "flood", flood)
    return _replaced(page, "soak", soak_text(json.loads(SOAK.read_text())))


def main() -> None:
    """Put the table of the given file of JSON lines, if one is given, and what is stored into docs/reliability.md."""
    page = PAGE.read_text()
    if len(sys.argv) > 1:
        page = _replaced(page, "figures", rows(Path(sys.argv[1]).read_text().splitlines()))
    PAGE.write_text(with_stored(page))


def _replaced(page: str, part: str, text: str) -> str:
    before, rest = page.split(f"<!-- {part}: begin -->")
    _, after = rest.split(f"<!-- {part}: end -->")
    return f"{before}<!-- {part}: begin -->\n{text}\n<!-- {part}: end -->{after}"


if __name__ == "__main__":
    main()
