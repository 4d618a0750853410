import pytest

from benchmarks.page import with_figures
from benchmarks.report import Report

REPORT = Report(
    name="fold", unit="ticks", at="2026-01-01T00:00:00+00:00",
    machine={"processor": "P", "cores": 2, "memory_bytes": 2**30, "system": "S", "kernel": "K"},
    load=(0.0, 0.0), versions={}, ours=["A"],
    rounds={"A": [{"work": 100, "wall_seconds": 1.0, "cpu_seconds": 0.1, "peak_bytes": 1_000_000}]},
    not_measured={}, notes=[],
)  # fmt: skip


def test_table_replaces_the_one_before_and_nothing_else() -> None:
    page = "a\n<!-- figures fold: begin -->\nstale\n<!-- figures fold: end -->\nb\n<!-- figures sink: begin -->\nkept"
    once = with_figures(page, REPORT, "fold.png")
    assert "stale" not in once
    assert once.startswith("a\n<!-- figures fold: begin -->\n| contender |")
    assert once.endswith("<!-- figures fold: end -->\nb\n<!-- figures sink: begin -->\nkept")
    assert with_figures(once, REPORT, "fold.png") == once


def test_page_without_a_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="no place for fold"):
        with_figures("a", REPORT, "fold.png")
