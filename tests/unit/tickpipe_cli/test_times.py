"""Times as they are typed, and as they are shown."""

from datetime import UTC, datetime

import pytest

from tickpipe.times import epoch_ms, iso_utc, moment_of, parse_time

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2019-02-04", "2019-02-04T00:00:00+00:00"),
        ("2019-02-04T10:30", "2019-02-04T10:30:00+00:00"),
        ("2019-02-04 10:30:05.250", "2019-02-04T10:30:05.250000+00:00"),
        ("2019-02-04T10:30Z", "2019-02-04T10:30:00+00:00"),
        ("2019-02-04T12:30+02:00", "2019-02-04T10:30:00+00:00"),
        ("now", "2026-03-01T12:00:00+00:00"),
        ("-90s", "2026-03-01T11:58:30+00:00"),
        ("-5m", "2026-03-01T11:55:00+00:00"),
        ("-1h", "2026-03-01T11:00:00+00:00"),
        ("-2d", "2026-02-27T12:00:00+00:00"),  # 2026 has a February of 28 days
        ("-1w", "2026-02-22T12:00:00+00:00"),
    ],
)
def test_time_is_understood(text: str, moment: str) -> None:
    assert parse_time(text, now=NOW) == datetime.fromisoformat(moment)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "-1y", "1h", "-999999999w", "2019-02-30", "0001-01-01T00:00+14:00", "-１h"]
)
def test_what_is_no_time_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="use one of: 2019-02-04"):
        parse_time(text, now=NOW)


def test_milliseconds_survive_both_ways() -> None:
    assert epoch_ms(moment_of(1_549_238_400_994)) == 1_549_238_400_994


def test_shown_times_are_utc_without_needless_fraction() -> None:
    assert iso_utc(datetime.fromisoformat("2019-02-04T02:00:00+02:00")) == "2019-02-04T00:00:00Z"
    assert iso_utc(moment_of(1_549_238_400_994)) == "2019-02-04T00:00:00.994Z"
