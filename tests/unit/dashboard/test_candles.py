"""What query parameters mean, and what is said about those that mean nothing."""

from datetime import UTC, datetime
from typing import Any

import pytest

from dashboard.answers import Refusal
from dashboard.candles import Request, Row, parse_time


def request(**parameters: Any) -> Request:
    nothing = {"source": None, "from_": None, "to": None, "before": None, "limit": 2}
    return Request.parse(**{"symbol": "EURUSD", "timeframe": "M1", **nothing, **parameters})


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2019-02-04", datetime(2019, 2, 4, tzinfo=UTC)),
        ("2019-02-04T10:30", datetime(2019, 2, 4, 10, 30, tzinfo=UTC)),
        ("2019-02-04T10:30Z", datetime(2019, 2, 4, 10, 30, tzinfo=UTC)),
        ("2019-02-04T12:30+02:00", datetime(2019, 2, 4, 10, 30, tzinfo=UTC)),
        ("2019-02-04T12:30 02:00", datetime(2019, 2, 4, 10, 30, tzinfo=UTC)),  # a + that was not encoded
        ("2019-02-04 10:30", datetime(2019, 2, 4, 10, 30, tzinfo=UTC)),
        ("1549238400000", datetime(2019, 2, 4, tzinfo=UTC)),
        ("1549238400", datetime(2019, 2, 4, tzinfo=UTC)),
        ("1549238400.25", datetime(2019, 2, 4, microsecond=250_000, tzinfo=UTC)),
        ("1549238400123", datetime(2019, 2, 4, microsecond=123_000, tzinfo=UTC)),
        ("946684800", datetime(2000, 1, 1, tzinfo=UTC)),
        ("0", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_time_is_read(text: str, moment: datetime) -> None:
    assert parse_time("from", text) == moment


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2019-02-30", "99999999999999999999", "²", "-5", "1549238400.", "0001-01-01T00:00+14:00"]
)
def test_time_that_is_none_is_refused_with_the_accepted_forms(text: str) -> None:
    with pytest.raises(Refusal, match="no time; use 2019-02-04") as refused:
        parse_time("from", text)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"timeframe": "M2"}, "timeframe: 'M2' is no timeframe; use one of M1, M5"),
        ({"limit": 0}, "limit: use 1 to 20,000"),
        ({"limit": 20_001}, "limit: use 1 to 20,000"),
        ({"before": "2019-02-04", "from_": "2019-02-03"}, "before: .* leave out `from` and `to`"),
        ({"from_": "2019-02-04", "to": "2019-02-04"}, "`from` must be before `to`"),
        ({"symbol": "a\0"}, "NUL"),
    ],
)
def test_request_that_cannot_be_answered_names_the_culprit(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        request(**parameters)


def rows(*minutes: int) -> list[Row]:
    return [
        Row(datetime(2019, 2, 4, 0, minute, tzinfo=UTC), "EURUSD", "S", 1, 1, 1, 1, 1, None, None, True)
        for minute in minutes
    ]


def test_page_leads_to_the_next_in_its_direction() -> None:
    newest = request(before="2019-02-05").next_page(rows(7, 8))
    assert newest == "symbol=EURUSD&timeframe=M1&limit=2&source=S&before=2019-02-04T00%3A07%3A00Z"
    onwards = request(from_="2019-02-04", to="2019-02-05").next_page(rows(7, 8))
    assert onwards is not None
    assert onwards.endswith("from=2019-02-04T00%3A08%3A00.001000Z&to=2019-02-05T00%3A00%3A00Z")
    assert "to=" not in (request(from_="2019-02-04").next_page(rows(7, 8)) or "")


def test_last_page_leads_nowhere() -> None:
    assert request(from_="2019-02-04").next_page(rows(7)) is None
    assert request().next_page([]) is None
