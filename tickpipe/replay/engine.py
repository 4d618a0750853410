"""Folds history again: finds where in the log to begin, sets the stream group back, and follows it to the end.

Beginning too early costs only time: the new folds equal the stored ones. Beginning too late does no harm either: a fold
of fewer offsets never replaces a stored one of more, so it would simply repair nothing.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from aiokafka import TopicPartition

from marketdata.errors import KafkaUnavailable, PartitionsLost, TickpipeError
from runtime.kafka import admin_client, log_ends
from runtime.kafka_errors import kafka_errors
from runtime.kafka_groups import commit_offsets, describe_group, group_offsets
from runtime.settings import Settings
from runtime.ticklog import TickLog
from sink.progress import with_sink_group

#: A worker with a static member name stays in the group until its session ends, 10 s after it stopped; plus a reserve
#: (seconds).
SESSION_OVER_SECONDS: Final = 15.0

#: How often a group is asked for its members or offsets (seconds).
_POLL_SECONDS: Final = 0.5

#: States of a group that has no members (Kafka: ClassicGroupState).
_NO_MEMBERS: Final = frozenset({"Empty", "Dead", ""})


class GroupActive(TickpipeError):
    """The stream group has members; its offsets can be reset only when every stream worker is stopped."""


class ReplayStalled(TickpipeError):
    """The committed offsets do not move although there is lag; see the log of the service that should move them."""

    retriable = True


@dataclass(frozen=True)
class PartitionPlan:
    """What a replay does with one partition of the ticks topic."""

    partition: int
    #: The committed offset of the stream group; None when it never committed and thus begins at the first record.
    committed: int | None
    #: The first offset to be folded.
    begin: int
    #: The end of the log at the time of planning.
    end: int
    #: Offsets before `begin` that belong to it and that the archive alone holds.
    archived: int = 0

    @property
    def records(self) -> int:
        """How many records are folded, for the first time or again."""
        return self.end - self.begin

    @property
    def is_reset(self) -> bool:
        """Whether the group has to be set back."""
        return self.committed is not None and self.begin < self.committed


def begin_of(*, found: int | None, committed: int | None, first: int, end: int) -> int:
    """Where to begin, when the first record that matters is `found` (None: there is none) in a log from `first`.

    Never ahead of the committed offset: what the group has not folded yet would be skipped.
    """
    reached = first if committed is None else committed
    return max(first, min(end if found is None else found, reached, end))


async def plan(settings: Settings, minute_ms: int, *, margin_ms: int) -> list[PartitionPlan]:
    """Where to fold each partition from, so that every minute from `minute_ms` on is complete.

    All partitions are planned: a symbol may lie in several of them, when some were added or a foreign producer
    partitions in its own way.

    Raises:
        KafkaUnavailable: when no broker answers.
    """
    ends = await log_ends(settings, settings.ticks_topic)
    committed = await group_offsets(settings, settings.stream_group, settings.ticks_topic)
    async with TickLog(settings) as tick_log:
        plans = []
        for partition, (first, end) in sorted(ends.items()):
            touching = await tick_log.first_reaching(partition, (first, end), minute_ms, margin_ms=margin_ms)
            reached = committed.get(partition)
            begin = begin_of(found=touching, committed=reached, first=first, end=end)
            whole = (await tick_log.extended({partition: (first, end)}))[partition]
            oldest = await tick_log.first_reaching(partition, whole, minute_ms, margin_ms=margin_ms)
            plans.append(PartitionPlan(partition, reached, begin, end, max(0, first - oldest)))
        return plans


async def wait_until_empty(
    settings: Settings,
    on_wait: Callable[[int, float], None],
    *,
    group: str | None = None,
    patience_seconds: float = SESSION_OVER_SECONDS,
) -> None:
    """Return when the group, by default the stream's, has no members; `on_wait` gets their number and the time waited.

    Raises:
        GroupActive: when there are some for longer than a stopped worker's session lasts.
        KafkaUnavailable: when no broker answers.
    """
    group = group or settings.stream_group
    started = time.monotonic()
    async with admin_client(settings) as client:
        while True:
            with kafka_errors(settings, group=group, right="READ"):
                state, members = await describe_group(client, group)
            if state in _NO_MEMBERS:
                return
            waited = time.monotonic() - started
            if waited > patience_seconds:
                who = ", ".join(sorted({f"{client_id} at {host.lstrip('/')}" for _, client_id, host, *_ in members}))
                raise GroupActive(f"the group {group} has {len(members)} active members ({who})")
            on_wait(len(members), waited)
            await asyncio.sleep(_POLL_SECONDS)


async def reset(settings: Settings, plans: Sequence[PartitionPlan]) -> None:
    """Set the stream group back to where each plan begins; the group must have no members.

    Raises:
        GroupActive: when a worker came back meanwhile.
        KafkaUnavailable: when no broker answers.
    """
    begins = {TopicPartition(settings.ticks_topic, one.partition): one.begin for one in plans if one.is_reset}
    await set_offsets(settings, settings.stream_group, begins)


async def set_offsets(settings: Settings, group: str, offsets: dict[TopicPartition, int]) -> None:
    """Set the committed offsets of the group, which must have no members.

    Raises:
        GroupActive: when a member came back meanwhile.
        KafkaUnavailable: when no broker answers.
    """
    try:
        await commit_offsets(settings, group, offsets)
    except PartitionsLost as exc:
        raise GroupActive(f"a member of the group {group} came back before its offsets were set") from exc


#: Called with the number of records that are done so far.
OnProgress = Callable[[int], None]


async def follow_stream(
    settings: Settings, plans: Sequence[PartitionPlan], on_progress: OnProgress, *, patience_seconds: float
) -> None:
    """Return when the stream group has folded and committed all that was planned.

    Raises:
        ReplayStalled: when nothing moves for `patience_seconds`.
    """
    goals = {one.partition: (one.begin, one.end) for one in plans}
    await _follow(
        settings,
        settings.stream_group,
        settings.ticks_topic,
        goals,
        on_progress=on_progress,
        patience_seconds=patience_seconds,
    )


async def follow_sink(
    settings: Settings, on_total: OnProgress, on_progress: OnProgress, *, patience_seconds: float
) -> None:
    """Return when the sink has stored every candle that is published by now.

    Raises:
        ReplayStalled: when nothing moves for `patience_seconds`.
    """
    settings = await with_sink_group(settings)
    ends = await log_ends(settings, settings.candles_topic)
    committed = await group_offsets(settings, settings.sink_group, settings.candles_topic)
    goals = {p: (max(first, committed.get(p, first)), end) for p, (first, end) in ends.items()}
    on_total(sum(end - begin for begin, end in goals.values()))
    await _follow(
        settings,
        settings.sink_group,
        settings.candles_topic,
        goals,
        on_progress=on_progress,
        patience_seconds=patience_seconds,
    )


async def _follow(
    settings: Settings,
    group: str,
    topic: str,
    goals: dict[int, tuple[int, int]],
    *,
    on_progress: OnProgress,
    patience_seconds: float,
) -> None:
    total = sum(end - begin for begin, end in goals.values())
    done, moved_at = -1, time.monotonic()
    while True:
        # While the broker is unavailable, keep waiting.
        with suppress(KafkaUnavailable):
            committed = await group_offsets(settings, group, topic)
            reached = done_of(goals, committed)
            on_progress(reached)
            if reached >= total:
                return
            if reached != done:
                done, moved_at = reached, time.monotonic()
        if time.monotonic() - moved_at > patience_seconds:
            raise ReplayStalled(
                f"the group {group} has not moved for {patience_seconds:g} s, {total - max(0, done):,} records before "
                f"the end of {topic}; does the service run (`tickpipe status`), and what does its log say?"
            )
        await asyncio.sleep(_POLL_SECONDS)


def done_of(goals: dict[int, tuple[int, int]], committed: dict[int, int]) -> int:
    """How many records between the goals of each partition are done."""
    return sum(min(max(committed.get(p, begin), begin), end) - begin for p, (begin, end) in goals.items())
