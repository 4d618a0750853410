"""Sets of time as ranges, and what a ledger of minutes makes of them.

A range is (first, end) in UTC epoch milliseconds, its end not included. Where a list of ranges is asked for, it is
ascending and its ranges do not overlap; what is returned does not touch either.
"""

from collections.abc import Iterable, Sequence

Range = tuple[int, int]


def union(*sets: Iterable[Range]) -> list[Range]:
    """What is in any of the sets, which may be in any order and overlap."""
    merged: list[Range] = []
    for first, end in sorted(one for ranges in sets for one in ranges if one[0] < one[1]):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((first, end))
    return merged


def subtract(ranges: Iterable[Range], others: Sequence[Range]) -> list[Range]:
    """What is in `ranges` and not in `others`; two of the ranges that touch stay two."""
    left: list[Range] = []
    index = 0
    for first, end in ranges:
        while index < len(others) and others[index][1] <= first:
            index += 1
        begin, at = first, index
        while at < len(others) and others[at][0] < end:
            if begin < others[at][0]:
                left.append((begin, others[at][0]))
            begin = max(begin, others[at][1])
            at += 1
        if begin < end:
            left.append((begin, end))
    return left


def intersect(ranges: Sequence[Range], others: Sequence[Range]) -> list[Range]:
    """What is in both."""
    both: list[Range] = []
    index = 0
    for first, end in ranges:
        while index < len(others) and others[index][1] <= first:
            index += 1
        at = index
        while at < len(others) and others[at][0] < end:
            both.append((max(first, others[at][0]), min(end, others[at][1])))
            at += 1
    return both


def length(ranges: Iterable[Range]) -> int:
    """How long they are together (milliseconds)."""
    return sum(end - first for first, end in ranges)
