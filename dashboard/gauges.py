"""Ticks a second and latency of the last moments, for the page; Prometheus has counters of its own."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

#: Ticks a second are the mean of this long (seconds).
_RATE_SECONDS: Final = 10.0
#: Latencies of this long are looked at (seconds), and at most so many.
_LATENCY_SECONDS: Final = 60.0
_SAMPLES: Final = 2_000


class Gauges:
    """What passed lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ticks: deque[tuple[float, int]] = deque()
        self._latencies: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)

    def note(self, ticks: int, latency_ms: int) -> None:
        """Count the new ticks of a candle, the newest of which was received `latency_ms` ago."""
        now = self._clock()
        self._ticks.append((now, ticks))
        self._latencies.append((now, max(0, latency_ms)))
        self._forget(now)

    def ticks_per_second(self) -> float:
        """Ticks a second."""
        self._forget(self._clock())
        return sum(ticks for _, ticks in self._ticks) / _RATE_SECONDS

    def latency_ms(self) -> dict[str, int] | None:
        """Median and 99th percentile from a tick's receipt until it was handed out; None when none came."""
        self._forget(self._clock())
        if not self._latencies:
            return None
        ordered = sorted(latency for _, latency in self._latencies)
        last = len(ordered) - 1
        return {"p50": ordered[last // 2], "p99": ordered[round(last * 0.99)]}

    def _forget(self, now: float) -> None:
        while self._ticks and self._ticks[0][0] < now - _RATE_SECONDS:
            self._ticks.popleft()
        while self._latencies and self._latencies[0][0] < now - _LATENCY_SECONDS:
            self._latencies.popleft()
