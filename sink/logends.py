"""Which log is read here, and how far it reaches: stored offsets beyond its ends belong to records that are gone."""

import structlog

from marketdata.offsets import beyond
from runtime.kafka import Ends, log_ends
from runtime.log_identity import own_log
from runtime.settings import Settings

log = structlog.get_logger(__name__)


class LogEnds:
    """The log that is read here and the ends of its partitions, asked for only when a candle brings news of them."""

    def __init__(self, settings: Settings, log_name: str) -> None:
        self._settings = settings
        #: As the stream app writes it into candles (`own_log`).
        self.own_log = log_name
        self._others: set[str] = set()
        self._ends: Ends = {}

    async def meet(self, log_name: str) -> None:
        """Find out what a candle's log is to us: when it is not ours, the ticks topic may have been re-created.

        Raises:
            KafkaUnavailable: when no broker answers; the call can be repeated.
        """
        if log_name == self.own_log or log_name in self._others:
            return
        now = await own_log(self._settings)
        if now != self.own_log:
            log.warning("The ticks topic was re-created.", action="log_recreated", log=now, before=self.own_log)
            self.own_log, self._others, self._ends = now, set(), {}
        if log_name != self.own_log:
            self._others.add(log_name)

    @property
    def beyond(self) -> str:
        """Every position that the log was not yet known to reach, as an int8multirange."""
        return beyond(self._ends)

    async def refresh(self) -> None:
        """Ask how far the log reaches by now.

        Raises:
            KafkaUnavailable: when no broker answers; the call can be repeated.
        """
        self._ends = await log_ends(self._settings, self._settings.ticks_topic)
