"""Sets of time as ranges, held against sets of single numbers."""

from datetime import UTC, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from marketdata.minutes import ASK_MS, Range, asks, closed_by_sessions, intersect, length, subtract, union
from marketdata.tick import MINUTE_MS

one_range = st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda one: (one[0], one[0] + one[1]))
ranges = st.lists(one_range, max_size=8)


def numbers(of: list[Range]) -> set[int]:
    return {number for first, end in of for number in range(first, end)}


def is_normal(of: list[Range]) -> bool:
    return all(first < end for first, end in of) and all(a[1] < b[0] for a, b in pairwise(of))


@given(ranges, ranges)
def test_union_intersection_and_difference_are_those_of_the_numbers(a: list[Range], b: list[Range]) -> None:
    ours, theirs = union(a), union(b)

    assert is_normal(union(a, b))
    assert numbers(union(a, b)) == numbers(a) | numbers(b)
    assert numbers(subtract(ours, theirs)) == numbers(a) - numbers(b)
    assert is_normal(subtract(ours, theirs))
    assert numbers(intersect(ours, theirs)) == numbers(a) & numbers(b)
    assert length(ours) == len(numbers(a))


def test_a_difference_of_ranges_that_touch_leaves_them_apart() -> None:
    assert subtract([(0, 5), (5, 9), (9, 12)], [(6, 10)]) == [(0, 5), (5, 6), (10, 12)]


@given(ranges, ranges)
def test_what_was_sent_whole_is_not_asked_for_again(a: list[Range], b: list[Range]) -> None:
    holes, done = (union([(first * MINUTE_MS, end * MINUTE_MS) for first, end in one]) for one in (a, b))

    assert union(asks(holes, 10_000, done)) == union(subtract(union(asks(holes, 10_000)), done))


@given(ranges, st.integers(0, 40))
def test_what_is_asked_for_covers_the_ranges_and_a_minute_beside_them(a: list[Range], most: int) -> None:
    holes = union([(first * 7 * MINUTE_MS, end * 7 * MINUTE_MS) for first, end in a])
    wider = union([(first - MINUTE_MS, end + MINUTE_MS) for first, end in holes])

    asked = asks(holes, most)

    assert asked == sorted(asked, reverse=True)
    assert len(asked) <= most
    assert all(0 < end - first <= ASK_MS for first, end in asked)
    assert union(asked) == intersect(wider, [(asked[-1][0], asked[0][1])] if asked else [])
    assert union(asks(holes, 10_000)) == wider
    assert all(first % ASK_MS == 0 or any(first == one[0] for one in wider) for first, _ in asked)


#: 2025-10-20, a Monday, 00:00 UTC.
MONDAY = 1_760_918_400_000
HOUR = 3_600_000


def hours(of: list[Range]) -> list[tuple[float, float]]:
    return [((first - MONDAY) / HOUR, (end - MONDAY) / HOUR) for first, end in of]


def test_outside_of_its_sessions_a_symbol_is_closed() -> None:
    week = [(day, 60, 1440) for day in (1, 2, 3, 4)] + [(5, 60, 1320)]

    closed = closed_by_sessions(week, timezone(timedelta(hours=2)), MONDAY, MONDAY + 7 * 24 * HOUR)

    # The clock of the broker is two hours ahead: its Tuesday begins on Monday at 22:00.
    assert hours(closed) == [(22, 23), (46, 47), (70, 71), (94, 95), (116, 167)]


def test_a_symbol_that_is_always_quoted_is_never_closed() -> None:
    assert closed_by_sessions([(day, 0, 1440) for day in range(7)], UTC, MONDAY - 1, MONDAY + 99 * HOUR) == []
    assert closed_by_sessions([], UTC, MONDAY, MONDAY + HOUR) == [(MONDAY, MONDAY + HOUR)]


def test_sessions_follow_the_clock_of_a_zone_through_its_changes() -> None:
    # 2025-10-26: Athens goes back from +3 to +2.
    sessions = [(day, 8 * 60, 10 * 60) for day in range(7)]

    closed = closed_by_sessions(sessions, ZoneInfo("Europe/Athens"), MONDAY + 5 * 24 * HOUR, MONDAY + 7 * 24 * HOUR)

    assert hours(closed) == [(120, 125), (127, 150), (152, 168)]
