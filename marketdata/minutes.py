"""Sets of time as ranges, and what a ledger of minutes makes of them.

A range is (first, end) in UTC epoch milliseconds, its end not included. Where a list of ranges is asked for, it is
ascending and its ranges do not overlap; what is returned does not touch either.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Final

from marketdata.tick import MINUTE_MS

Range = tuple[int, int]

_DAY: Final = timedelta(days=1)

#: A sender is asked for ranges of at most an hour: a busy symbol has tens of thousands of ticks in it (milliseconds).
ASK_MS: Final = 3_600_000


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


#: Day of the week, 0 is Sunday, and minutes of that day, the end not included (MT5: SymbolInfoSessionQuote).
Session = tuple[int, int, int]


def closed_by_sessions(sessions: Sequence[Session], zone: tzinfo, first: int, end: int) -> list[Range]:
    """When a symbol is not quoted between two times; `zone` is the clock by which the sessions are."""

    def moment(day: datetime, minute: int) -> int:
        # The clock of the broker shows it, so it is added to the time that the clock shows.
        return round((day + timedelta(minutes=minute)).replace(tzinfo=zone).timestamp() * 1000)

    day = datetime.fromtimestamp(first / 1000, zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    day -= _DAY
    open_: list[Range] = []
    while moment(day, 0) < end:
        weekday = day.isoweekday() % 7
        open_ += [(moment(day, begin), moment(day, over)) for on, begin, over in sessions if on == weekday]
        day += _DAY
    return subtract([(first, end)], union(open_))


def asks(ranges: Iterable[Range], most: int, done: Sequence[Range] = ()) -> list[Range]:
    """What is asked for so that the ranges are filled: `most` ranges, none longer than an hour, the newest first.

    The minute before and the one after are asked for as well, for a sender that was away saw only a part of them; but
    not those that are `done`, of which a sender has sent all that it has.
    """
    wider = subtract(union((first - MINUTE_MS, end + MINUTE_MS) for first, end in ranges), done)
    asked: list[Range] = []
    for first, over in reversed(wider):
        end = over
        while first < end and len(asked) < most:
            # On whole hours, so that a range that grows leaves the others as they are.
            begin = first if end - first <= ASK_MS else (end - 1) // ASK_MS * ASK_MS
            asked.append((begin, end))
            end = begin
    return asked
