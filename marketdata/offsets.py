"""Sets of log offsets as ranges: which stretch of the log a candle was folded from.

A range `(first, last)` includes both ends and says: every record of the partition from `first` to `last` was read,
and what it held of the candle's source, symbol and minute was folded. Ranges are ascending and never touch.
"""

from collections.abc import Iterable

Range = tuple[int, int]
Ranges = tuple[Range, ...]


def normalized(ranges: Iterable[Range]) -> Ranges:
    """The same offsets as ascending ranges that neither overlap nor touch (as PostgreSQL's int8multirange does)."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def union(a: Ranges, b: Ranges) -> Ranges:
    """Offsets of either set."""
    return normalized((*a, *b))


def contains(outer: Ranges, inner: Ranges) -> bool:
    """Whether every offset of `inner` is in `outer` (SQL: `outer @> inner`)."""
    position = 0
    for first, last in inner:
        while position < len(outer) and outer[position][1] < first:
            position += 1
        if position == len(outer) or not (outer[position][0] <= first and last <= outer[position][1]):
            return False
    return True


def size(ranges: Ranges) -> int:
    """Number of offsets in the set."""
    return sum(last - first + 1 for first, last in ranges)


def to_multirange(ranges: Ranges) -> str:
    """PostgreSQL's text form: `{[0,6),[9,10)}`."""
    return "{" + ",".join(f"[{first},{last + 1})" for first, last in ranges) + "}"
