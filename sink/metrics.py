"""The sink's metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from runtime.rejected import REJECTS_LOST
from runtime.service import TaskMetrics
from runtime.telemetry import STAGE_BUCKETS, STAGE_HELP, STAGE_METRIC


class CheckMetrics:
    """What the idle-time check has looked at and found, and which ticks are missing by the ledger."""

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
        #: state: wanted, failed.
        self.gap_minutes = Gauge(
            "tickpipe_gap_minutes",
            "Minutes of the newest days that should have ticks and have none; of the sink that keeps the ledger.",
            ["state"],
            registry=registry,
        )


class Metrics:
    """The sink's metrics, in the registry that is handed in; names begin with `tickpipe_sink_`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        registry.register(REJECTS_LOST)
        #: action: inserted, replaced, ignored, closed, refold (requested), refolded, cross_log, rejected, unprovable,
        #: bar (stored), reference, report.
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
