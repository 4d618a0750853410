"""Offset sets behave like sets."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range as StoredRange

from marketdata.offsets import (
    MAX_OFFSET,
    MAX_PARTITION,
    Range,
    Ranges,
    beyond,
    contains,
    from_multirange,
    from_spans,
    intersection,
    normalized,
    place,
    position,
    size,
    spans,
    to_multirange,
    union,
)

#: The last offset of a partition and the first of the next are no neighbours.
OFFSETS = st.integers(0, 12) | st.integers(MAX_OFFSET - 3, MAX_OFFSET)


@st.composite
def any_range(draw: st.DrawFn) -> Range:
    first = draw(OFFSETS)
    return draw(st.integers(0, 2)), first, min(first + draw(st.integers(0, 5)), MAX_OFFSET)


RANGES = st.lists(any_range(), max_size=6)


def members(ranges: Iterable[Range]) -> set[tuple[int, int]]:
    return {(partition, offset) for partition, first, last in ranges for offset in range(first, last + 1)}


@given(RANGES)
def test_normalized_keeps_the_members_and_leaves_a_gap_between_ranges(pairs: list[Range]) -> None:
    ranges = normalized(pairs)

    assert members(ranges) == members(pairs)
    assert size(ranges) == len(members(pairs))
    assert all((a[0], a[2] + 1) < b[:2] for a, b in pairwise(ranges))


@given(RANGES, RANGES)
def test_union_and_contains_agree_with_sets(a: list[Range], b: list[Range]) -> None:
    left, right = normalized(a), normalized(b)

    assert members(union(left, right)) == members(a) | members(b)
    assert contains(left, right) == (members(b) <= members(a))


@given(RANGES, st.data())
def test_a_set_contains_each_of_its_parts_and_nothing_beside_it(pairs: list[Range], data: st.DataObject) -> None:
    whole = normalized(pairs)
    part = data.draw(st.sets(st.sampled_from(sorted(members(whole))))) if whole else set[tuple[int, int]]()
    beside = data.draw(st.sampled_from(sorted({(p, o) for p in range(4) for o in range(33)} - members(whole))))

    assert contains(whole, normalized((partition, offset, offset) for partition, offset in part))
    assert not contains(whole, normalized((partition, offset, offset) for partition, offset in {*part, beside}))


@given(RANGES)
def test_positions_keep_the_order_and_come_back(ranges: list[Range]) -> None:
    whole = normalized(ranges)

    assert from_spans(spans(whole)) == whole
    assert list(spans(whole)) == sorted(spans(whole))
    assert all(a[1] + 1 < b[0] for a, b in pairwise(spans(whole)))


def test_every_position_is_a_bigint_and_so_is_the_end_of_its_range() -> None:
    assert place(position(MAX_PARTITION, MAX_OFFSET)) == (MAX_PARTITION, MAX_OFFSET)
    assert position(MAX_PARTITION, MAX_OFFSET) + 1 < 2**63


def test_multirange_text_excludes_the_upper_bound() -> None:
    assert to_multirange(((0, 0, 5), (0, 9, 9))) == "{[0,6),[9,10)}"
    assert to_multirange(((1, 0, 5),)) == "{[281474976710656,281474976710662)}"  # 2**48
    assert to_multirange(()) == "{}"


@pytest.mark.parametrize("ranges", [(), ((0, 0, 5), (0, 9, 9)), ((0, 3, 3), (7, 0, MAX_OFFSET))])
def test_a_multirange_of_the_database_is_the_same_ranges(ranges: Ranges) -> None:
    loaded = Multirange([StoredRange(first, last + 1) for first, last in spans(ranges)])
    assert from_multirange(loaded) == ranges
    assert from_multirange(to_multirange(ranges)) == ranges


@given(RANGES, RANGES)
def test_an_intersection_is_what_both_sets_have(a: list[Range], b: list[Range]) -> None:
    both = intersection(normalized(a), normalized(b))
    assert members(both) == members(normalized(a)) & members(normalized(b))
    assert both == normalized(both)


@given(RANGES, st.dictionaries(st.integers(0, 3), st.integers(0, 20), max_size=4))
def test_what_lies_beyond_the_log_is_all_that_it_does_not_hold(ranges: list[Range], ends: dict[int, int]) -> None:
    whole, bounds = normalized(ranges), {partition: (0, end) for partition, end in ends.items()}
    gaps = [(int(a), int(b or 2**63)) for a, b in (gap.split(",") for gap in beyond(bounds)[2:-2].split("),["))]
    held = normalized((partition, 0, end - 1) for partition, end in ends.items() if end)
    taken = members(whole) - members(intersection(whole, held))

    inside = {
        (partition, offset)
        for partition, offset in members(whole)
        if any(first <= position(partition, offset) < end for first, end in gaps)
    }

    assert inside == taken
