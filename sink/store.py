"""Stores a batch, rows that the database refuses excepted: they go to `candles.rejected`."""

from collections.abc import Sequence
from functools import partial

from marketdata.candle import BrokerBar, Candle
from sink.database import REFUSALS, Database
from sink.records import Incoming, Rejected
from sink.rejects import Rejects
from sink.writer import Writer


class Store:
    """Returns from a batch when all of it is either committed to the database or confirmed by Kafka as rejected."""

    def __init__(self, database: Database, writer: Writer, rejects: Rejects) -> None:
        self._database = database
        self._writer = writer
        self._rejects = rejects

    async def batch(self, good: Sequence[Incoming], bad: Sequence[Rejected]) -> None:
        """Store what is good; reject what is bad and what the database refuses. May be repeated at will.

        Raises:
            psycopg.OperationalError, KafkaUnavailable: when the service is told to stop while one of them is away.
        """
        await self._store(good)
        for rejected in bad:
            await self._rejects.send(rejected)

    async def _store(self, batch: Sequence[Incoming]) -> None:
        if not batch:
            return
        candles = [incoming.value for incoming in batch if isinstance(incoming.value, Candle)]
        bars = [incoming.value for incoming in batch if isinstance(incoming.value, BrokerBar)]
        try:
            await self._database.run(partial(self._writer.write, candles=candles, bars=bars))
        except REFUSALS as exc:
            if len(batch) == 1:
                await self._rejects.send(Rejected(batch[0].record, f"the database refuses it: {exc}"))
                return
            # Halving finds the culprits in a dozen transactions, whatever the database says about where they are.
            middle = len(batch) // 2
            await self._store(batch[:middle])
            await self._store(batch[middle:])
