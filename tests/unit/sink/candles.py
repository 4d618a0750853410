"""Candles for the tests of the sink, true ones folded from a small log and plain ones made by hand."""

from collections.abc import Iterable

import msgspec

from marketdata.candle import BrokerBar, Candle
from marketdata.offsets import Range, Ranges, Span, position
from marketdata.refold import Proof, Refold
from marketdata.tick import Frame, Tick

#: 2019-02-04 00:00 UTC.
MINUTE = 1_549_238_400_000
OWN_LOG = "cluster/ticks"


def candle(at: Iterable[Span | Range] = ((0, 9),), **changes: object) -> Candle:
    """A candle of source S and symbol EURUSD of the given ranges, in partition 0 unless they name another."""
    offsets = tuple(one if len(one) == 3 else (0, *one) for one in at)
    ts = changes.get("ts", MINUTE)
    assert isinstance(ts, int)
    plain = Candle(
        source="S", symbol="EURUSD", ts=MINUTE, open=1.1, high=1.3, low=1.0, close=1.2, volume=10, real_volume=0.0,
        spread=2, first_tick=ts, last_tick=ts + 9_000, log=OWN_LOG, offsets=offsets, closed=False,
        received=ts + 9_100, emitted=ts + 9_200,
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
    """The candle of the minute MINUTE from the records of `ranges`, with `log` in every partition from 0 to 2."""
    proof = Proof("S", "EURUSD", MINUTE, ranges)
    refold = Refold([proof])
    for partition in range(3):
        refold.feed([(position(partition, offset), frame) for offset, frame in enumerate(log)])
    made = refold.results()[proof].candle(log=OWN_LOG, offsets=ranges, closed=closed, emitted=MINUTE)
    assert made is not None
    return made


def bar_of_minute(ts: int) -> BrokerBar:
    """The broker's own M1 of source S and symbol EURUSD."""
    return BrokerBar(
        source="S", symbol="EURUSD", timeframe="M1", ts=ts, open=1.1, high=1.3, low=1.0, close=1.2, volume=10,
        received=ts + 60_000,
    )  # fmt: skip
