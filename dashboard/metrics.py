"""Every number that the dashboard counts: for Prometheus, and for the status line of the page.

Names of metrics begin with `tickpipe_dashboard_`. The status line shows the last moments; Prometheus computes its rates
from counters of its own.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.telemetry import STAGE_BUCKETS, STAGE_HELP, STAGE_METRIC, Bounded, BoundedCounter

_PREFIX = "tickpipe_dashboard"

#: Keys with time series of their own.
_MAX_KEYS: Final = 100

#: Ticks a second are averaged over this long (seconds).
_RATE_SECONDS: Final = 10.0
#: Percentiles are those of the latencies of this long (seconds), and of at most so many.
_LATENCY_SECONDS: Final = 60.0
_SAMPLES: Final = 2_000

#: In the order in which a tick passes them; `received` runs from the tick's own time, the others from its receipt.
STAGES: Final = ("received", "folded", "stored", "shown")


class Metrics:
    """All metrics of one dashboard, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Memory, CPU and start of the process.
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            f"{_PREFIX}_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        key_requests = Counter(
            f"{_PREFIX}_key_requests", "Requests that came with a key that may read.", ["key"], registry=self.registry
        )
        self._by_key = BoundedCounter(key_requests, Bounded(_MAX_KEYS))
        self.query_seconds = Histogram(
            f"{_PREFIX}_query_seconds",
            "Time to read one page of candles.",
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
            registry=self.registry,
        )
        self.streams = Gauge(f"{_PREFIX}_streams", "Live streams that are open.", registry=self.registry)
        self.candles = Counter(f"{_PREFIX}_candles", "Candles read from Kafka.", registry=self.registry)
        self.undecodable = Counter(
            f"{_PREFIX}_undecodable_records", "Records that are no candles.", registry=self.registry
        )
        self.resyncs = Counter(
            f"{_PREFIX}_resyncs", "Times that a slow stream was told to read again.", registry=self.registry
        )
        #: stage: shown (handed to the live streams).
        self.stages = Histogram(STAGE_METRIC, STAGE_HELP, ["stage"], buckets=STAGE_BUCKETS, registry=self.registry)
        self.kafka_up = Gauge(f"{_PREFIX}_kafka_up", "1 while Kafka answers.", registry=self.registry)
        self.kafka_up.set(0)

    def count_key(self, name: str) -> None:
        """Count a request that came with the key of that name."""
        self._by_key.labels(name).inc()


class CountRequests:
    """ASGI middleware that counts answers by route; all files of the page count as one."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._requests = metrics.requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._requests.labels(getattr(scope.get("route"), "path", "page"), message["status"]).inc()
            await send(message)

        await self._app(scope, receive, counting if scope["type"] == "http" else send)


class Gauges:
    """Ticks a second and latencies of the last moments."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ticks: deque[tuple[float, int]] = deque()
        self._stages: dict[str, deque[tuple[float, int]]] = {stage: deque(maxlen=_SAMPLES) for stage in STAGES}

    def count(self, ticks: int) -> None:
        """Count the new ticks of a candle."""
        now = self._clock()
        self._ticks.append((now, ticks))
        self._forget(now)

    def time(self, latencies_ms: Mapping[str, int]) -> None:
        """Note, by stage, how long a tick has taken (milliseconds)."""
        now = self._clock()
        for stage, latency_ms in latencies_ms.items():
            self._stages[stage].append((now, max(0, latency_ms)))

    def ticks_per_second(self) -> float:
        """Ticks a second."""
        self._forget(self._clock())
        return sum(ticks for _, ticks in self._ticks) / _RATE_SECONDS

    def latency_ms(self) -> dict[str, dict[str, int] | None]:
        """Median and 99th percentile of each stage (milliseconds); None where nothing was timed."""
        self._forget(self._clock())
        return {stage: _percentiles([latency for _, latency in times]) for stage, times in self._stages.items()}

    def _forget(self, now: float) -> None:
        while self._ticks and self._ticks[0][0] < now - _RATE_SECONDS:
            self._ticks.popleft()
        for times in self._stages.values():
            while times and times[0][0] < now - _LATENCY_SECONDS:
                times.popleft()


def _percentiles(latencies_ms: list[int]) -> dict[str, int] | None:
    if not latencies_ms:
        return None
    ordered = sorted(latencies_ms)
    last = len(ordered) - 1
    return {"p50": ordered[last // 2], "p99": ordered[round(last * 0.99)]}
