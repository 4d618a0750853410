"""What the producer counts; names begin with `tickpipe_producer_`, but for the stages that all services share."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import INF, floatToGoString

from marketdata.tick import DAY_MS
from producer.senders import SourceWatch
from runtime.rejected import REJECTS_LOST
from runtime.telemetry import (
    AHEAD_MS,
    OTHER,
    STAGE_BUCKETS,
    STAGE_HELP,
    STAGE_METRIC,
    Bounded,
    BoundedCounter,
    arrival_seconds,
    seconds_between,
)

_PREFIX = "tickpipe_producer"

#: Loopback to a broker on another continent (seconds).
_PUBLISH_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: Sources, and symbols of sources, with time series of their own.
MAX_SOURCES = 100
MAX_SYMBOLS = 500

#: Keys with time series of their own.
MAX_KEYS = 100

#: A live tick, a batch of a minute, a resend after an outage, a replay (seconds).
_AGE_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3600.0, 86400.0)


class FillMetrics:
    """What came of ranges that were wanted, by source."""

    def __init__(self, registry: CollectorRegistry, source_of: Bounded) -> None:
        self.ticks = BoundedCounter(
            Counter(
                f"{_PREFIX}_ticks_filled",
                "Ticks that Kafka confirmed of ranges that were wanted; not among those accepted.",
                ["source"],
                registry=registry,
            ),
            source_of,
        )
        reports = Counter(
            f"{_PREFIX}_fills", "Ranges that senders reported as done: with ticks, none, or an error.",
            ["source", "outcome"], registry=registry,
        )  # fmt: skip
        #: The counter of a source and an outcome.
        self.reports: Callable[[str, str], Counter] = lambda source, outcome: reports.labels(source_of(source), outcome)


class Metrics:
    """All metrics of one producer, in a registry of their own unless one is given.

    Senders choose the names of sources: those of `sources` and the first others count by name, the rest as `other`.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, sources: Collection[str] = ()) -> None:
        self.registry = registry = registry or CollectorRegistry()
        source_of = Bounded(MAX_SOURCES, known=sources)

        def by_source(name: str, text: str) -> BoundedCounter:
            return BoundedCounter(Counter(f"{_PREFIX}_{name}", text, ["source"], registry=registry), source_of)

        # Memory, CPU and start of the process.
        ProcessCollector(registry=registry)
        registry.register(REJECTS_LOST)
        self._answers = _Answers()
        #: Ingest requests that are not answered yet; a number until somebody asks.
        self.in_flight = 0
        Gauge(
            f"{_PREFIX}_requests_in_flight", "Ingest requests that are not answered yet.", registry=registry
        ).set_function(lambda: self.in_flight)
        self.ticks_accepted = by_source("ticks_accepted", "Ticks that Kafka confirmed.")
        self.fills = FillMetrics(registry, source_of)
        self.ticks_late = by_source("ticks_late", "Accepted ticks that came into a terminal's list behind later ones.")
        self.bars_accepted = by_source("bars_accepted", "Broker bars that Kafka confirmed.")
        self.items_rejected = by_source("items_rejected", "Items of bodies that could not be used.")
        publish = Histograms(
            f"{_PREFIX}_publish_seconds",
            "From handing the records of a request to the client until Kafka confirmed the last.",
            _PUBLISH_BUCKETS,
        )
        self.publish_seconds = publish.of()
        tick_age = Histograms(
            f"{_PREFIX}_tick_age_seconds",
            "Age of the last tick of each frame when its request came, by the converted time of the tick.",
            _AGE_BUCKETS,
        )
        self.tick_age_seconds = tick_age.of()
        self.frames_ahead = by_source(
            "frames_ahead",
            "Frames whose last tick is more than a second ahead of the producer's clock: a wrong clock or zone.",
        )
        stages = Histograms(STAGE_METRIC, STAGE_HELP, STAGE_BUCKETS, labels=["stage"])
        self.received_seconds = stages.of("received")
        #: Until Kafka has confirmed it.
        self.logged_seconds = stages.of("logged")
        self.source_watch = SourceWatch(_PREFIX)
        #: Receipt of the newest ticks (UTC epoch milliseconds) by source and symbol.
        self._last_received: dict[tuple[str, str], int] = {}
        self.key_ends = KeyEnds()
        for collector in (
            self._answers, self.source_watch, _LastReceived(self._last_received), self.key_ends,
            publish, tick_age, stages,
        ):  # fmt: skip
            registry.register(collector)
        self.kafka_up = Gauge(f"{_PREFIX}_kafka_up", "1 while Kafka confirms what is published.", registry=registry)
        self.kafka_up.set(0)

    def answered(self, route: str, status: int, key: str | None = None) -> None:
        """Count an answer, of which there are few kinds; `key` is the name of a known one."""
        self._answers.counts[route, status, key] += 1

    def ticks_of_symbol(self, source: str, symbol: str, time_msc: int, received_ms: int) -> None:
        """Observe a frame by the time of its last tick and by its receipt (UTC epoch milliseconds)."""
        self.tick_age_seconds.observe(seconds_between(time_msc, received_ms))
        # A sender whose clock is ahead would take from the sum.
        if time_msc > received_ms + AHEAD_MS:
            self.frames_ahead.labels(source).inc()
        elif (seconds := arrival_seconds(time_msc, received_ms)) is not None:
            self.received_seconds.observe(seconds)
        # By receipt, for a zone may be wrong by hours; what is older than a day is history that somebody sends.
        if time_msc > received_ms - DAY_MS:
            self.heard(source, symbol, received_ms)

    def heard(self, source: str, symbol: str, received_ms: int) -> None:
        """Note when ticks of a symbol were received (UTC epoch milliseconds), whatever their own time."""
        key = (source, symbol)
        if key not in self._last_received and len(self._last_received) >= MAX_SYMBOLS:
            key = (OTHER, OTHER)
        self._last_received[key] = received_ms


class Histogram:
    """Counts values by buckets; one of the client costs five times as much, a twelfth of a request with one tick."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = [*bounds, INF]
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count it."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Add what was counted, under these values of the family's labels."""
        names = map(floatToGoString, self._bounds)
        family.add_metric(labels, list(zip(names, accumulate(self._counts), strict=True)), self._sum)


class Histograms(Collector):
    """The histograms of one name by the values of its labels."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], *, labels: Sequence[str] = ()) -> None:
        self._family = name, text
        self._bounds = bounds
        self._labels = labels
        self._histograms: dict[tuple[str, ...], Histogram] = {}

    def of(self, *values: str) -> Histogram:
        """The one of these values."""
        return self._histograms.setdefault(values, Histogram(self._bounds))

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(*self._family, labels=self._labels)
        for values, histogram in self._histograms.items():
            histogram.add_to(family, values)
        yield family


class _Answers(Collector):
    """Answers by route, status and key; a dictionary until somebody asks: counters cost a fiftieth of a request."""

    def __init__(self) -> None:
        self.counts: defaultdict[tuple[str, int, str | None], int] = defaultdict(int)
        self._key_of = Bounded(MAX_KEYS)

    def collect(self) -> Iterable[Metric]:
        of_routes: defaultdict[tuple[str, str], int] = defaultdict(int)
        of_keys: defaultdict[tuple[str, str], int] = defaultdict(int)
        for (route, status, key), count in list(self.counts.items()):
            of_routes[route, str(status)] += count
            if key is not None:
                of_keys[self._key_of(key), str(status)] += count
        yield _counter("requests", "Requests answered.", ("route", "status"), of_routes)
        yield _counter(
            "key_requests", "Requests of known keys answered, by the key's name.", ("key", "status"), of_keys
        )


def _counter(name: str, text: str, labels: Sequence[str], counts: Mapping[tuple[str, str], int]) -> Metric:
    family = CounterMetricFamily(f"{_PREFIX}_{name}", text, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


class KeyEnds(Collector):
    """When keys end, asked for whenever somebody reads the metrics: the file of keys changes meanwhile."""

    def __init__(self) -> None:
        #: The end of each key by its name, the first to end first.
        self.of_keys: Callable[[], Mapping[str, datetime]] = dict

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            f"{_PREFIX}_key_end_timestamp_seconds",
            f"When a key of the file of keys ends; of the first {MAX_KEYS} to end, without those that last.",
            labels=["key"],
        )
        for name, end in list(self.of_keys().items())[:MAX_KEYS]:
            family.add_metric([name], end.timestamp())
        yield family


class _LastReceived(Collector):
    """When each symbol was heard of last; a dictionary until somebody asks, for a gauge of each costs too much."""

    def __init__(self, received_ms: Mapping[tuple[str, str], int]) -> None:
        self._received_ms = received_ms

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            f"{_PREFIX}_last_received_timestamp_seconds",
            f"When ticks of a symbol, no older than a day, were last received; of the first {MAX_SYMBOLS} symbols.",
            labels=["source", "symbol"],
        )
        for (source, symbol), received_ms in self._received_ms.items():
            family.add_metric([source, symbol], received_ms / 1000)
        yield family
