"""Label values that senders choose: Prometheus keeps a time series for each, so there must be an end to them."""

from collections.abc import Collection
from typing import Final

from prometheus_client import Counter

#: Stands for every value beyond the limit.
OTHER: Final = "other"


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
