"""The sink's metrics, and the last step of the traces of what it stores."""

import logging
from collections.abc import Sequence
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from runtime import clock
from runtime.metrics import STAGE_BUCKETS, STAGE_HELP, STAGE_METRIC, received_header, seconds_between
from runtime.rejected import REJECTS_LOST
from runtime.tasks import TaskMetrics
from runtime.telemetry import Telemetry, context_of, trace_id_of
from sink.records import Incoming

log = structlog.get_logger(__name__)

#: A line for each candle costs more than storing it, so the question comes first.
_IS_DEBUGGING: Final = logging.getLogger(__name__).isEnabledFor


class CheckMetrics:
    """What the idle-time check has looked at and found."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.minutes = Counter(
            "tickpipe_sink_checked_minutes",
            "Minutes of a symbol that the log holds and that were looked for in the table.",
            registry=registry,
        )
        self.missing = Counter(
            "tickpipe_sink_missing_minutes",
            "Minutes that the table lacked, in whole or in part, and that were folded from the log and stored.",
            registry=registry,
        )
        self.begun_at = Gauge(
            "tickpipe_sink_checked_timestamp_seconds",
            "Beginning of the newest check that got done, or of the sink before its first; 0 when it checks none.",
            registry=registry,
        )


class Metrics:
    """The sink's metrics, in the registry that is handed in; names begin with `tickpipe_sink_`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        registry.register(REJECTS_LOST)
        #: action: inserted, replaced, ignored, closed, refold (requested), refolded, cross_log, rejected, unprovable,
        #: bar (stored).
        self.rows = Counter(
            "tickpipe_sink_rows", "Candles and bars by what became of them.", ["action"], registry=registry
        )
        self.batch_seconds = Histogram(
            "tickpipe_sink_batch_seconds",
            "Time to store one batch, retries included.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
            registry=registry,
        )
        #: stage: stored.
        self.stages = Histogram(STAGE_METRIC, STAGE_HELP, ["stage"], buckets=STAGE_BUCKETS, registry=registry)
        self.lag = Gauge(
            "tickpipe_sink_lag_records", "Records that wait in Kafka.", ["topic", "partition"], registry=registry
        )
        self.unseen = Counter(
            "tickpipe_sink_unseen_records",
            "Records that Kafka deleted before the sinks had read them.",
            ["topic"],
            registry=registry,
        )
        self.database_up = Gauge("tickpipe_sink_database_up", "1 while the database answers.", registry=registry)
        #: task: live, refold, materialise, compare, retain, close, check. kind: away, busy, too_slow.
        self.database_trouble = Counter(
            "tickpipe_sink_database_trouble",
            "Times that work for the database could not be done, and was tried again or made smaller.",
            ["task", "kind"],
            registry=registry,
        )
        self.tasks = TaskMetrics(registry)
        self.pending_refolds = Gauge(
            "tickpipe_sink_pending_refolds", "Minutes that wait to be folded again.", registry=registry
        )
        self.refold_records = Counter(
            "tickpipe_sink_refold_records", "Records of the ticks log read to fold minutes again.", registry=registry
        )
        self.stale_hours = Gauge(
            "tickpipe_sink_stale_hours",
            "Hours of a symbol whose minutes changed since they were folded; they are folded when they are read.",
            registry=registry,
        )
        self.materialised_hours = Counter(
            "tickpipe_sink_materialised_hours", "Stale hours that were folded in the background.", registry=registry
        )
        self.checks = CheckMetrics(registry)
        #: verdict: equal, differs, no_bar, no_candle. At most 200 symbols by name, the rest together as `other`.
        self.compared_minutes = Gauge(
            "tickpipe_sink_compared_minutes",
            "Minutes of the last 24 hours by how they compare with the broker's own bars; every sink says the same.",
            ["symbol", "verdict"],
            registry=registry,
        )


class Observer:
    """Times the candles of stored batches, ends their traces and, at level DEBUG, logs each."""

    def __init__(self, metrics: Metrics, telemetry: Telemetry) -> None:
        self._stage = metrics.stages.labels("stored")
        self._telemetry = telemetry

    def stored(self, batch: Sequence[Incoming], began_ms: int) -> None:
        """The batch, begun at `began_ms` (UTC epoch milliseconds), is in the database."""
        now_ms = clock.now_ms()
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
