"""The archiver's metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The archiver's metrics, in the registry that is handed in; names begin with `tickpipe_archive_`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.ticks = Counter("tickpipe_archive_ticks", "Ticks that were read from the log.", registry=registry)
        self.held = Gauge(
            "tickpipe_archive_held_ticks", "Ticks that were read and are not in a file yet.", registry=registry
        )
        self.lag = Gauge(
            "tickpipe_archive_lag_records", "Records of the log that are not in a file yet.", registry=registry
        )
        self.flush_seconds = Histogram(
            "tickpipe_archive_flush_seconds",
            "Time to write what was held of one partition.",
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 30),
            registry=registry,
        )
        self.failures = Counter(
            "tickpipe_archive_failures", "Attempts that failed and were repeated.", registry=registry
        )
        self.lost = Counter(
            "tickpipe_archive_lost_records",
            "Offsets that Kafka had deleted before they were archived.",
            registry=registry,
        )
        self.damaged = Gauge(
            "tickpipe_archive_damaged",
            "1 while the archive does not hold what its manifests say or what Kafka holds, as far as it was read.",
            registry=registry,
        )
        self.merged = Counter(
            "tickpipe_archive_merged_files", "Small files that went into a day's file.", registry=registry
        )
        self.compared = Counter(
            "tickpipe_archive_compared_records", "Records that were read back and equalled Kafka's.", registry=registry
        )
        self.deleted = Counter(
            "tickpipe_archive_deleted_records", "Offsets that were then deleted from Kafka.", registry=registry
        )
