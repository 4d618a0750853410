"""Faust's Kafka transport, changed so that an agent gets one event per partition and poll, and commits are exact.

Faust hands out one event per record, which costs more than folding it (7 k records/s; 20 times as many in polls). It
commits what was acknowledged, and acknowledges by itself what it skips while a group rebalances: that loses ticks. Here
an event carries a poll, acknowledgements mean nothing, and `release` says how far may be committed.

Every use of Faust's private names is here, written for faust-streaming 0.15.3, which pyproject.toml pins; the tests of
the worker that are marked `contract` hold it to them, and `make test-newest` runs those on the newest release.

| private names | why | public alternative that was tried | when a name goes |
| --- | --- | --- | --- |
| `_new_consumer_thread`, `_consumer`, `_ensure_consumer` | bare records, one fetch a round, an end without a broker, the group's error | `consumer_*` settings: none of them reaches the aiokafka consumer | the class is not used: records come one by one and `_to_batch_message` fails at the first |
| `_wait_next_records`, `_buffered_partitions` | one event for each partition and poll | `stream.take()`: gathers after each record was an event already | `AttributeError` at the first poll |
| `_new_offset`, `_filter_tps_with_pending_acks`, `_add_gap`, `_unacked_messages` | commits are what was released | `stream.noack()` and `event.ack()`: what a rebalance skips is acknowledged all the same | nothing is committed, and the watchdog ends the worker |
| `_committed_offset`, `_commit` | where reading began, and a topic that was re-created | `consumer.commit()`: never commits less than before | `AttributeError` in the first fold |
"""  # noqa: E501  # a table

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import structlog
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage, Message

from marketdata.runs import Record
from runtime.aiokafka_internals import (
    bracket_fetches,
    end_fetches,
    group_error,
    hand_out_bare_records,
    rejoin_group,
)
from stream_app.gate import FetchGate

log = structlog.get_logger(__name__)


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    gate: FetchGate

    async def on_start(self) -> None:
        await super().on_start()
        consumer, gate = self._ensure_consumer(), self.gate
        hand_out_bare_records(consumer)
        bracket_fetches(consumer, gate.pass_through, gate.shut)

    async def on_thread_stop(self) -> None:
        if self._consumer is not None:
            await end_fetches(self._consumer)
        await super().on_thread_stop()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to what is committed, and to the beginning of each partition of which nothing is.

        aiokafka leaves such a partition where the last poll ended. A poll that a rebalance makes void, in the minutes
        before the first commit, would be missed: `MissedRecords`, and the worker ends.
        """
        committed: Mapping[TP, int] = await super().seek_to_committed()
        if uncommitted := [tp for tp, offset in committed.items() if not offset]:
            with suppress(IllegalStateError):  # another rebalance has revoked them, and will seek again
                await self.seek_to_beginning(*uncommitted)
        return committed

    def group_error(self) -> Exception | None:
        """Why this process takes no part in its group any more; None when it does, or may again by itself.

        aiokafka waits until it is asked for such an error, and Faust never asks: it would stand idle for ever.
        """
        return None if self._consumer is None else group_error(self._consumer)

    async def rejoin_group(self) -> None:
        """Join the group again; see `GroupWatch`."""
        if self._consumer is not None:
            await self.call_thread(rejoin_group, self._consumer)


class BatchConsumer(driver.Consumer):
    """Yields one message per partition and poll; its value is the list of its records."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._released: dict[TP, int] = {}
        self.gate = FetchGate()
        super().__init__(*args, **kwargs)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 - Faust's name
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]  # any awaitable event will do, as Faust does
        # Taken before the fetch: records fetched for the former owner's positions must not pass for the new one's.
        generation = self.app.consumer_generation_id
        records, active = await self._wait_next_records(timeout)
        if records is None or self.should_stop:
            return
        if not self.flow_active or self.app.consumer_generation_id != generation:
            # A rebalance began, or even ended, while we waited: it is unknown which positions these records belong to.
            try:
                await self.perform_seek()
            except Exception as exc:  # Faust does the same: the partitions may be gone by now
                log.warning("Could not seek after a rebalance.", action="seek_failed", error=str(exc))
            return
        for tp, batch in records.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if batch and (active is None or tp in active or tp in self._buffered_partitions):
                self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
                yield tp, self._to_batch_message(tp, batch)

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        thread = _ConsumerThread(self, loop=self.loop, beacon=self.beacon)
        thread.gate = self.gate
        return thread

    def _to_batch_message(self, tp: TP, batch: Sequence[Record]) -> ConsumerMessage:
        last = batch[-1]
        return ConsumerMessage(
            tp.topic, tp.partition, last.offset, last.timestamp / 1000, last.timestamp_type,
            headers=[], key=None, value=cast(Any, batch), checksum=None, tp=tp,
            generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    def release(self, tp: TP, offset: int) -> None:
        """Allow everything below `offset` to be committed, by the next commit if this process still owns `tp`."""
        self._released[tp] = offset

    async def start_over(self) -> None:
        """Read the assigned partitions from their beginning, and commit that nothing of them was read."""
        self._released.clear()
        if beginning := dict.fromkeys(self.assignment(), 0):
            self._committed_offset.update(beginning)
            await self._commit(beginning)
            for tp, offset in beginning.items():
                await self.seek(tp, offset)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self._released.clear()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        # Offsets released meanwhile belong to the previous generation.
        self._released.clear()
        await super().on_partitions_assigned(assigned, generation_id)

    def ack(self, message: Message) -> bool:
        """Do nothing: streams acknowledge by themselves what they skip."""
        self._unacked_messages.discard(message)
        return False

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Do nothing: there is always a gap between the last records of two polls."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: `stream_app.watchdog.Watchdog` looks whether commits move.

        Faust looks at positions that aiokafka does not have between an assignment and the seek: the worker would end.
        """

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return iter(list(self._released))

    def _new_offset(self, tp: TP) -> int | None:
        return self._released.pop(tp, None)

    def group_error(self) -> Exception | None:
        """Why this process takes no part in its group any more, None while it does."""
        thread = cast(_ConsumerThread | None, self._thread)
        return None if thread is None else thread.group_error()

    async def rejoin_group(self) -> None:
        """Join the group again; see `GroupWatch`."""
        if (thread := cast(_ConsumerThread | None, self._thread)) is not None:
            await thread.rejoin_group()

    def committed_offset(self, tp: TP) -> int | None:
        """What this process last committed or found committed."""
        offset: int | None = self._committed_offset[tp]
        return offset


class BatchTransport(driver.Transport):
    """The aiokafka driver with `BatchConsumer`."""

    Consumer = BatchConsumer


def install(app: Any) -> None:
    """Make the Faust app consume in batches; call it before the first agent is declared."""
    app.transport = BatchTransport(app.conf.broker_consumer, app)
