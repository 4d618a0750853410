"""What of a batch can be stored at all."""

import asyncio
from typing import cast

from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from marketdata.candle import Candle
from marketdata.runs import Record
from sink.batch import Incoming, Rejects, Store
from sink.db.connection import Database
from sink.metrics import Metrics
from sink.writer import Writer
from tests.integration.sink.fixed import FixedLogEnds
from tests.unit.sink.candles import candle

CANDLES = TopicPartition("candles.m1", 0)


class CountedLogEnds(FixedLogEnds):
    """A log of two partitions, and how often its ends were asked for."""

    def __init__(self, end: int) -> None:
        super().__init__(end)
        self.asked = 0

    async def refresh(self) -> None:
        self.asked += 1
        await super().refresh()


async def test_forged_candles_are_sorted_out_and_the_log_is_asked_once_for_all_of_them() -> None:
    ends = CountedLogEnds(end=1_000)
    store = Store(Database("", asyncio.Event()), Writer(ends, Metrics(CollectorRegistry())), cast(Rejects, None))
    true = [candle([(0, 0, 9)]), candle([(1, 900, 1_002)]), candle([(5, 0, 10**9)], log="another/ticks")]
    forged = [candle([(0, n, 10**9)]) for n in range(500)] + [candle([(2, 0, 9)])]
    mixed = [Incoming(CANDLES, cast(Record, None), one) for one in (*forged, *true)]

    batch = await store.prepare(mixed)

    assert [cast(Candle, one.value) for one in batch.good] == true
    assert len(batch.bad) == len(forged)
    assert ends.asked == 1
    # A log that is known to reach so far is not asked.
    await store.prepare(batch.good)
    assert ends.asked == 1


async def test_a_look_at_all_proofs_at_once_lets_none_pass_that_one_by_one_would_not() -> None:
    ends = FixedLogEnds(end=1_000)
    await ends.refresh()
    within, beyond = candle([(0, 0, 9), (1, 900, 1_002)]), candle([(0, 0, 9), (1, 5, 10**9)])
    nowhere, other = candle([(2, 0, 9)]), candle([(0, 0, 10**9)], log="another/ticks")
    for candles in ([within], [within, beyond], [beyond, within], [within, nowhere], [within, other], []):
        may_hold = all(map(ends.may_hold, candles))
        assert ends.may_hold_all([one.offsets for one in candles]) == (may_hold and other not in candles)
