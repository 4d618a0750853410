"""The stream app's metrics, in one place; names carry Prometheus units."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from runtime.rejected import REJECTS_LOST
from runtime.telemetry import STAGE_BUCKETS, STAGE_HELP, STAGE_METRIC


class Metrics:
    """Every metric of the stream app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Memory, CPU and start of the process.
        ProcessCollector(registry=self.registry)
        self.registry.register(REJECTS_LOST)
        prefix = "tickpipe_stream"
        self.records = Counter(
            f"{prefix}_records", "Records of the ticks topic that were read.", registry=self.registry
        )
        self.ticks = Counter(f"{prefix}_ticks", "Ticks that were folded.", registry=self.registry)
        self.rejected = Counter(f"{prefix}_rejected_records", "Records that are no frames.", registry=self.registry)
        self.candles = Counter(
            f"{prefix}_candles", "Candles that the broker confirmed.", ["closed"], registry=self.registry
        )
        self.emit_failures = Counter(
            f"{prefix}_emit_failures", "Rounds of candles that the broker did not confirm.", registry=self.registry
        )
        self.forgotten = Counter(f"{prefix}_forgotten_minutes", "Minutes dropped from memory.", registry=self.registry)
        self.minutes = Gauge(f"{prefix}_minutes", "Minutes in memory.", registry=self.registry)
        self.ticks_held = Gauge(
            f"{prefix}_buffered_ticks",
            "Ticks in the deduplication buffer: held in memory in case they are sent again.",
            registry=self.registry,
        )
        self.partitions = Gauge(f"{prefix}_partitions", "Partitions that this worker owns.", registry=self.registry)
        self.lag = Gauge(
            f"{prefix}_lag_records",
            "Records behind the end that are not committed.",
            ["partition"],
            registry=self.registry,
        )
        self.emit_seconds = Histogram(
            f"{prefix}_emit_seconds",
            "From the choice of the candles to their confirmation.",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=self.registry,
        )
        #: stage: folded (the oldest frame of each chunk of a poll), published (the candle is confirmed).
        self.stages = Histogram(STAGE_METRIC, STAGE_HELP, ["stage"], buckets=STAGE_BUCKETS, registry=self.registry)

    def exposition(self) -> bytes:
        """What `/metrics` answers."""
        return generate_latest(self.registry)
