"""What the producer counts; names begin with `tickpipe_producer_`, but for the stages that all services share."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from marketdata.stages import STAGE_BUCKETS, STAGE_HELP, STAGE_METRIC

_PREFIX = "tickpipe_producer"

#: Loopback to a broker on another continent (seconds).
_PUBLISH_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: A live tick, a batch of a minute, a resend after an outage, a replay (seconds).
_AGE_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3600.0, 86400.0)


class Metrics:
    """All metrics of one producer, in a registry of their own unless one is given."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        # Memory, CPU and start of the process.
        ProcessCollector(registry=registry)
        self.requests = Counter(f"{_PREFIX}_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.in_flight = Gauge(
            f"{_PREFIX}_requests_in_flight", "Ingest requests that are not answered yet.", registry=registry
        )
        self.ticks_accepted = Counter(
            f"{_PREFIX}_ticks_accepted", "Ticks that Kafka confirmed.", ["source"], registry=registry
        )
        self.bars_accepted = Counter(
            f"{_PREFIX}_bars_accepted", "Broker bars that Kafka confirmed.", ["source"], registry=registry
        )
        self.items_rejected = Counter(
            f"{_PREFIX}_items_rejected", "Items of bodies that could not be used.", ["source"], registry=registry
        )
        self.publish_seconds = Histogram(
            f"{_PREFIX}_publish_seconds",
            "From handing the records of a request to the client until Kafka confirmed the last.",
            buckets=_PUBLISH_BUCKETS,
            registry=registry,
        )
        self.tick_age_seconds = Histogram(
            f"{_PREFIX}_tick_age_seconds",
            "Age of the last tick of each frame when its request came, by the converted time of the tick.",
            buckets=_AGE_BUCKETS,
            registry=registry,
        )
        self.frames_ahead = Counter(
            f"{_PREFIX}_frames_ahead",
            "Frames whose last tick is more than a second ahead of the producer's clock: a wrong clock or zone.",
            ["source"],
            registry=registry,
        )
        #: stage: received, logged (Kafka has confirmed it).
        self.stages = Histogram(STAGE_METRIC, STAGE_HELP, ["stage"], buckets=STAGE_BUCKETS, registry=registry)
        self.kafka_up = Gauge(f"{_PREFIX}_kafka_up", "1 while Kafka confirms what is published.", registry=registry)
        self.kafka_up.set(0)
