"""Candles for the tests of the sink, true ones folded from a small log and plain ones made by hand."""

import msgspec

from marketdata.candle import Candle
from marketdata.offsets import Ranges
from marketdata.refold import Proof, Refold
from marketdata.tick import Frame, Tick

#: 2019-02-04 00:00 UTC.
MINUTE = 1_549_238_400_000
OWN_LOG = "cluster/ticks"


def candle(offsets: Ranges = ((0, 9),), **changes: object) -> Candle:
    """A candle of source S and symbol EURUSD with the given offsets."""
    plain = Candle(
        source="S", symbol="EURUSD", ts=MINUTE, open=1.1, high=1.3, low=1.0, close=1.2, volume=10, real_volume=0.0,
        spread=2, first_tick=MINUTE, last_tick=MINUTE + 9_000, log=OWN_LOG, partition=0, offsets=offsets, closed=False,
        received=MINUTE + 9_100, emitted=MINUTE + 9_200,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def frame(time_msc: int, bid: float, count: int = 1) -> Frame:
    """A frame of `count` ticks, a millisecond apart, whose bids rise by a point."""
    ticks = [Tick(time_msc + i, bid + i / 100_000, bid + i / 100_000 + 0.00002, 0.0, 0.0, 6) for i in range(count)]
    return Frame(
        v=1, source="S", symbol="EURUSD", mode="bid", point=0.00001, request=f"r{time_msc}", received=time_msc + 100,
        ticks=ticks,
    )  # fmt: skip


def folded(log: list[Frame], ranges: Ranges, *, closed: bool = False) -> Candle:
    """The candle of the minute MINUTE from the records of `ranges`; it names all of them."""
    proof = Proof("S", "EURUSD", MINUTE, ranges)
    refold = Refold([proof])
    refold.feed(list(enumerate(log)))
    made = refold.results()[proof].candle(log=OWN_LOG, partition=0, closed=closed, emitted=MINUTE)
    assert made is not None
    return msgspec.structs.replace(made, offsets=ranges)
