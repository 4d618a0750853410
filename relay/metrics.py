"""The metrics of a relay."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from relay.back_channel import FillCounts
from relay.collector import Collected
from relay.forwarder import Totals
from relay.pending import Backlog
from relay.store import Store
from runtime.posting import CAUSES

#: What names of metrics begin with.
_PREFIX: Final = "tickpipe_relay"

#: Causes of trouble that are not the server's: the relay's own database, an error in the relay.
_OWN_CAUSES: Final = ("store", "failed")


class Metrics:
    """All metrics of one relay; those of forwarding and collecting only where it does so."""

    def __init__(
        self,
        store: Store,
        totals: Totals | None,
        backlog: Backlog,
        fills: FillCounts,
        collected: Collected | None = None,
    ) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(f"{_PREFIX}_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.rows_stored = Counter(f"{_PREFIX}_rows_stored", "Ticks and bars on the disk.", registry=registry)
        self.items_rejected = Counter(f"{_PREFIX}_items_rejected", "Items that could not be used.", registry=registry)
        registry.register(_Commits(store))
        if totals is not None:
            registry.register(_Forwarding(totals, backlog))
            registry.register(_Filling(fills))
        if collected is not None:
            registry.register(_Collecting(collected))


class _Commits(Collector):
    """What the store counts itself."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(f"{_PREFIX}_commits", "Transactions of the database.", value=self._store.commits)


class _Forwarding(Collector):
    """What the forwarder counts itself, and what waits."""

    def __init__(self, totals: Totals, backlog: Backlog) -> None:
        self._totals, self._backlog = totals, backlog

    def collect(self) -> Iterable[Metric]:
        totals = self._totals
        for name, text, value in (
            ("rows_forwarded", "Rows that the server confirmed.", totals.forwarded),
            ("rows_rejected", "Rows that the server refused for good.", totals.rejected),
            ("forward_requests", "Requests that the server answered.", totals.requests),
            ("forward_retries", "Tries that failed and were repeated.", totals.retries),
            ("rows_deleted", "Old rows that were deleted after confirmation.", totals.deleted),
        ):
            yield CounterMetricFamily(f"{_PREFIX}_{name}", text, value=value)
        gauges: list[tuple[str, str, float]] = [
            ("server_up", "0 while the server does not take ticks.", not totals.trouble),
            ("backlog_rows", "Rows that the server has not confirmed.", self._backlog.rows()),
            ("oldest_unsent_seconds", "Since when the oldest of them waits.", self._backlog.oldest_seconds()),
        ]
        for name, text, gauge in gauges:
            yield GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=gauge)
        trouble = GaugeMetricFamily(f"{_PREFIX}_trouble", "1 for why nothing is forwarded now.", labels=["cause"])
        for cause in (*CAUSES, *_OWN_CAUSES):
            trouble.add_metric([cause], cause == totals.cause)
        yield trouble


class _Filling(Collector):
    """What the server lacked, and what became of it."""

    def __init__(self, fills: FillCounts) -> None:
        self._fills = fills

    def collect(self) -> Iterable[Metric]:
        for name, text, value in (
            ("fills_asked", "Ranges that the server named as lacking ticks.", self._fills.asked),
            ("fills_done", "Ranges that were reported to it as filled.", self._fills.done),
            ("fills_failed", "Ranges that were reported to it as not to be filled.", self._fills.failed),
            ("fills_ticks", "Ticks of the filled ranges.", self._fills.ticks),
        ):
            yield CounterMetricFamily(f"{_PREFIX}_{name}", text, value=value)


class _Collecting(Collector):
    """What the collector counts itself."""

    def __init__(self, collected: Collected) -> None:
        self._collected = collected

    def collect(self) -> Iterable[Metric]:
        collected = self._collected
        for name, text, value in (
            ("collected_ticks", "Ticks taken from the terminal.", collected.ticks),
            ("collected_late_ticks", "Ticks that came late into the terminal's list.", collected.late),
        ):
            yield CounterMetricFamily(f"{_PREFIX}_{name}", text, value=value)
        gauges: list[tuple[str, str, float]] = [
            ("terminal_up", "0 while the terminal gives no ticks.", not collected.trouble),
            ("collected_symbols", "Symbols that are collected.", collected.symbols),
            ("collected_symbols_waiting", "Symbols for which the terminal gives an error.", len(collected.waiting)),
        ]
        for name, text, gauge in gauges:
            yield GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=gauge)
