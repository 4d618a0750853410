"""From the broker's wall clock to UTC."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.contract.times import Clock, ShiftedZone, WallTime, parse_time, time_of
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
        pytest.param(
            ATHENS, "2025-10-26T03:30:00", "2025-10-26T00:30:00", id="twice, and nothing tells: the first, still summer"
        ),
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
        ("2025.10.20 02:20:00", "2025-10-19T23:20:00", True),
        ("2025.10.20 02:20", "2025-10-19T23:20:00", True),
        ("2025.10.20 02:20:00.417", "2025-10-19T23:20:00.417", False),
        ("2025.10.20 2:20:00:417", "2025-10-19T23:20:00.417", False),
        ("2025/10/2 02:20:00", "2025-10-01T23:20:00", True),
        (" 2025-10-20 02:20:00Z\r\n\0", "2025-10-19T23:20:00", True),
        ("20251020T022000.417", "2025-10-19T23:20:00.417", False),
        ("2025-10-20 04:20:00.417000000+02:00", "2025-10-20T02:20:00.417", False),
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


@pytest.mark.parametrize("text", ["2025-10-20", "2025.10.20", "20251020", "2025-10-20T02", "2025-10-20Z"])
def test_a_day_alone_opens_a_bar_and_is_no_time_of_a_tick(text: str) -> None:
    """All ticks of the day would be of its first minute."""
    opening = time_of({"time": text}, is_opening=True)
    assert opening.ms == ms("2025-10-20T02:00:00" if "T" in text else "2025-10-20")
    for field in ("ts", "time", "timestamp"):
        with pytest.raises(InvalidItem, match="time of day"):
            time_of({field: text})


@pytest.mark.parametrize("text", ["2025-10-20T02+03:00", "20251020T02+03:00", "2025-10-20 02-03:00"])
def test_an_hour_alone_is_no_time_of_a_tick_whatever_its_offset(text: str) -> None:
    with pytest.raises(InvalidItem, match="time of day"):
        time_of({"time": text})
    assert time_of({"time": text}, is_opening=True).ms in (ms("2025-10-19T23:00:00"), ms("2025-10-20T05:00:00"))


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (31_795_200, "1971-01-04T00:00:00"),
        (946_684_740, "1999-12-31T23:59:00"),
        ("946684740", "1999-12-31T23:59:00"),
        (946_684_740.0, "1999-12-31T23:59:00"),
        ("946684740000", "1999-12-31T23:59:00"),
        (946_684_740_000_000, "1999-12-31T23:59:00"),
        (946_684_740_000_000_000, "1999-12-31T23:59:00"),
        ("31795200000000000", "1971-01-04T00:00:00"),
    ],
)
def test_numbers_of_the_years_before_2001_open_bars(number: object, moment: str) -> None:
    assert time_of({"time": number}, is_opening=True).ms == ms(moment)


def test_numbers_of_the_years_before_2001_are_ticks_where_no_counter_is_so_large() -> None:
    """A terminal that has run for ten days counts 900 million milliseconds."""
    for scale in (10**3, 10**6, 10**9):
        assert time_of({"ts": 946_684_800 * scale}).ms == ms("2000-01-01T00:00:00")
    with pytest.raises(InvalidItem, match="neither seconds"):
        time_of({"time": 946_684_800})


@pytest.mark.parametrize("number", [1_760_926_800_417_000, 1_760_926_800_417_000_000])
def test_other_units_in_a_field_of_milliseconds_are_called_so(number: int) -> None:
    with pytest.raises(InvalidItem, match="milliseconds since 1970 are expected"):
        time_of({"time_msc": number})


def test_an_offset_behind_a_day_is_no_time_of_day() -> None:
    """Python reads 02:00 here."""
    for text in ("2025-10-20+02:00", "2025-10-20-02:00"):
        with pytest.raises(InvalidItem):
            time_of({"time": text}, is_opening=True)


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


def walls(*texts: str) -> list[WallTime]:
    return [WallTime(ms(f"2025-10-26T{text}"), False) for text in texts]


def test_in_the_hour_that_exists_twice_the_order_of_a_file_decides() -> None:
    clock = Clock(ATHENS, NOW_MS)
    times = walls("02:59:30", "03:10:05", "03:10:45", "03:59:59", "03:10:07", "03:10:40", "03:59:00", "04:00:01")

    found = [clock.utc_ms(time, "BTCUSD") for time in times]

    assert found == [
        ms(f"2025-10-{moment}") for moment in (
            "25T23:59:30", "26T00:10:05", "26T00:10:45", "26T00:59:59",
            "26T01:10:07", "26T01:10:40", "26T01:59:00", "26T02:00:01",
        )
    ]  # fmt: skip
    # Another symbol has an order of its own, and ticks a little out of order are of one pass.
    other = [clock.utc_ms(time, "ETHUSD") for time in walls("03:20:00", "03:10:00", "03:21:00")]
    assert other == [ms(f"2025-10-26T00:{minute}:00") for minute in (20, 10, 21)]


@pytest.mark.parametrize(
    ("received", "wall", "utc"),
    [
        ("00:10:06", "03:10:05", "00:10:05"),
        ("01:10:06", "03:10:05", "01:10:05"),
        # A queue of the first pass that is sent in the second: later than now it cannot be.
        ("01:10:06", "03:40:00", "00:40:00"),
        ("00:59:59", "03:59:58", "00:59:58"),
        ("01:00:01", "03:59:58", "00:59:58"),
        # The sender's clock may be a little ahead.
        ("01:09:50", "03:10:05", "01:10:05"),
        ("02:00:05", "03:59:58", "01:59:58"),
    ],
)
def test_in_the_hour_that_exists_twice_live_ticks_go_by_their_receipt(received: str, wall: str, utc: str) -> None:
    clock = Clock(ATHENS, ms(f"2025-10-26T{received}"))
    (time,) = walls(wall)

    assert clock.utc_ms(time) == ms(f"2025-10-26T{utc}")


@pytest.mark.parametrize("zone", [ATHENS, NEW_YORK, BROKER])
@given(seconds=st.integers(1_730_000_000, 1_763_000_000), ahead=st.integers(0, 20_000))
def test_a_tick_that_comes_as_it_happens_has_its_own_moment(zone: tzinfo, seconds: int, ahead: int) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    wall = moment.astimezone(zone).replace(tzinfo=UTC)
    clock = Clock(zone, seconds * 1000 + ahead)

    assert clock.utc_ms(WallTime(int(wall.timestamp()) * 1000, False)) == seconds * 1000
