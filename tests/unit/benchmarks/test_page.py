import pytest

from benchmarks.page import with_figures

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
