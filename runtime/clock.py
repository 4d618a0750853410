"""The wall clock as this project counts: UTC epoch milliseconds."""

import time


def now_ms() -> int:
    """Now."""
    return time.time_ns() // 1_000_000
