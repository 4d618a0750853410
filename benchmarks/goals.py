"""The stored results against the goals of each stage, as one table: `python -m benchmarks.goals`.

`make bench-goals` measures every stage first. What has no stored result is said to be not measured.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks.latency import GOAL_SHARE as LATENCY_SHARE
from benchmarks.latency import GOALS as LATENCY_GOALS
from benchmarks.memory import GOALS as MEMORY_GOALS
from benchmarks.report import RESULTS, Report, store_text, table_of

_KAFKA_STREAMS = "Kafka Streams, tuned, in memory, updates every 200 ms"
_FRAMES = "Tickpipe, frames of 200"
_FOLD, _SINK = (
    "see [performance-fold.md](performance-fold.md)",
    "see [performance-sink-http.md](performance-sink-http.md)",
)


@dataclass(frozen=True)
class Goal:
    """One contender is to be so many times as fast as another of the same result."""

    stage: str
    result: str
    ours: str
    other: str
    least: float
    #: Where to read on when it is not met.
    reading: str = ""


GOALS = (
    Goal("fold, single ticks, against tuned Kafka Streams", "peers", "Tickpipe", _KAFKA_STREAMS, 2, _FOLD),
    Goal("… against reading alone", "fold-frames-of-1", "fold", "reading alone", 0.7, _FOLD),
    Goal("… frames of 200", "fold-frames-of-200", "fold", "reading alone", 0.35, _FOLD),
    Goal("fold, frames of 200, against the same on single ticks", "peers", _FRAMES, _KAFKA_STREAMS, 12, _FOLD),
    Goal("replay end to end against the fold, single ticks", "replay-frames-of-1", "replay end to end", "fold", 0.8),
    Goal("… frames of 200", "replay-frames-of-200", "replay end to end", "fold", 0.8),
    Goal("refold against the fold, single ticks", "refold-frames-of-1", "refold", "fold", 0.8, _FOLD),
    Goal("… frames of 200", "refold-frames-of-200", "refold", "fold", 0.8, _FOLD),
    Goal(
        "one tick a request, against a route that does nothing", "ingest-one", "one tick a request",
        "an empty FastAPI route", 0.7, _SINK,
    ),
    Goal(
        "200 ticks a request, against the same bodies unparsed", "ingest-bodies", "bodies of 200 ticks",
        "the same bodies unparsed", 0.75, _SINK,
    ),
    Goal("sink against a bare binary COPY", "sink", "sink", "binary COPY", 0.7, _SINK),
    Goal("… against an upsert by `executemany`", "sink", "sink", "upsert by executemany", 4, _SINK),
)  # fmt: skip

_NOT_MEASURED = "not measured"

Row = list[str]


def _of(goal: Goal) -> Row:
    path = RESULTS / f"{goal.result}.json"
    measured, verdict = _NOT_MEASURED, ""
    if path.exists():
        report = Report.read(path)
        if {goal.ours, goal.other} <= set(report.rounds):
            ratio = report.ratio(goal.ours, goal.other)
            measured = f"{ratio.median:.2f} × ({ratio.least:.2f}–{ratio.most:.2f})"
            verdict = _verdict(ratio.median >= goal.least, goal.reading)
    return [goal.stage, f"{goal.least:g} ×", measured, verdict]


def _latency() -> Iterator[Row]:
    rounds = [one for one in _stored("latency").get("rounds", []) if one["share"] == LATENCY_SHARE]
    for stage, limit in LATENCY_GOALS.items():
        measured, verdict = _NOT_MEASURED, ""
        if rounds:
            p50, p99 = (median(one["latencies"][stage][place] for one in rounds) for place in (0, 1))
            measured = f"p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms"
            verdict = _verdict(p99 <= limit, "see [latency.md](latency.md)")
        where = {"row": "row visible", "stream": "event of `/stream`"}[stage]
        yield [f"tick posted → {where}, at half load", f"p99 {limit * 1e3:.0f} ms", measured, verdict]


def _memory() -> Iterator[Row]:
    services = _stored("memory").get("services", {})
    for name, limit_bytes in MEMORY_GOALS.items():
        measured, verdict = _NOT_MEASURED, ""
        if name in services:
            peak = services[name]["peak_bytes"]
            measured, verdict = f"{peak / 1e6:.0f} MB", _verdict(peak <= limit_bytes)
        yield [f"memory at 5,000 ticks/s of 1,000 symbols: {name}", f"{limit_bytes / 1e6:.0f} MB", measured, verdict]


def _stored(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    stored: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return stored


def _verdict(is_met: bool, reading: str = "") -> str:
    return "met" if is_met else ": ".join(filter(None, ("not met", reading)))


def main() -> None:
    """Print and store."""
    rows = [*map(_of, GOALS), *_latency(), *_memory()]
    text = "\n".join(table_of(["stage", "goal", "measured", ""], rows))
    path = store_text("goals", text)
    console = Console()
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(f"wrote {path}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
