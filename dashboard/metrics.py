"""Every metric of the dashboard in one place; names begin with `tickpipe_dashboard_`."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.stages import STAGE_BUCKETS, STAGE_HELP, STAGE_METRIC

_PREFIX = "tickpipe_dashboard"


class Metrics:
    """All metrics of one dashboard, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Memory, CPU and start of the process.
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            f"{_PREFIX}_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
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


class CountRequests:
    """ASGI middleware: every answer is counted by its route; files of the page are one."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._requests = metrics.requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._requests.labels(getattr(scope.get("route"), "path", "page"), message["status"]).inc()
            await send(message)

        await self._app(scope, receive, counting if scope["type"] == "http" else send)
