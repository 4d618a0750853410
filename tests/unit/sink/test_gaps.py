"""The hours in which a symbol trades, as its history tells them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from sink.gaps import Habit

#: A Monday.
MONDAY = datetime(2024, 3, 4, tzinfo=UTC)
NEW_YORK, NO_CLOCK = ZoneInfo("America/New_York"), ZoneInfo("UTC")


def hours(weeks: int, *, minutes: int = 60, without: set[datetime] = frozenset()) -> dict[datetime, int]:  # type: ignore[assignment]
    """A market that is open from Monday to Friday, 8:00 to 18:00 in New York; the weeks around the change of clocks."""
    found = {}
    for hour in (MONDAY + timedelta(hours=n) for n in range(weeks * 168)):
        local = hour.astimezone(NEW_YORK)
        if local.weekday() < 5 and 8 <= local.hour < 18 and hour not in without:
            found[hour] = minutes
    return found


def at(day: int, hour: int, minute: int = 0) -> datetime:
    """That many days after the first Monday, by the clock of New York."""
    return (MONDAY + timedelta(days=day)).replace(hour=hour, minute=minute, tzinfo=NEW_YORK).astimezone(UTC)


@pytest.mark.parametrize(
    ("begins", "ends", "minutes"),
    [
        (at(1, 9), at(1, 11, 30), 150),
        (at(1, 6), at(1, 9), 60),
        (at(1, 18), at(2, 8), 0),
        (at(4, 18), at(7, 8), 0),
        # After the clocks changed the market opens an hour earlier in UTC.
        (at(8, 6), at(8, 9), 60),
        (at(4, 17), at(7, 9), 120),
        # A week without a tick.
        (at(7, 0), at(14, 0), 5 * 600),
    ],
    ids=["open", "before the opening", "night", "weekend", "summer time", "weekend and a bit", "week"],
)
def test_expected_are_the_minutes_of_trading_hours(begins: datetime, ends: datetime, minutes: int) -> None:
    assert Habit(hours(4), NEW_YORK).expected(begins, ends) == pytest.approx(minutes)


def test_quiet_symbols_are_expected_to_be_quiet() -> None:
    assert Habit(hours(4, minutes=6), NEW_YORK).expected(at(1, 9), at(1, 10)) == pytest.approx(6)


def test_an_outage_does_not_become_the_habit() -> None:
    outage = {at(1, hour) for hour in range(8, 18)}

    assert Habit(hours(4, without=outage), NEW_YORK).expected(at(1, 9), at(1, 10)) == 60


def test_with_a_few_days_of_history_working_days_are_alike() -> None:
    """Thursday's hour was never seen, and Saturday is not judged by Friday."""
    known = {hour: minutes for hour, minutes in hours(1).items() if hour < at(3, 0)}
    habit = Habit(known, NEW_YORK)

    assert habit.expected(at(3, 9), at(3, 10)) == 60
    assert habit.expected(at(5, 9), at(5, 10)) == 0


def test_nothing_is_expected_of_a_symbol_without_history() -> None:
    assert Habit({}, NO_CLOCK).expected(MONDAY, MONDAY + timedelta(days=7)) == 0
