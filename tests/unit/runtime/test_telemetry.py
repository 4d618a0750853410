"""What the W3C's trace context takes and what it ignores."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from runtime.telemetry import OTHER, Bounded, BoundedCounter, TraceContext, context_of, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_context_is_read_back_and_its_child_stays_in_the_trace() -> None:
    context = TraceContext.new()
    name, value = context.header
    assert parse_traceparent(value) == context
    child = context.child()
    assert child.trace_id == context.trace_id
    assert child.span_id != context.span_id
    assert context_of([("trace", b"x"), (name, value)]) == context


@pytest.mark.parametrize(
    ("value", "is_taken"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-says", True),
        (f"00-{TRACE}-{SPAN}-01-more", False),  # version 00 has four fields
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"00-{TRACE}-{SPAN}", False),
        ("", False),
    ],
)
def test_what_is_no_context_is_ignored(value: str, is_taken: bool) -> None:
    assert parse_traceparent(value.encode()) == (TraceContext(TRACE, SPAN, "01") if is_taken else None)


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
