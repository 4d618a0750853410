"""The wall clock as UTC epoch milliseconds."""

import time


def now_ms() -> int:
    """The current time."""
    return time.time_ns() // 1_000_000
