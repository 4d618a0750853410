"""What the W3C's trace context takes and what it ignores."""

import pytest

from runtime.telemetry import TraceContext, context_of, parse_traceparent

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
