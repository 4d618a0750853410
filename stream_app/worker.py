"""One worker: folds the polls that Faust hands it, publishes candles, releases for commit what no open minute needs."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from aiokafka.admin import AIOKafkaAdminClient

from marketdata.errors import KafkaRefused, KafkaUnavailable, LogShortened, MissedRecords, TickpipeError
from marketdata.runs import Record
from marketdata.timeframes import M1, Timeframe
from runtime import clock
from runtime.logreader import changed_records
from runtime.service import pause_after
from runtime.settings import Settings
from runtime.telemetry import NoTelemetry, Telemetry
from runtime.ticklog import TickLog
from stream_app.emitter import Emitter, Metrics, note_confirmed, outgoing
from stream_app.gate import FETCH_AHEAD_SECONDS, FetchGate
from stream_app.partition import Decoding, Partition
from stream_app.window import Emission, Window

log = structlog.get_logger(__name__)

#: A worker that is further behind the end of the log catches up (records).
_BEHIND_RECORDS = 20_000

#: It then publishes open candles this often only (seconds): nobody waits for prices of the past, which the next round
#: replaces.
_OPEN_INTERVAL_SECONDS = 1.0

#: With thousands of symbols such a round would take longer than folding what came since the one before, so there is
#: this many times as long between two as the last one took, up to the longest interval (seconds).
_OPEN_INTERVAL_ROUNDS = 10
_MAX_OPEN_INTERVAL_SECONDS = 10.0

#: One that is no further behind needs one fetch a round (records): it brings all that comes meanwhile.
_LIVE_RECORDS = 100

#: An idle worker looks this often for minutes that are over (seconds).
_IDLE_SECONDS = 0.2

#: A round looks at every symbol in memory, which takes as long for so many as to publish one candle.
_SYMBOLS_AS_A_CANDLE = 25


@dataclass(frozen=True)
class _Round:
    """What is in flight to the broker for one partition."""

    partition: Partition
    emissions: list[Emission]


class Offsets(Protocol):
    """What the worker needs from the consumer."""

    def committed(self, partition: int) -> int | None:
        """Where reading began when the partition was assigned; None when nothing was committed."""

    def release(self, partition: int, offset: int) -> None:
        """Everything below `offset` may be committed."""

    def end(self, partition: int) -> int:
        """The end of the partition as of its newest poll."""

    @property
    def gate(self) -> FetchGate:
        """What holds back the next fetch."""


def _compare(partition: Partition, records: Sequence[Record]) -> None:
    # A shortened log may have grown past what was read of it before the first poll tells.
    last = partition.last
    if last is not None and any(record.offset == last.offset and record.value != last.value for record in records):
        raise LogShortened(f"the record at offset {last.offset} of partition {partition.number} is another one now")


class Worker:
    """Holds one window per partition; the agent calls `fold`, and a task `publish_next`, both in one event loop."""

    def __init__(
        self,
        settings: Settings,
        emitter: Emitter,
        metrics: Metrics,
        offsets: Offsets,
        *,
        log_name: str,
        telemetry: Telemetry | None = None,
        timeframe: Timeframe = M1,
    ) -> None:
        self._settings = settings
        self._emitter = emitter
        self._metrics = metrics
        self._offsets = offsets
        self._telemetry = telemetry or NoTelemetry()
        self._decoding = Decoding(settings.ticks_topic, metrics, self._telemetry.is_on)
        self._partitions: dict[int, Partition] = {}
        self._publishing = asyncio.Lock()
        self._storing_rejected = asyncio.Lock()
        # What was received before the partitions were assigned is not timed: it waited for a reader.
        self._live_since_ms = clock.now_ms()
        # `<cluster id>/<topic>`, which candles name as their log.
        self._log_name = log_name
        self._timeframe = timeframe
        self._unconfirmed_since: float | None = None
        # When a worker that catches up publishes open candles next (monotonic, seconds).
        self._open_due_at = 0.0
        # Something was folded since the last round began.
        self._folded = asyncio.Event()
        # Since the log was last read from its beginning nothing was revoked.
        self._is_reading_again = False

    @property
    def unconfirmed_seconds(self) -> float:
        """How long candles have been waiting to be confirmed by the broker; 0 while none waits."""
        return 0.0 if self._unconfirmed_since is None else time.monotonic() - self._unconfirmed_since

    async def fold(self, number: int, records: Sequence[Record]) -> None:
        """Fold one poll of the partition `number`.

        Raises:
            MissedRecords: when the poll does not follow on what was read before; the process must start afresh.
            LogShortened: when the partition ends before what was read of it; it must be read from its beginning.
        """
        partition = self._partitions.get(number)
        if partition is None:
            window = Window(
                log=self._log_name, partition=number, grace_ms=int(self._settings.grace_seconds * 1000),
                timeframe=self._timeframe,
            )  # fmt: skip
            partition = self._partitions[number] = Partition(number, window)
            try:
                await self._check_gap(number, self._offsets.committed(number) or 0, records[0].offset)
            except MissedRecords:
                if not self._is_reading_again:
                    raise
                # It was fetched before the log was to be read from its beginning.
                self._partitions.pop(number, None)
                return
        else:
            position = partition.position
            if records[0].offset < position and (end := self._offsets.end(number)) < position:
                # Not the same records again, as after a seek, but others: they must not be taken for the previous ones.
                raise LogShortened(f"partition {number} was read up to offset {position} and ends at {end}")
            if records[0].offset < position:
                _compare(partition, records)
            await self._check_gap(number, position, records[0].offset)
        if self._partitions.get(number) is not partition:
            return  # revoked during the check
        if partition.held and records[0].offset != partition.position:
            # A hole, or the same records again.
            self._fold(partition, partition.release_held())
        if self._waits_for_more(partition, records):
            partition.hold(records)
        else:
            self._fold(partition, [*partition.release_held(), *records] if partition.held else records)
        if partition.rejected and partition.has_many_rejected:
            await self.write_rejected()

    def _waits_for_more(self, partition: Partition, records: Sequence[Record]) -> bool:
        is_behind = self._offsets.end(partition.number) - records[-1].offset > _BEHIND_RECORDS
        return is_behind and self._decoding.blocks.wants_more(len(partition.held) + len(records))

    def _fold(self, partition: Partition, records: Sequence[Record]) -> None:
        ticks = partition.fold(records, self._decoding, self._live_since_ms, time.monotonic())
        self._metrics.records.inc(len(records))
        self._metrics.ticks.inc(ticks)
        self._folded.set()

    async def _check_gap(self, number: int, expected: int, first: int) -> None:
        # Offsets may be missing for good reasons (retention, transaction markers). Records that are there but were
        # not handed to us would be committed over and lost silently, whoever is to blame.
        if first <= expected:
            return
        async with TickLog(self._settings) as tick_log:
            if await tick_log.holds_records(number, expected, first - 1):
                raise MissedRecords(f"offsets {expected} to {first - 1} of partition {number} were never handed over")
        log.info("The log has a hole.", action="hole", partition=number, first=expected, last=first - 1)

    async def check_log(self, client: AIOKafkaAdminClient) -> None:
        """Check over `client` that the log still holds what was read last of each partition.

        Kafka's disk may have been replaced by an older copy. New records then get the offsets of those that are gone,
        and once there are as many, neither the ends nor the polls tell.

        Raises:
            KafkaUnavailable: when the broker does not answer; the call can be repeated.
            LogShortened: when the log holds another record, or none; it must be read from its beginning.
        """
        read = {number: partition for number, partition in self._partitions.items() if partition.last is not None}
        known = {number: partition.last for number, partition in read.items() if partition.last is not None}
        for number in await changed_records(self._settings, client, self._settings.ticks_topic, known):
            # Or it was revoked, or read from its beginning, during the check.
            if self._partitions.get(number) is read[number]:
                offset = known[number].offset
                raise LogShortened(f"the record at offset {offset} of partition {number} is another one now")

    async def pass_hole(self, number: int, end: int) -> None:
        """Release up to `end`, the end of the log, if only a gap lies between it and what was folded.

        A gap is seen with the record after it. One at the end of the log (the marker of a transaction, or all
        that retention left of a partition) would otherwise count as lag until the next tick.

        Raises:
            KafkaUnavailable: when the broker does not answer; the call can be repeated.
        """
        partition = self._partitions.get(number)
        if partition is not None and (partition.held or partition.safe_offset < partition.window.position):
            return
        first = self._offsets.committed(number) or 0 if partition is None else partition.safe_offset
        async with TickLog(self._settings) as tick_log:
            if await tick_log.holds_records(number, first, end - 1):
                return
        if self._partitions.get(number) is not partition:
            return  # revoked during the check, or records came
        log.info("The log ends with a hole.", action="hole", partition=number, first=first, last=end - 1)
        if partition is None:
            self._offsets.release(number, end)
        elif partition.window.position == first:
            # Read to the end, where nothing was; the next round releases it.
            partition.window.feed(first, end - 1, [], now=time.monotonic())

    async def publish_next(self) -> None:
        """Publish as soon as something is folded, or after a while, since minutes close by the clock; then pause."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_SECONDS):
                await self._folded.wait()
        pause_seconds = await self.publish()
        gate = self._offsets.gate
        gate.is_live = self._records_behind <= _LIVE_RECORDS
        await asyncio.sleep(pause_seconds - FETCH_AHEAD_SECONDS)
        gate.open()
        await asyncio.sleep(min(pause_seconds, FETCH_AHEAD_SECONDS))

    async def publish(self) -> float:
        """Publish what changed, release what may be committed, forget what is over.

        A round that the broker does not confirm is published again with the next one. Returns the pause until that
        (seconds): the interval of updates after a round of many candles, and while the worker catches up.
        """
        async with self._publishing:
            started = time.monotonic()
            self._folded.clear()
            closed_only = self._is_behind() and started < self._open_due_at
            rounds = [self._take(partition, closed_only) for partition in self._partitions.values()]
            emissions = [emission for one in rounds for emission in one.emissions]
            made = (outgoing(emission, self._live_since_ms, self._telemetry) for emission in emissions)
            candles = [each for each in made if each is not None]
            if candles:
                self._unconfirmed_since = self._unconfirmed_since or started
                try:
                    await self._emitter.emit(candles)
                except (KafkaUnavailable, KafkaRefused) as exc:
                    log.warning("Candles are not confirmed; they are sent again.", action="emit_failed", error=str(exc))
                    self._metrics.emit_failures.inc()
                    for one in rounds:
                        for emission in one.emissions:
                            one.partition.window.give_back(emission)
                    return self._settings.emit_interval_seconds
                self._unconfirmed_since = None
                note_confirmed(self._metrics, candles, time.monotonic() - started)
            if not closed_only:
                round_seconds = time.monotonic() - started
                self._open_due_at = started + min(
                    max(_OPEN_INTERVAL_SECONDS, _OPEN_INTERVAL_ROUNDS * round_seconds), _MAX_OPEN_INTERVAL_SECONDS
                )
            # A rebalance may have taken partitions away while the broker was confirming.
            owned = {id(partition) for partition in self._partitions.values()}
            for one in rounds:
                if id(one.partition) in owned:
                    self._settle(one)
            return self._pause_seconds(len(emissions))

    def _pause_seconds(self, published: int) -> float:
        interval = self._settings.emit_interval_seconds
        if self._is_behind():
            return interval
        symbols = sum(partition.window.symbols for partition in self._partitions.values())
        return pause_after(published + symbols // _SYMBOLS_AS_A_CANDLE, interval)

    async def write_rejected(self) -> None:
        """Write the rejected records that wait; until then nothing after the first of them is committed.

        This is separate from publishing, so that trouble with the topic of rejected records does not hold up candles.
        """
        async with self._storing_rejected:
            waiting = [(partition, list(partition.rejected)) for partition in self._partitions.values()]
            if not any(rejected for _, rejected in waiting):
                return
            try:
                await self._emitter.reject([one for _, rejected in waiting for one in rejected])
            except TickpipeError as exc:
                if not exc.retriable:
                    raise
                log.warning(
                    "Rejected records are not stored yet; it is tried again.", action="rejected_wait", error=str(exc)
                )
                return
            for partition, rejected in waiting:
                del partition.rejected[: len(rejected)]

    def _is_behind(self) -> bool:
        return self._records_behind > _BEHIND_RECORDS

    @property
    def _records_behind(self) -> int:
        behind = (
            self._offsets.end(number) - partition.window.position for number, partition in self._partitions.items()
        )
        return sum(max(0, records) for records in behind)

    def _take(self, partition: Partition, closed_only: bool) -> _Round:
        emissions = partition.window.emissions(wall_ms=clock.now_ms(), now=time.monotonic(), closed_only=closed_only)
        return _Round(partition, emissions)

    def _settle(self, one: _Round) -> None:
        partition = one.partition
        for emission in one.emissions:
            partition.window.settle(emission)
        self._metrics.forgotten.inc(partition.window.forget(wall_ms=clock.now_ms(), now=time.monotonic()))
        self._offsets.release(partition.number, partition.safe_offset)

    def drop(self) -> None:
        """Forget every partition: a rebalance revokes all of them, and the next owner folds again."""
        self._partitions.clear()
        self._is_reading_again = False
        self._unconfirmed_since = None
        self._live_since_ms = clock.now_ms()

    def start_over(self, log_name: str) -> bool:
        """Forget everything if the log was re-created; returns whether it was."""
        if log_name == self._log_name:
            return False
        log.warning(
            "The ticks topic was re-created; it is read from its beginning.",
            action="log_recreated", log=log_name, before=self._log_name,
        )  # fmt: skip
        self._log_name = log_name
        self.read_again()
        return True

    def read_again(self) -> None:
        """Forget everything; polls that were fetched before the consumer has sought the beginning are ignored."""
        self.drop()
        self._is_reading_again = True

    def observe(self) -> None:
        """Set the gauges of what is in memory, before they are read."""
        windows = [partition.window for partition in self._partitions.values()]
        self._metrics.minutes.set(sum(map(len, windows)))
        self._metrics.ticks_held.set(sum(window.ticks_held for window in windows))
