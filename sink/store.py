"""Stores a batch, rows that the database refuses excepted: they go to `candles.rejected`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from marketdata.candle import BrokerBar, Candle
from runtime.rejected import Rejected
from sink.database import REFUSALS, Database
from sink.records import Incoming
from sink.rejects import Rejects
from sink.writer import Prepared, Writer


@dataclass(frozen=True)
class Batch:
    """Records that were polled together, made ready for the database."""

    good: Sequence[Incoming]
    bad: Sequence[Rejected]
    prepared: Prepared


class Store:
    """Returns from a batch when all of it is either committed to the database or confirmed by Kafka as rejected."""

    def __init__(self, database: Database, writer: Writer, rejects: Rejects) -> None:
        self._database = database
        self._writer = writer
        self._rejects = rejects

    async def prepare(self, good: Sequence[Incoming], bad: Sequence[Rejected] = ()) -> Batch:
        """The batch to store what is good, and to reject what is bad and what the database refuses."""
        candles = [incoming.value for incoming in good if isinstance(incoming.value, Candle)]
        bars = [incoming.value for incoming in good if isinstance(incoming.value, BrokerBar)]
        return Batch(good, bad, await self._writer.prepare(candles, bars))

    async def store(self, batch: Batch) -> None:
        """Store and reject; may be repeated at will.

        Raises:
            psycopg.OperationalError, KafkaUnavailable: when the service is told to stop while one of them is away.
        """
        await self._store(batch)
        await self._rejects.keep(batch.bad)

    async def _store(self, batch: Batch) -> None:
        if not batch.good:
            return
        try:
            await self._database.run(partial(self._writer.store, batch=batch.prepared))
        except REFUSALS as exc:
            if len(batch.good) == 1:
                [refused] = batch.good
                reason = f"the database refuses it: {exc}"
                tp = refused.tp
                await self._rejects.keep([Rejected(tp.topic, tp.partition, refused.record, reason)])
                return
            # Halving finds the culprits in a dozen transactions, whatever the database says about where they are.
            middle = len(batch.good) // 2
            await self._store(await self.prepare(batch.good[:middle]))
            await self._store(await self.prepare(batch.good[middle:]))
