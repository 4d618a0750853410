"""The rate limit: a token bucket for each API key."""

import math
import time
from collections.abc import Callable


class TokenBuckets:
    """Each holder of a key may make `per_second` requests a second, and as many at once; 0 means no limit."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = max(per_second, 1.0)
        self._clock = clock
        # Holder to (tokens left, when they were counted); as many entries as there are keys.
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, holder: str) -> int:
        """0 when the request may pass, else the seconds after which one may."""
        if not self._per_second:
            return 0
        now = self._clock()
        tokens, counted = self._buckets.get(holder, (self._burst, now))
        tokens = min(self._burst, tokens + (now - counted) * self._per_second)
        if tokens >= 1.0:
            self._buckets[holder] = (tokens - 1.0, now)
            return 0
        self._buckets[holder] = (tokens, now)
        return max(1, math.ceil((1.0 - tokens) / self._per_second))
