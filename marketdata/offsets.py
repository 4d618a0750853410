"""Sets of log offsets as ranges: which records of the log a candle was folded from.

A range `(partition, first, last)` includes both ends. It means that every record of the partition from `first` to
`last` was read, and that what it held of the candle's source, symbol and period was folded. Ranges
are ascending and never touch.

A *position* is a place in the whole log as one number, so that a fold over several partitions has one order, and
PostgreSQL's int8multirange holds the ranges of all of them: `partition * 2**48 + offset`.
"""

from collections.abc import Iterable
from typing import Any, Final

Range = tuple[int, int, int]
Ranges = tuple[Range, ...]

#: First and last position of a range.
Span = tuple[int, int]

_OFFSET_BITS: Final = 48
_OFFSET_MASK: Final = (1 << _OFFSET_BITS) - 1

#: The largest values that fit into a position: the exclusive end of a range is a bigint as well.
MAX_PARTITION: Final = 2**15 - 2
MAX_OFFSET: Final = 2**_OFFSET_BITS - 2


def position(partition: int, offset: int) -> int:
    """The place of a record in the log (SQL: `log_position`)."""
    return (partition << _OFFSET_BITS) + offset


def place(of: int) -> tuple[int, int]:
    """Partition and offset of a position."""
    return of >> _OFFSET_BITS, of & _OFFSET_MASK


def spans(ranges: Iterable[Range]) -> tuple[Span, ...]:
    """The ranges as positions."""
    return tuple((position(partition, first), position(partition, last)) for partition, first, last in ranges)


def first_position(ranges: Ranges) -> int:
    """The first position of ranges, of which there is one."""
    partition, first, _ = ranges[0]
    return position(partition, first)


def last_position(ranges: Ranges) -> int:
    """The last position of ranges, of which there is one."""
    partition, _, last = ranges[-1]
    return position(partition, last)


def from_spans(of: Iterable[Span]) -> Ranges:
    """The ranges of spans of positions; a span never crosses partitions."""
    found = []
    for first, last in of:
        partition, offset = place(first)
        found.append((partition, offset, offset + last - first))
    return tuple(found)


def of_positions(positions: Iterable[int]) -> Ranges:
    """The ranges of ascending positions in the whole log."""
    spans: list[Span] = []
    for position in positions:
        if spans and spans[-1][1] == position - 1:
            spans[-1] = (spans[-1][0], position)
        else:
            spans.append((position, position))
    return from_spans(spans)


def normalized(ranges: Iterable[Range]) -> Ranges:
    """The same offsets as ascending ranges that neither overlap nor touch (as PostgreSQL's int8multirange does)."""
    merged: list[Range] = []
    for partition, first, last in sorted(ranges):
        if merged and merged[-1][0] == partition and first <= merged[-1][2] + 1:
            merged[-1] = (partition, merged[-1][1], max(merged[-1][2], last))
        else:
            merged.append((partition, first, last))
    return tuple(merged)


def union(a: Ranges, b: Ranges) -> Ranges:
    """Offsets of either set."""
    return normalized((*a, *b))


def contains(outer: Ranges, inner: Ranges) -> bool:
    """Whether every offset of `inner` is in `outer` (SQL: `outer @> inner`)."""
    index = 0
    for partition, first, last in inner:
        while index < len(outer) and (outer[index][0], outer[index][2]) < (partition, first):
            index += 1
        if index == len(outer):
            return False
        other, begin, end = outer[index]
        if other != partition or begin > first or last > end:
            return False
    return True


def size(ranges: Ranges) -> int:
    """Number of offsets in the set."""
    return sum(last - first + 1 for _, first, last in ranges)


def intersection(a: Ranges, b: Ranges) -> Ranges:
    """Offsets of both sets."""
    found = []
    ours, theirs = iter(a), iter(b)
    one, other = next(ours, None), next(theirs, None)
    while one is not None and other is not None:
        if one[0] == other[0] and (first := max(one[1], other[1])) <= (last := min(one[2], other[2])):
            found.append((one[0], first, last))
        if (one[0], one[2]) < (other[0], other[2]):
            one = next(ours, None)
        else:
            other = next(theirs, None)
    return tuple(found)


def to_multirange(ranges: Ranges) -> str:
    """PostgreSQL's text form, in positions: `{[0,6),[9,10)}`."""
    return "{" + ",".join(f"[{first},{last + 1})" for first, last in spans(ranges)) + "}"


def from_multirange(multirange: Any) -> Ranges:
    """The ranges of an int8multirange of positions: its text, or what psycopg makes of it, which takes longer.

    psycopg's is an iterable of `lower` and `upper`.
    """
    if isinstance(multirange, str):
        bounds = (one.split(",") for one in multirange[2:-2].split("),[") if one)
        return from_spans((int(lower), int(upper) - 1) for lower, upper in bounds)
    return from_spans((one.lower, one.upper - 1) for one in multirange)


def beyond(ends: dict[int, tuple[int, int]]) -> str:
    """Every position that a log does not reach, in PostgreSQL's text form, given first and next offset by partition."""
    begin, gaps = 0, []
    for partition, (_, end) in sorted(ends.items()):
        if begin < position(partition, 0):
            gaps.append(f"[{begin},{position(partition, 0)})")
        gaps.append(f"[{position(partition, end)},{position(partition + 1, 0)})")
        begin = position(partition + 1, 0)
    return "{" + ",".join([*gaps, f"[{begin},)"]) + "}"
