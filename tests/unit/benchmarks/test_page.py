import re

import pytest

from benchmarks.page import PAGE, with_figures

TEXT = "| contender |\n\n![fold: rate](fold.png)"


def test_text_replaces_the_one_before_and_nothing_else() -> None:
    page = "a\n<!-- figures fold: begin -->\nstale\n<!-- figures fold: end -->\nb\n<!-- figures sink: begin -->\nkept"
    once = with_figures(page, "fold", TEXT)
    assert "stale" not in once
    assert once.startswith("a\n<!-- figures fold: begin -->\n| contender |")
    assert "![fold: rate](images/performance-fold.png)" in once
    assert once.endswith("<!-- figures fold: end -->\nb\n<!-- figures sink: begin -->\nkept")
    assert with_figures(once, "fold", TEXT) == once


def test_page_without_a_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="no place for fold"):
        with_figures("a", "fold", TEXT)


@pytest.mark.parametrize(
    ("row", "result", "contender"),
    [
        ("fold, one tick a record", "fold-frames-of-1", "fold"),
        ("fold, frames of 200 ticks", "fold-frames-of-200", "fold"),
        ("requests of one tick, answered after Kafka confirmed", "ingest-one", "one tick a request"),
        ("requests of 200 ticks", "ingest-bodies", "bodies of 200 ticks"),
        ("candles stored, a replay or backlog", "sink", "sink"),
    ],
)
def test_rates_on_the_page_of_sizes_are_those_that_were_measured(row: str, result: str, contender: str) -> None:
    """To two digits at least: the blocks that `make bench-page` writes are the one place for a rate."""
    assert _first_number((PAGE.parent / "scaling.md").read_text(), row) == pytest.approx(
        _measured(result, contender), rel=0.01
    )


def test_the_runbook_says_how_much_faster_large_frames_fold() -> None:
    told = re.search(r"frames of 200 fold ([\d.]+) times as fast", (PAGE.parent / "runbook.md").read_text())
    assert told
    measured = _measured("fold-frames-of-200", "fold") / _measured("fold-frames-of-1", "fold")
    assert float(told[1]) == pytest.approx(measured, rel=0.05)


def _measured(result: str, contender: str) -> int:
    figures = PAGE.read_text().partition(f"<!-- figures {result}: begin -->")[2].partition("end -->")[0]
    return _first_number(figures, contender)


def _first_number(page: str, row: str) -> int:
    found = re.search(rf"^\| {re.escape(row)} \| ([\d,]+)", page, re.MULTILINE)
    assert found, f"no row {row!r}"
    return int(found[1].replace(",", ""))
