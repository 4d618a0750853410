from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from runtime.metrics import OTHER, Bounded, BoundedCounter

NAMES = st.text("abc", max_size=3)


@given(st.integers(0, 5), st.sets(NAMES, max_size=8), st.lists(NAMES, max_size=50))
def test_labels_are_bounded_stable_and_known_ones_always_have_their_own(
    limit: int, known: set[str], values: list[str]
) -> None:
    label_of = Bounded(limit, known)
    labels = {value: label_of(value) for value in values}
    assert len({label for label in labels.values() if label != OTHER}) <= max(limit, len(known))
    assert all(labels[value] == value for value in values if value in known)
    assert all(label in (value, OTHER) for value, label in labels.items())
    assert {value: label_of(value) for value in values} == labels


def test_what_is_beyond_the_limit_is_counted_together() -> None:
    registry = CollectorRegistry()
    counter = BoundedCounter(Counter("ticks", "Ticks.", ["source"], registry=registry), Bounded(2, known=["K"]))
    for source in ("a", "b", "c", "K", "a"):
        counter.labels(source).inc()
    found = {s: registry.get_sample_value("ticks_total", {"source": s}) for s in ("a", "K", OTHER, "b", "c")}
    assert found == {"a": 2, "K": 1, OTHER: 2, "b": None, "c": None}
