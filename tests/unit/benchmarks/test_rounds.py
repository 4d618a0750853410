import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks import report
from benchmarks.report import Report, markdown
from benchmarks.rounds import Contender, Measured, NotMeasured, cpu_seconds, peak_bytes, run_rounds


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def taking(name: str, seconds: list[float], order: list[str], *, startup_seconds: float | None = None) -> Contender:
    """A contender that says it took so long for 100 ticks; the first is the warm-up."""
    left: Iterator[float] = iter(seconds)

    def run() -> Measured:
        order.append(name)
        return Measured(next(left), 0.5, 20_000_000, 100, startup_seconds)

    return run


def test_contenders_run_in_turn_and_the_warm_up_does_not_count() -> None:
    order: list[str] = []
    found = run_rounds(
        "both", {"A": taking("A", [9, 1, 1], order), "B": taking("B", [9, 2, 2], order)}, rounds=2, unit="ticks"
    )
    assert order == ["A", "B"] * 3
    assert found.figures["A"].rates == [100, 100]
    assert found.figures["B"].rates == [50, 50]


def test_ratios_are_of_the_same_round() -> None:
    # Ours is twice as fast in every round, whatever the machine does meanwhile.
    contenders = {"theirs": taking("t", [9, 2, 20, 4], []), "ours": taking("o", [9, 1, 10, 2], [])}
    ratio = run_rounds("pairs", contenders, rounds=3, unit="ticks").ratio("ours", "theirs")
    assert (ratio.median, ratio.least, ratio.most) == (2, 2, 2)


def test_contender_that_cannot_run_leaves_the_table_with_its_reason(results: Path) -> None:
    def absent() -> Measured:
        raise NotMeasured("there is no wheel for this Python")

    found = run_rounds("absent", {"A": taking("A", [1, 1], []), "gone": absent}, rounds=1, unit="ticks", ours=["A"])
    assert list(found.rounds) == ["A"]
    assert "Not measured: gone (there is no wheel for this Python)." in (results / "absent.md").read_text()


def test_result_is_stored_as_json_markdown_and_plot(results: Path) -> None:
    contenders = {"theirs": taking("t", [9, 4], []), "ours": taking("o", [9, 1], [], startup_seconds=1)}
    stored = run_rounds(
        "all", contenders, rounds=1, unit="ticks", versions={"theirs": "1.2"}, notes=["Ours counts seven."]
    )
    assert Report.read(results / "all.json") == stored
    assert json.loads((results / "all.json").read_text())["machine"]["cores"] > 0
    page = (results / "all.md").read_text()
    # 100 ticks in 1 s, in 2 s with the start; 0.5 s of processor time for 100 are 5,000 s for a million.
    assert "| ours | 100 | 100 | 100 | 50 | 0.50 | 5000.00 | 20 | – |" in page
    assert "| theirs | 25 | 25 | 25 | – | 0.50 | 5000.00 | 20 | 4.00 (4.00–4.00) |" in page
    assert "theirs 1.2" in page
    assert "Ours counts seven." in page
    assert (results / "all.png").stat().st_size > 1_000


def test_page_says_when_others_used_the_machine() -> None:
    quiet = run_rounds("quiet", {"A": taking("A", [1, 1], [])}, rounds=1, unit="ticks")
    cores = quiet.machine["cores"]
    busy, idle = (Report(**{**vars(quiet), "busy_cores": busy}) for busy in (0.6 * cores, 0.4 * cores))
    assert "Other work ran on the machine" in markdown(busy, "p.png")
    assert "Other work ran on the machine" not in markdown(idle, "p.png")


def test_children_count_unless_the_process_is_measured_alone() -> None:
    # The child has ended and been waited for; the grandchild's time comes with it.
    child = "import time\nwhile time.process_time() < 0.2: pass"
    parent = f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {child!r}])\nprint()\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            watched = psutil.Process(process.pid)
            assert cpu_seconds(watched) - cpu_seconds(watched, alone=True) >= 0.15
        finally:
            process.kill()


def test_peak_is_the_largest_not_the_last() -> None:
    code = "import sys\nx = bytearray(80_000_000)\ndel x\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            watched = psutil.Process(process.pid)
            if not Path(f"/proc/{process.pid}/status").exists():
                pytest.skip("only /proc keeps the peak")
            assert peak_bytes(watched) > 80_000_000
            assert watched.memory_info().rss < 80_000_000
        finally:
            process.kill()
