"""The rule of the offsets: which of several candles of one key is stored, and when it must be refolded. Pure.

The functions `candle_verdict` and `candle_outweighs` say the same in SQL, where the stored candle is locked; the tests
hold the two together.
"""

from collections.abc import Sequence
from enum import StrEnum
from operator import attrgetter
from typing import Final, Self

import msgspec

from marketdata.candle import PROVEN_FIELDS, Candle
from marketdata.offsets import Ranges, contains, normalized, size

#: What names a candle.
_key: Final = attrgetter("symbol", "ts", "source", "timeframe")


class Verdict(StrEnum):
    """What becomes of a candle that meets a stored one of the same key."""

    INSERTED = "inserted"
    REPLACED = "replaced"
    IGNORED = "ignored"
    #: An old or repeated fold that knows the minute to be over.
    CLOSED = "closed"
    #: Neither holds the other: the union of both, from whatever partitions, has to be folded.
    REFOLD = "refold"
    #: Offsets of different logs say nothing about each other: more ticks win.
    CROSS_LOG = "cross_log"


def verdict(stored: Candle | None, incoming: Candle) -> Verdict:
    """What becomes of `incoming`, given the candle that is stored, if any."""
    if stored is None:
        return Verdict.INSERTED
    if stored.log != incoming.log:
        return Verdict.CROSS_LOG
    holds, held = contains(incoming.offsets, stored.offsets), contains(stored.offsets, incoming.offsets)
    if not held:
        return Verdict.REPLACED if holds else Verdict.REFOLD
    # Equal sets with unequal values: a replay repairs the row.
    if holds and any(getattr(stored, name) != getattr(incoming, name) for name in PROVEN_FIELDS):
        return Verdict.REPLACED
    return Verdict.CLOSED if incoming.closed and not stored.closed else Verdict.IGNORED


def outweighs(incoming: Candle, stored: Candle, own_log: str) -> bool:
    """Whether `incoming` wins over `stored` of another log: by ticks, at a tie for a log that can still be read."""
    if incoming.volume != stored.volume:
        return incoming.volume > stored.volume
    return incoming.log == own_log != stored.log


class Reduced(msgspec.Struct, frozen=True, gc=False):
    """What is left of several candles of one key."""

    candle: Candle
    #: Offsets that the stored candle should come to hold; more than its own when two candles were incomparable.
    wanted: Ranges
    #: Candles of other logs that lost because they had fewer ticks.
    cross_log: int = 0

    @classmethod
    def only(cls, candle: Candle) -> Self:
        """Of the only candle of its key."""
        return cls(candle, candle.offsets)

    @property
    def is_whole(self) -> bool:
        """Whether the candle has all that is wanted; otherwise it has to be folded again."""
        return self.wanted is self.candle.offsets or self.wanted == self.candle.offsets


def reduce_candles(candles: Sequence[Candle], own_log: str) -> Reduced:
    """Reduce candles of one key, in any order, to the one that is worth writing to the database.

    `own_log` is the log that this installation reads. `candles` must not be empty.
    """
    if len(candles) == 1:
        return Reduced.only(candles[0])
    logs: dict[str, list[Candle]] = {}
    for candle in candles:
        logs.setdefault(candle.log, []).append(candle)
    best, wanted = max(
        (_reduce_log(group) for group in logs.values()),
        key=lambda reduced: (reduced[0].volume, reduced[0].log == own_log, reduced[0].log),
    )
    closed = any(candle.closed for candle in candles)
    if closed and not best.closed:
        best = msgspec.structs.replace(best, closed=True)
    return Reduced(best, wanted, len(logs) - 1)


def reduce_batch(candles: Sequence[Candle], own_log: str) -> list[Reduced]:
    """One candle for each key in `candles`; `own_log` as for `reduce_candles`."""
    if len(set(map(_key, candles))) == len(candles):
        # As a replay publishes them; nothing to group.
        return list(map(Reduced.only, candles))
    keys: dict[tuple[object, ...], list[Candle]] = {}
    for candle in candles:
        keys.setdefault(_key(candle), []).append(candle)
    return [reduce_candles(group, own_log) for group in keys.values()]


def _reduce_log(candles: list[Candle]) -> tuple[Candle, Ranges]:
    widest = max(candles, key=lambda candle: (size(candle.offsets), *_preference(candle)))
    if all(contains(widest.offsets, candle.offsets) for candle in candles):
        return widest, widest.offsets
    wanted = normalized(r for candle in candles for r in candle.offsets)
    return max(candles, key=_preference), wanted


def _preference(candle: Candle) -> tuple[object, ...]:
    # More ticks show more of the minute until it is folded again; of equal folds the newer one is the repair. The rest
    # only makes the order total, so that the outcome does not depend on arrival.
    return (
        candle.volume, candle.emitted, candle.closed, candle.offsets,
        *(-1 if (value := getattr(candle, name)) is None else value for name in PROVEN_FIELDS),
    )  # fmt: skip
