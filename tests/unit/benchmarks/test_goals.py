import json
from functools import partial
from pathlib import Path

import pytest

from benchmarks import goals, report
from benchmarks.goals import GOALS
from benchmarks.page import PAGE
from benchmarks.rounds import Measured, run_rounds

SOURCES = "".join(path.read_text() for path in Path(goals.__file__).parent.rglob("*.py") if path.name != "goals.py")


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (report, goals):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    return tmp_path


def told(results: Path) -> dict[str, tuple[str, str, str]]:
    """Goal, figure and verdict by stage."""
    goals.main()
    rows = [line.strip("| ").split(" | ") for line in (results / "goals.md").read_text().splitlines() if "×" in line]
    return {row[0]: (row[1], row[2], row[3] if len(row) > 3 else "") for row in rows}


def test_a_stage_is_held_against_its_goal(results: Path) -> None:
    # The sink: four fifths as fast as COPY, three times as fast as executemany.
    seconds = {"binary COPY": 1.0, "upsert by executemany": 3.75, "sink": 1.25}
    contenders = {name: partial(Measured, took, 1.0, 1, 100) for name, took in seconds.items()}
    run_rounds("sink", contenders, rounds=2, unit="candles")

    found = told(results)

    assert found["sink against a bare binary COPY"] == ("0.7 ×", "0.80 × (0.80–0.80)", "met")
    goal, figure, verdict = found["… against an upsert by `executemany`"]
    assert (goal, figure) == ("4 ×", "3.00 × (3.00–3.00)")
    assert verdict.startswith("not met: see [")


def test_what_was_not_measured_is_not_met(results: Path) -> None:
    assert {(figure, verdict.strip()) for _, figure, verdict in told(results).values()} == {("not measured", "")}


def test_latency_and_memory_have_goals_of_their_own(results: Path) -> None:
    rounds = [
        {"share": 0.5, "latencies": {"row": [0.012, 0.03, 0.04], "stream": [0.005, 0.014, 0.02]}},
        {"share": 0.95, "latencies": {"row": [0.5, 0.9, 1.0], "stream": [0.4, 0.8, 0.9]}},
    ]
    (results / "latency.json").write_text(json.dumps({"rounds": rounds}))
    (results / "memory.json").write_text(json.dumps({"services": {"sink": {"peak_bytes": 119_000_000}}}))

    goals.main()

    text = (results / "goals.md").read_text()
    assert "| p99 25 ms | p50 12 ms, p99 30 ms | not met: see [latency.md](latency.md) |" in text
    assert "| p99 15 ms | p50 5 ms, p99 14 ms | met |" in text
    assert "| 120 MB | 119 MB | met |" in text


def test_latency_is_the_median_of_its_rounds_and_tells_their_range(results: Path) -> None:
    rounds = [
        {"share": 0.5, "latencies": {stage: [0.01, p99, 1] for stage in ("row", "stream")}}
        for p99 in (0.09, 0.02, 0.03)
    ]
    (results / "latency.json").write_text(json.dumps({"rounds": rounds}))

    goals.main()

    assert "| p50 10 ms, p99 30 ms (20–90) | not met" in (results / "goals.md").read_text()


def test_curves_and_the_whole_way_have_goals_of_their_own(results: Path) -> None:
    def points(**seconds: float) -> str:
        each = {x.strip("_"): [{"work": 100, "wall_seconds": took, "cpu_seconds": took}] for x, took in seconds.items()}
        return json.dumps({"points": each})

    (results / "growth-symbols.json").write_text(points(_10=1.0, _10000=2.0))
    (results / "recovery-outage.json").write_text(points(_100=2.0, _1000=22.0))
    run_rounds(
        "whole",
        {
            "the database alone": partial(Measured, 1.0, 2.0, 1, 100),
            "Tickpipe, the whole way": partial(Measured, 1.0, 4.0, 1, 100),
        },
        rounds=2, unit="ticks",
    )  # fmt: skip

    found = told(results)

    goal, figure, verdict = found["fold, 10,000 symbols against 10"]
    assert (goal, figure) == ("0.66 ×", "0.50 × (0.50–0.50)")
    assert verdict.startswith("not met: see [")
    caught_up = found["an hour caught up: seconds at 1,000 symbols against 100"]
    assert caught_up == ("at most 12 ×", "11.00 × (11.00–11.00)", "met")
    whole = found["processor time of the whole way, against the database alone"]
    assert whole == ("at most 1.5 ×", "2.00 × (2.00–2.00)", "not met")


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.stage)
def test_every_goal_names_contenders_that_there_are(goal: goals.Goal) -> None:
    assert f'"{goal.ours}"' in SOURCES
    # The interval of updates is an option of the benchmark.
    assert f'"{goal.other}"' in SOURCES.replace("{interval_ms} ms", "200 ms")
    assert f"<!-- figures {goal.result}: begin -->" in PAGE.read_text()
