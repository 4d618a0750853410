"""What the relay counts; every name begins with `tickpipe_relay_`."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from relay.forwarder import Totals
from relay.store import Store

_PREFIX = "tickpipe_relay"


class Metrics:
    """All metrics of one relay, in a registry of their own."""

    def __init__(self, store: Store, totals: Totals | None) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(f"{_PREFIX}_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.rows_stored = Counter(f"{_PREFIX}_rows_stored", "Ticks and bars on the disk.", registry=registry)
        self.items_rejected = Counter(f"{_PREFIX}_items_rejected", "Items that could not be used.", registry=registry)
        registry.register(_Others(store, totals))


class _Others(Collector):
    """Numbers that the store and the forwarder keep themselves."""

    def __init__(self, store: Store, totals: Totals | None) -> None:
        self._store, self._totals = store, totals

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(f"{_PREFIX}_commits", "Transactions of the database.", value=self._store.commits)
        totals = self._totals
        if totals is None:
            return
        for name, text, value in (
            ("rows_forwarded", "Rows that the server confirmed.", totals.forwarded),
            ("rows_rejected", "Rows that the server refused for good.", totals.rejected),
            ("forward_requests", "Requests that the server answered.", totals.requests),
            ("forward_retries", "Tries that failed and were repeated.", totals.retries),
            ("rows_deleted", "Old rows that were deleted after confirmation.", totals.deleted),
        ):
            yield CounterMetricFamily(f"{_PREFIX}_{name}", text, value=value)
        up = float(totals.is_up is not False and not totals.stopped)
        yield GaugeMetricFamily(f"{_PREFIX}_server_up", "0 while the server does not take ticks.", value=up)
