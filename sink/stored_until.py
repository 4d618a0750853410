"""Up to which moment the whole log is known to be folded and stored."""

from collections import deque
from datetime import datetime
from typing import Final

from aiokafka import TopicPartition

from runtime.kafka import Ends, SharedAdmin, log_ends
from runtime.kafka_errors import kafka_errors
from runtime.kafka_groups import committed_offsets
from runtime.settings import Settings

#: Maximum number of readings waited for; with a backlog of more than a day the oldest are dropped.
_MAX_READINGS: Final = 1_440

#: A moment, and the ends of a topic at that moment.
_Reading = tuple[datetime, Ends]


class StoredUntil:
    """Tells up to which moment the whole log is known to be folded and stored."""

    def __init__(self, settings: Settings, admin: SharedAdmin) -> None:
        self._settings = settings
        self._admin = admin
        # Ends of `ticks` that the workers have not reached yet; then ends of `candles.m1`, as they were when the
        # workers had, that the sinks have not stored yet.
        self._unfolded: deque[_Reading] = deque(maxlen=_MAX_READINGS)
        self._unstored: deque[_Reading] = deque(maxlen=_MAX_READINGS)

    async def newest(self, now: datetime) -> datetime | None:
        """The newest such moment; None when none passed since the last call. A call at `now` tells later calls.

        Raises:
            KafkaUnavailable: when Kafka does not answer; the call can be repeated.
        """
        settings = self._settings
        async with self._admin.client() as client:
            with kafka_errors(settings, right="DESCRIBE"):
                folded = await committed_offsets(client, settings.stream_group)
                stored = await committed_offsets(client, settings.sink_group)
            over = _passed(self._unstored, stored, settings.candles_topic)
            if (moment := _passed(self._unfolded, folded, settings.ticks_topic)) is not None:
                self._unstored.append((moment, await log_ends(settings, settings.candles_topic, client)))
            self._unfolded.append((now, await log_ends(settings, settings.ticks_topic, client)))
        return over


def _passed(readings: deque[_Reading], committed: dict[TopicPartition, int], topic: str) -> datetime | None:
    """The moment of the newest reading that was reached; it and those before it are removed."""
    moment = None
    while readings and _is_reached(readings[0][1], committed, topic):
        moment, _ = readings.popleft()
    return moment


def _is_reached(ends: Ends, committed: dict[TopicPartition, int], topic: str) -> bool:
    return all(
        end <= first or committed.get(TopicPartition(topic, partition), -1) >= end
        for partition, (first, end) in ends.items()
    )
