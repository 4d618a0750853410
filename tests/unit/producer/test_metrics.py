"""The producer's own histograms."""

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from producer.metrics import Histograms

BOUNDS = (0.01, 0.5, 1.0, 60.0)


@given(st.lists(st.sampled_from([*BOUNDS, 0.0, 0.4999, 0.5001, 61.0]), max_size=20))
def test_a_histogram_shows_what_the_clients_own_shows(values: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histograms = Histograms("age", "Age.", BOUNDS, labels=["stage"])
    ours.register(histograms)
    own = prometheus_client.Histogram("age", "Age.", ["stage"], buckets=BOUNDS, registry=theirs)

    for value in values:
        histograms.of("logged").observe(value)
        own.labels("logged").observe(value)

    assert shown(ours) == shown(theirs)


def shown(registry: CollectorRegistry) -> list[str]:
    # When a series was created is not told.
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]
