"""Commits to Kafka what is stored in the database, beside the storing of what follows."""

import asyncio
import contextlib
import time
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from marketdata.errors import PartitionsLost, TickpipeError
from runtime.kafka_errors import kafka_errors
from runtime.service import cancel
from runtime.settings import Settings
from sink.metrics import Metrics
from sink.progress import Positions

log = structlog.get_logger(__name__)

#: The next offset to read of each partition.
Offsets = dict[TopicPartition, int]

#: Kafka answers a commit in milliseconds; later means that it is away, and the next commit covers this one (seconds).
COMMIT_TIMEOUT_SECONDS: Final = 10.0

#: Offsets are committed this often while batches follow each other, and once none does (seconds). After a crash so much
#: more is read again, and found to be stored: reading begins at the smaller of the committed offset and of the progress
#: in the database.
_COMMIT_SECONDS: Final = 0.1


class Commits:
    """The offsets that are stored but not committed yet, and the commit that is under way, of which there is one.

    Rows do not wait for it: Kafka answers late whenever it is busy, and what is stored may be read again.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        #: A rebalance takes partitions out.
        self.pending: Offsets = {}
        self._task: asyncio.Task[bool] | None = None
        self._began_at = 0.0

    async def stored(self, consumer: AIOKafkaConsumer, offsets: Offsets) -> None:
        """Note what was stored, nothing if no record came, and begin to commit if it is time.

        Raises:
            TickpipeError: what the commit before has raised that does not pass.
        """
        self.pending |= offsets
        if self._task is not None:
            if not self._task.done():
                return
            await self._end()
        if self.pending and not (offsets and time.monotonic() - self._began_at < _COMMIT_SECONDS):
            self._task = asyncio.create_task(self._commit(consumer))

    async def settle(self) -> None:
        """Return when Kafka has answered the commit that is under way.

        Before reading begins again after a rebalance: an answer from before would be taken for one to what is read and
        stored again, and that never be committed.
        """
        await self._end()

    async def finish(self, consumer: AIOKafkaConsumer) -> None:
        """Return when everything is committed, or Kafka does not confirm it."""
        if await self._end():
            await self._commit(consumer)

    async def cancel(self) -> None:
        """Leave the commit that is under way."""
        if self._task is not None:
            await cancel(self._task)

    async def _end(self) -> bool:
        """Whether Kafka has answered the commit that was under way, if there was one."""
        task, self._task = self._task, None
        return task is None or await task

    async def _commit(self, consumer: AIOKafkaConsumer) -> bool:
        # The next owner of a partition lost meanwhile reads the batch again, which changes nothing.
        self._began_at = time.monotonic()
        mine, taken = consumer.assignment(), dict(self.pending)
        offsets = {tp: offset for tp, offset in taken.items() if tp in mine}
        try:
            if offsets:
                with self._kafka_errors():
                    await asyncio.wait_for(consumer.commit(offsets), COMMIT_TIMEOUT_SECONDS)
        except PartitionsLost as exc:
            log.info("Partitions were lost before the commit.", action="commit_lost", error=str(exc))
        except TickpipeError as exc:
            if not exc.retriable:
                raise
            log.warning("Kafka did not confirm a commit; the next one covers it.", action="commit_wait", error=str(exc))
            return False
        for tp, offset in taken.items():
            # More may have been stored meanwhile.
            if self.pending.get(tp) == offset:
                del self.pending[tp]
        return True

    def _kafka_errors(self) -> contextlib.AbstractContextManager[None]:
        return kafka_errors(self._settings, group=self._settings.sink_group, right="READ")


class Revocations(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Forgets uncommitted polls of revoked partitions."""

    def __init__(self, uncommitted: Offsets, positions: Positions, metrics: Metrics) -> None:
        self._uncommitted = uncommitted
        self._positions = positions
        self._metrics = metrics

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        for tp in revoked:
            self._uncommitted.pop(tp, None)
        self._positions.forget()
        self._metrics.lag.clear()

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._positions.forget()
        log.info("Partitions were assigned.", action="partitions_assigned", partitions=len(assigned))
