"""What a stored batch leaves behind: how long its candles took, and the steps of their traces."""

import logging
import time
from collections.abc import Sequence
from typing import Final

import structlog

from runtime.stages import received_header, seconds_between
from runtime.telemetry import Telemetry
from runtime.trace import context_of, trace_id_of
from sink.metrics import Metrics
from sink.records import Incoming

log = structlog.get_logger(__name__)

#: A line for each candle costs more than storing it, so the question comes first.
_IS_DEBUGGING: Final = logging.getLogger(__name__).isEnabledFor


class Trail:
    """Told of every batch when it is stored; a candle that is not to be timed leaves a span alone."""

    def __init__(self, metrics: Metrics, telemetry: Telemetry) -> None:
        self._stage = metrics.stages.labels("stored")
        self._telemetry = telemetry

    def stored(self, batch: Sequence[Incoming], began_ms: int) -> None:
        """The batch, begun at `began_ms` (UTC epoch milliseconds), is in the database."""
        now_ms = time.time_ns() // 1_000_000
        debugging = _IS_DEBUGGING(logging.DEBUG)
        for incoming in batch:
            tp, record = incoming.tp, incoming.record
            if (received_ms := received_header(record.headers)) is not None:
                self._stage.observe(seconds_between(received_ms, now_ms))
            if self._telemetry.is_on and (context := context_of(record.headers)) is not None:
                span = self._telemetry.begin("store", context, started_ms=began_ms)
                span.end(topic=tp.topic, partition=tp.partition, offset=record.offset)
            if debugging:
                log.debug(
                    "Stored a record.", action="record_stored", trace_id=trace_id_of(record.headers),
                    topic=tp.topic, partition=tp.partition, offset=record.offset,
                )  # fmt: skip
