"""How far the ticks topic reaches: stored offsets beyond its end belong to a topic that was deleted since."""

from marketdata.kafka import log_ends
from marketdata.settings import Settings


class LogEnds:
    """The ends of the partitions of the log that is read here, asked for only when a stored offset is news."""

    def __init__(self, settings: Settings, cluster_id: str) -> None:
        self._settings = settings
        #: `<cluster id>/<topic>` as the stream app writes it into candles.
        self.own_log = f"{cluster_id}/{settings.ticks_topic}"
        self._ends: dict[int, int] = {}

    async def end_before(self, partition: int, stored_end: int) -> int | None:
        """The partition's end when it lies before `stored_end`, which follows a stored offset; None when it does not.

        Raises:
            KafkaUnavailable: when no broker answers; the call can be repeated.
        """
        if stored_end > self._ends.get(partition, 0):
            ends = await log_ends(self._settings, self._settings.ticks_topic)
            self._ends = {partition: end for partition, (_, end) in ends.items()}
        end = self._ends.get(partition, 0)
        return end if stored_end > end else None
