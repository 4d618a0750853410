"""Which format a request wants."""

import pytest

from dashboard.answers import Refusal
from dashboard.formats import choose_format


@pytest.mark.parametrize(
    ("wanted", "accept", "chosen"),
    [
        (None, None, "json"),
        (None, "*/*", "json"),
        (None, "text/html,application/xhtml+xml,*/*;q=0.8", "json"),
        (None, "text/csv", "csv"),
        (None, "application/json;q=0.5, text/csv", "csv"),
        (None, "text/csv;q=0, application/json", "json"),
        (None, "application/vnd.apache.arrow.stream", "arrow"),
        ("CSV", "application/json", "csv"),
        ("arrow", None, "arrow"),
    ],
)
def test_format_is_chosen(wanted: str | None, accept: str | None, chosen: str) -> None:
    assert choose_format(wanted, accept) == chosen


@pytest.mark.parametrize(("wanted", "accept", "status"), [("xml", None, 400), (None, "image/png", 406)])
def test_format_that_is_none_is_refused(wanted: str | None, accept: str | None, status: int) -> None:
    with pytest.raises(Refusal, match="json, csv, arrow") as refused:
        choose_format(wanted, accept)
    assert refused.value.status == status
