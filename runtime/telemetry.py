"""A tick's trace through the services, and the time that each stage took.

Trace contexts are those of the W3C (https://www.w3.org/TR/trace-context/). Spans are exported when
TICKPIPE_OTLP_ENDPOINT is set; without it nothing of OpenTelemetry is imported, and a span is no more than the context
that is passed on.

Every service exposes the one histogram `tickpipe_stage_seconds` with its own stages: `received` runs from the tick's
own time to the producer's receipt of it; all others run from that receipt. docs/latency.md tells what is not timed.
"""
# ruff: noqa: PLC0415  # imported only when it is wanted

import re
from collections.abc import Collection, Sequence
from random import getrandbits
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

from prometheus_client import Counter

from marketdata.errors import SettingsError, missing_extra
from runtime.settings import Settings

#: Headers of a record, as aiokafka has them.
Headers = Sequence[tuple[str, bytes]]

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import SpanContext


#: Header of HTTP requests and of the records of `ticks` and `candles.m1`.
TRACEPARENT: Final = "traceparent"

#: Versions after 00 may say more behind a further hyphen; ff is no version.
_FORM: Final = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class TraceContext(NamedTuple):
    """One step of a trace."""

    #: 32 and 16 hexadecimal digits, not all of them 0.
    trace_id: str
    span_id: str
    #: Two hexadecimal digits; the lowest bit says that the caller may have recorded the step.
    flags: str = "00"

    @classmethod
    def new(cls) -> Self:
        """The first step of a new trace."""
        # Ids are no secrets, and the system's random numbers would take twice as long.
        digits = f"{getrandbits(192):048x}"
        return cls(digits[:32], digits[32:])

    def child(self) -> Self:
        """The next step of the same trace."""
        return self._replace(span_id=f"{getrandbits(64):016x}")

    @property
    def header(self) -> tuple[str, bytes]:
        """The header that carries it."""
        return TRACEPARENT, f"00-{self.trace_id}-{self.span_id}-{self.flags}".encode()


def parse_traceparent(value: bytes | None) -> TraceContext | None:
    """The context in the value of a header; None when there is none, or one that the standard says to ignore."""
    found = _FORM.fullmatch(value) if value is not None else None
    if found is None or (found[1] == b"00" and found[5]):
        return None
    return TraceContext(found[2].decode(), found[3].decode(), found[4].decode())


def context_of(headers: Headers) -> TraceContext | None:
    """The context that a record carries."""
    return next((parse_traceparent(value) for name, value in headers if name == TRACEPARENT), None)


def trace_id_of(headers: Headers) -> str | None:
    """The trace of a record, for log lines."""
    context = context_of(headers)
    return None if context is None else context.trace_id


class Span(Protocol):
    """One step in progress."""

    @property
    def context(self) -> TraceContext:
        """The context that is passed on with the data."""

    def end(self, **attributes: str | int) -> None:
        """The step is over."""


class Telemetry(Protocol):
    """Begins spans; times are UTC epoch milliseconds, without one it is now."""

    #: Whether spans are exported, so that it is worth collecting what they tell.
    is_on: bool

    def begin(
        self,
        name: str,
        parent: TraceContext | None,
        *,
        links: Sequence[TraceContext] = (),
        started_ms: int | None = None,
    ) -> Span:
        """Begin the step `name` of the trace of `parent`, or of a new one."""


class _ContextOnly:
    """A span that is only its context."""

    __slots__ = ("context",)

    def __init__(self, context: TraceContext) -> None:
        self.context = context

    def end(self, **attributes: str | int) -> None:
        """Nothing."""


class NoTelemetry:
    """Makes no spans; contexts are still created and passed on."""

    is_on = False

    def begin(self, name: str, parent: TraceContext | None, **_about: object) -> Span:
        """See `Telemetry.begin`."""
        return _ContextOnly(TraceContext.new() if parent is None else parent.child())


class _Exported:
    """A span of OpenTelemetry."""

    def __init__(self, span: "OtelSpan") -> None:
        self._span = span
        about = span.get_span_context()
        self.context = TraceContext(f"{about.trace_id:032x}", f"{about.span_id:016x}", f"{about.trace_flags:02x}")

    def end(self, **attributes: str | int) -> None:
        """The span goes into the next batch that is exported."""
        self._span.set_attributes(attributes)
        self._span.end()


class OtlpTelemetry:
    """Spans by OTLP over HTTP, in batches and from a thread of its own; those that no collector takes are dropped."""

    is_on = True

    def __init__(self, provider: "TracerProvider") -> None:
        self._tracer = provider.get_tracer("tickpipe")

    def begin(
        self,
        name: str,
        parent: TraceContext | None,
        *,
        links: Sequence[TraceContext] = (),
        started_ms: int | None = None,
    ) -> Span:
        """See `Telemetry.begin`."""
        from opentelemetry.trace import Link, NonRecordingSpan, set_span_in_context

        span = self._tracer.start_span(
            name,
            context=None if parent is None else set_span_in_context(NonRecordingSpan(_remote(parent))),
            links=[Link(_remote(link)) for link in links],
            start_time=None if started_ms is None else started_ms * 1_000_000,
        )
        return _Exported(span)


def start_telemetry(settings: Settings, service: str) -> Telemetry:
    """Telemetry as the settings say; spans that wait when the process ends are exported then.

    Raises:
        SettingsError: when an endpoint is set and OpenTelemetry is not installed.
    """
    if not settings.otlp_endpoint:
        return NoTelemetry()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise SettingsError(f"TICKPIPE_OTLP_ENDPOINT is set, but {missing_extra('OpenTelemetry', 'otel')}") from exc
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: f"tickpipe-{service}"}))
    url = f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    return OtlpTelemetry(provider)


def _remote(context: TraceContext) -> "SpanContext":
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(context.flags, 16)),
    )


STAGE_METRIC: Final = "tickpipe_stage_seconds"
STAGE_HELP: Final = "From the producer's receipt of a tick to the end of a stage; `received`: from the tick's own time."

#: A broker on the same machine, the emit interval, a network, an outage (seconds).
STAGE_BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 3600.0)

#: A tick that comes later than this after its own time is history that somebody sends, not a delay (milliseconds).
LIVE_MS: Final = 3_600_000

#: Clocks synchronised by NTP differ by less; a tick further ahead comes from a clock or a zone that is wrong
#: (milliseconds).
AHEAD_MS: Final = 1_000

#: Header of a record of `candles.m1` that the newest ticks in it were received at (epoch milliseconds, as text); only
#: on open candles whose ticks came while their worker was reading, so not on what a replay folds again.
RECEIVED_HEADER: Final = "received"

#: Stands for every value beyond the limit.
OTHER: Final = "other"


def seconds_between(from_ms: int, to_ms: int) -> float:
    """The time between two moments of different clocks (epoch milliseconds) in seconds, never less than 0."""
    return max(0, to_ms - from_ms) / 1000


def arrival_seconds(tick_ms: int, received_ms: int) -> float | None:
    """How long a tick took to the producer (seconds); None when it is history, or from a clock that is ahead."""
    age_ms = received_ms - tick_ms
    return max(0, age_ms) / 1000 if -AHEAD_MS <= age_ms <= LIVE_MS else None


def received_header(headers: Headers) -> int | None:
    """When the newest ticks of a candle were received (epoch milliseconds); None when it is not to be timed."""
    for name, value in headers:
        if name == RECEIVED_HEADER:
            return int(value) if value.isdigit() else None
    return None


class Bounded:
    """Gives the first `limit` values as they are and `OTHER` for the rest; those of `known` always have a place."""

    def __init__(self, limit: int, known: Collection[str] = ()) -> None:
        self._limit = max(limit, len(known))
        self._values = set(known)

    def __call__(self, value: str) -> str:
        """The label for a value."""
        if value in self._values:
            return value
        if len(self._values) >= self._limit:
            return OTHER
        self._values.add(value)
        return value


class BoundedCounter:
    """A counter with one label that senders choose."""

    def __init__(self, counter: Counter, label_of: Bounded) -> None:
        self._counter = counter
        self._label_of = label_of
        # Of the values that have a place; the client's own way to a counter costs more than counting.
        self._counters: dict[str, Counter] = {}

    def labels(self, value: str) -> Counter:
        """The counter of a value, or of all those beyond the limit."""
        counter = self._counters.get(value)
        if counter is None:
            label = self._label_of(value)
            counter = self._counter.labels(label)
            if label == value:
                self._counters[value] = counter
        return counter
