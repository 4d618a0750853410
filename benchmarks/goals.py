"""The stored results against the goals of each stage, as one table: `python -m benchmarks.goals`.

`make bench-goals` measures every stage first. What has no stored result is said to be not measured.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks.latency import GOAL_SHARE as LATENCY_SHARE
from benchmarks.latency import GOALS as LATENCY_GOALS
from benchmarks.memory import GOALS as MEMORY_GOALS
from benchmarks.report import RESULTS, Ratio, Report, store_text, table_of

_KAFKA_STREAMS = "Kafka Streams, tuned, in memory, updates every 200 ms"
_FRAMES = "Tickpipe, frames of 200"
_WAY, _ALONE = "Tickpipe, the whole way", "the database alone"
#: Symbols of two points of a curve.
_MANY, _FEW = "10000", "10"
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
    Goal("fold, 10,000 symbols, against tuned Kafka Streams", "peers-10000-symbols", "Tickpipe", _KAFKA_STREAMS, 1),
    Goal("replay end to end against the fold, single ticks", "replay-frames-of-1", "replay end to end", "fold", 0.8),
    Goal("… frames of 200", "replay-frames-of-200", "replay end to end", "fold", 0.8, "see [below](#replay)"),
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
            measured = _times(ratio)
            verdict = _verdict(ratio.median >= goal.least, goal.reading)
    return [goal.stage, f"{goal.least:g} ×", measured, verdict]


def _growth() -> Iterator[Row]:
    """What a benchmark of curves says of two of its points."""
    goal, measured, verdict = 0.66, _NOT_MEASURED, ""
    if points := _stored("growth-symbols").get("points"):
        ratio = Ratio.of(_each(points[_MANY], _rate), _each(points[_FEW], _rate))
        measured, verdict = _times(ratio), _verdict(ratio.median >= goal, _FOLD)
    yield [f"fold, 10,000 symbols against {_FEW}", f"{goal:g} ×", measured, verdict]

    most, measured, verdict = 12, _NOT_MEASURED, ""
    if points := _stored("recovery-outage").get("points"):
        ratio = Ratio.of(_each(points["1000"], _seconds), _each(points["100"], _seconds))
        measured, verdict = _times(ratio), _verdict(ratio.median <= most, _FOLD)
    yield ["an hour caught up: seconds at 1,000 symbols against 100", f"at most {most} ×", measured, verdict]


def _whole() -> Iterator[Row]:
    most, measured, verdict = 1.5, _NOT_MEASURED, ""
    path = RESULTS / "whole.json"
    if path.exists():
        rounds = Report.read(path).rounds
        if {_WAY, _ALONE} <= set(rounds):
            ratio = Ratio.of(_each(rounds[_WAY], _cpu), _each(rounds[_ALONE], _cpu))
            measured, verdict = _times(ratio), _verdict(ratio.median <= most)
    yield ["processor time of the whole way, against the database alone", f"at most {most:g} ×", measured, verdict]


def _each(rounds: list[dict[str, Any]], of: Callable[[dict[str, Any]], float]) -> list[float]:
    return list(map(of, rounds))


def _rate(one: dict[str, Any]) -> float:
    return float(one["work"] / one["wall_seconds"])


def _seconds(one: dict[str, Any]) -> float:
    return float(one["wall_seconds"])


def _cpu(one: dict[str, Any]) -> float:
    return float(one["cpu_seconds"] / one["work"])


def _times(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} × ({ratio.least:.2f}–{ratio.most:.2f})"


def _latency() -> Iterator[Row]:
    rounds = [one for one in _stored("latency").get("rounds", []) if one["share"] == LATENCY_SHARE]
    for stage, limit in LATENCY_GOALS.items():
        measured, verdict = _NOT_MEASURED, ""
        if rounds:
            p50, p99 = (median(one["latencies"][stage][place] for one in rounds) for place in (0, 1))
            each = [one["latencies"][stage][1] * 1e3 for one in rounds]
            spread = f" ({min(each):.0f}–{max(each):.0f})" if len(each) > 1 else ""
            measured = f"p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms{spread}"
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
    rows = [*map(_of, GOALS), *_growth(), *_whole(), *_latency(), *_memory()]
    text = "\n".join(table_of(["stage", "goal", "measured", ""], rows))
    path = store_text("goals", text)
    console = Console()
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(f"wrote {path}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
