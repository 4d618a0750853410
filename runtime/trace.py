"""W3C trace context (https://www.w3.org/TR/trace-context/): the `traceparent` of requests and records. Pure."""

import os
import re
from typing import Final, NamedTuple, Self

from runtime.stages import Headers

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
        digits = os.urandom(24).hex()
        return cls(digits[:32], digits[32:])

    def child(self) -> Self:
        """The next step of the same trace."""
        return self._replace(span_id=os.urandom(8).hex())

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
