"""From the broker's wall clock to UTC."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.contract.clock import Clock, ShiftedZone
from marketdata.contract.times import WallTime, parse_time
from marketdata.errors import InvalidItem

ATHENS = ZoneInfo("Europe/Athens")
NEW_YORK = ZoneInfo("America/New_York")
#: Most MetaTrader brokers: UTC+2 and +3 by the dates of the United States.
BROKER = ShiftedZone(NEW_YORK, timedelta(hours=7))
NOW_MS = int(datetime(2025, 11, 24, tzinfo=UTC).timestamp()) * 1000


def read(clock: Clock, text: str) -> tuple[int, bool]:
    time = parse_time(text, "ts")
    return clock.utc_ms(time), time.coarse


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("zone", "wall", "utc"),
    [
        (None, "2025-10-20T02:20:00", "2025-10-20T02:20:00"),
        (timezone(timedelta(hours=3)), "2025-10-20T02:20:00", "2025-10-19T23:20:00"),
        (timezone(-timedelta(hours=3, minutes=30)), "2025-10-20T02:20:00", "2025-10-20T05:50:00"),
        (ATHENS, "2025-07-01T12:00:00", "2025-07-01T09:00:00"),
        (ATHENS, "2025-01-01T12:00:00", "2025-01-01T10:00:00"),
        (ATHENS, "2025-10-26T02:59:59", "2025-10-25T23:59:59"),
        pytest.param(ATHENS, "2025-10-26T03:30:00", "2025-10-26T00:30:00", id="twice: the first, still summer"),
        (ATHENS, "2025-10-26T04:00:00", "2025-10-26T02:00:00"),
        pytest.param(ATHENS, "2025-03-30T03:30:00", "2025-03-30T01:30:00", id="never: the offset before the jump"),
        (NEW_YORK, "2025-11-02T00:59:59", "2025-11-02T04:59:59"),
        (NEW_YORK, "2025-11-02T02:00:00", "2025-11-02T07:00:00"),
        # Summer time began on 10 March in New York and on 31 March in Athens.
        (BROKER, "2019-03-08T23:58:30", "2019-03-08T21:58:30"),
        (BROKER, "2019-03-15T23:58:30", "2019-03-15T20:58:30"),
        (BROKER, "2019-03-18T00:05:00", "2019-03-17T21:05:00"),
        (BROKER, "2019-04-01T00:05:00", "2019-03-31T21:05:00"),
        pytest.param(BROKER, "2025-11-02T08:30:00", "2025-11-02T05:30:00", id="twice, seven hours later"),
        (BROKER, "2025-11-02T09:00:00", "2025-11-02T07:00:00"),
    ],
)
def test_wall_time_becomes_utc(zone: tzinfo | None, wall: str, utc: str) -> None:
    clock = Clock(zone, NOW_MS)

    assert clock.utc_ms(WallTime(ms(wall), True)) == ms(utc)
    assert read(clock, wall + "Z") == (ms(utc), True)
    assert read(clock, wall) == (ms(utc), True)


@pytest.mark.parametrize(
    ("text", "utc", "coarse"),
    [
        ("2025-10-20T02:20:00Z", "2025-10-19T23:20:00", True),
        ("2025-10-20T02:20:00.000Z", "2025-10-19T23:20:00", False),
        ("2025-10-20T02:20:00.417999Z", "2025-10-19T23:20:00.417", False),
        ("2025-10-20T02:20:00+00:00", "2025-10-20T02:20:00", True),
        ("2025-10-20T02:20:00.5-05:00", "2025-10-20T07:20:00.500", False),
        ("2025-10-20", "2025-10-19T21:00:00", True),
        ("2025.10.20 02:20:00", "2025-10-19T23:20:00", True),
        ("2025.10.20 02:20", "2025-10-19T23:20:00", True),
        ("2025.10.20 02:20:00.417", "2025-10-19T23:20:00.417", False),
    ],
)
def test_text_says_the_wall_clock_or_an_instant(text: str, utc: str, coarse: bool) -> None:
    clock = Clock(ATHENS, NOW_MS)

    assert read(clock, text) == (ms(utc), coarse)
    assert read(clock, text) == (ms(utc), coarse)


def test_minutes_on_both_sides_of_a_jump_have_their_own_offsets() -> None:
    clock = Clock(ATHENS, NOW_MS)

    walls = ["2025-10-26T03:59:59", "2025-10-26T04:00:00", "2025-10-26T03:59:59"]

    assert [clock.utc_ms(WallTime(ms(wall), True)) - ms(wall) for wall in walls] == [
        -10_800_000,
        -7_200_000,
        -10_800_000,
    ]


@pytest.mark.parametrize("zone", [None, ATHENS, timezone(timedelta(hours=3))])
@pytest.mark.parametrize("wall_ms", [0, 31_535_999_999, NOW_MS + 86_400_001 + 10_800_000, 2**63 - 1])
def test_times_before_1971_and_more_than_a_day_ahead_are_refused(zone: tzinfo | None, wall_ms: int) -> None:
    with pytest.raises(InvalidItem):
        Clock(zone, NOW_MS).utc_ms(WallTime(wall_ms, False))


@pytest.mark.parametrize("text", ["", "x", "2025-13-01", "2025-10-20T02:20:00+02:00Z", "2025.10.20 02:20:60"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidItem, match="ISO-8601"):
        parse_time(text, "ts")


@given(st.integers(631_152_000, 2_114_380_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)))
def test_a_shifted_zone_shows_a_fixed_time_more_than_its_zone(moment: datetime) -> None:
    ours, theirs = moment.astimezone(BROKER), moment.astimezone(NEW_YORK)
    assert ours.replace(tzinfo=None) == theirs.replace(tzinfo=None) + timedelta(hours=7)
    assert ours.astimezone(UTC) == moment
    assert ours.dst() == theirs.dst()
