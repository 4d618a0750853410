"""Ticks a second and latencies of the last moments, for the page; Prometheus has counters of its own."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

#: Ticks a second are the mean of this long (seconds).
_RATE_SECONDS: Final = 10.0
#: Latencies of this long are looked at (seconds), and at most so many.
_LATENCY_SECONDS: Final = 60.0
_SAMPLES: Final = 2_000

#: In the order in which a tick passes them; `received` runs from the tick's own time, the others from its receipt.
STAGES: Final = ("received", "folded", "stored", "shown")


class Gauges:
    """What passed lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ticks: deque[tuple[float, int]] = deque()
        self._stages: dict[str, deque[tuple[float, int]]] = {stage: deque(maxlen=_SAMPLES) for stage in STAGES}

    def count(self, ticks: int) -> None:
        """Count the new ticks of a candle."""
        now = self._clock()
        self._ticks.append((now, ticks))
        self._forget(now)

    def time(self, latencies_ms: Mapping[str, int]) -> None:
        """Note, by stage, how long a tick has taken (milliseconds)."""
        now = self._clock()
        for stage, latency_ms in latencies_ms.items():
            self._stages[stage].append((now, max(0, latency_ms)))

    def ticks_per_second(self) -> float:
        """Ticks a second."""
        self._forget(self._clock())
        return sum(ticks for _, ticks in self._ticks) / _RATE_SECONDS

    def latency_ms(self) -> dict[str, dict[str, int] | None]:
        """Median and 99th percentile of each stage (milliseconds); None where nothing was timed."""
        self._forget(self._clock())
        return {stage: _percentiles([latency for _, latency in times]) for stage, times in self._stages.items()}

    def _forget(self, now: float) -> None:
        while self._ticks and self._ticks[0][0] < now - _RATE_SECONDS:
            self._ticks.popleft()
        for times in self._stages.values():
            while times and times[0][0] < now - _LATENCY_SECONDS:
                times.popleft()


def _percentiles(latencies_ms: list[int]) -> dict[str, int] | None:
    if not latencies_ms:
        return None
    ordered = sorted(latencies_ms)
    last = len(ordered) - 1
    return {"p50": ordered[last // 2], "p99": ordered[round(last * 0.99)]}
