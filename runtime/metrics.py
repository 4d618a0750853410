"""What the services' metrics have in common: the stages of a tick's way, and an end to the labels that senders choose.

Every service exposes the one histogram `tickpipe_stage_seconds` with its own stages: `received` runs from the tick's
own time to the producer's receipt of it; all others run from that receipt. docs/latency.md tells what is not timed."""

from collections.abc import Collection, Sequence
from typing import Final

from prometheus_client import Counter

STAGE_METRIC: Final = "tickpipe_stage_seconds"
STAGE_HELP: Final = "From the producer's receipt of a tick to the end of a stage; `received`: from the tick's own time."

#: A broker on the same machine, the emit interval, a network, an outage (seconds).
STAGE_BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 3600.0)

#: A tick that comes later than this after its own time is history that somebody sends, not a delay (milliseconds).
LIVE_MS: Final = 3_600_000

#: Clocks that are kept by NTP differ by less; a tick further ahead comes from a clock or a zone that is wrong
#: (milliseconds).
AHEAD_MS: Final = 1_000

#: Header of a record of `candles.m1` that the newest ticks in it were received at (epoch milliseconds, as text); only
#: on open candles whose ticks came while their worker was reading, so not on what a replay folds again.
RECEIVED_HEADER: Final = "received"

#: Headers of a record, as aiokafka has them.
Headers = Sequence[tuple[str, bytes]]

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
