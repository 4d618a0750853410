"""Sets of time as ranges, held against sets of single numbers."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from marketdata.minutes import Range, intersect, length, subtract, union

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
