"""A fold built from aggregates that were computed elsewhere, of ticks that all count. Pure.

In plain forward flow every tick counts, so the aggregates of many periods can be computed at once, column by column
(runtime/archive/sums.py). Anything else goes through `marketdata.refold`.
"""

from typing import NamedTuple

from marketdata.aggregates import VOLUME_SCALE
from marketdata.fold import CandleFold
from marketdata.refold import Proof


class Sums(NamedTuple):
    """Aggregates of the ticks of one period; log order is the order of their times."""

    #: The price of the first and of the last tick that has one, the highest and the lowest; all None where none has.
    open: float | None
    high: float | None
    low: float | None
    close: float | None
    #: Ticks that count: those of frames by bid, and the deals of frames by last.
    volume: int
    #: Sum of the deals' volumes, a whole number.
    traded: float
    #: Lowest ask − bid of the ticks that have both; None when none has.
    spread: float | None
    #: Smallest size of a point that a frame says; None when none does.
    point: float | None
    #: Times of the first and the last tick (UTC epoch milliseconds).
    earliest: int
    latest: int
    #: Of the last tick: when its frame was received, and its prices.
    received: int
    bid: float
    ask: float


class SummedFold(CandleFold):
    """The complete fold of a period whose proof is a single range; nothing is added to it."""

    __slots__ = ()

    def __init__(self, proof: Proof, sums: Sums) -> None:
        super().__init__(proof.source, proof.symbol, proof.ts, proof.timeframe)
        [(_, first, last)] = proof.ranges
        self._first_offset, self.last_offset = first, last
        self.earliest, self.latest = sums.earliest, sums.latest
        self.received = sums.received
        self._quote = (sums.bid, sums.ask)
        self._volume = sums.volume
        self._volume_units = int(sums.traded) << VOLUME_SCALE
        self._point = sums.point
        if sums.spread is not None:
            self._spread = sums.spread
        if sums.open is not None and sums.high is not None and sums.low is not None and sums.close is not None:
            self.open, self.high, self.low, self.close = sums.open, sums.high, sums.low, sums.close
            self._open_at, self._close_at = sums.earliest, sums.latest
