"""Offset sets behave like sets."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from marketdata.offsets import Range, Ranges, contains, normalized, size, to_multirange, union

PAIRS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted).map(tuple), max_size=6)


def members(ranges: Ranges | list[Range]) -> set[int]:
    return {offset for first, last in ranges for offset in range(first, last + 1)}


@given(PAIRS)
def test_normalized_keeps_the_members_and_leaves_a_gap_between_ranges(pairs: list[Range]) -> None:
    ranges = normalized(pairs)

    assert members(ranges) == members(pairs)
    assert size(ranges) == len(members(pairs))
    assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))


@given(PAIRS, PAIRS)
def test_union_and_contains_agree_with_sets(a: list[Range], b: list[Range]) -> None:
    left, right = normalized(a), normalized(b)

    assert members(union(left, right)) == members(a) | members(b)
    assert contains(left, right) == (members(b) <= members(a))


@given(PAIRS, st.data())
def test_a_set_contains_each_of_its_parts_and_nothing_beside_it(pairs: list[Range], data: st.DataObject) -> None:
    whole = normalized(pairs)
    part = data.draw(st.sets(st.sampled_from(sorted(members(whole))))) if whole else set[int]()
    beside = data.draw(st.sampled_from(sorted(set(range(33)) - members(whole))))

    assert contains(whole, normalized((offset, offset) for offset in part))
    assert not contains(whole, normalized((offset, offset) for offset in {*part, beside}))


def test_multirange_text_excludes_the_upper_bound() -> None:
    assert to_multirange(((0, 5), (9, 9))) == "{[0,6),[9,10)}"
    assert to_multirange(()) == "{}"
