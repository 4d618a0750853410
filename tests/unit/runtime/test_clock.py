"""There is one way to ask for the time."""

import time
from pathlib import Path

from runtime.clock import now_ms

ROOT = Path(__file__).parents[3]


def test_now_is_in_epoch_milliseconds() -> None:
    assert abs(now_ms() - time.time() * 1000) < 1000


def test_nobody_else_makes_milliseconds_of_the_clock() -> None:
    asking = {
        module.relative_to(ROOT).as_posix()
        for folder in ("benchmarks", "dashboard", "producer", "runtime", "sink", "stream_app", "tests", "tickpipe")
        for module in (ROOT / folder).rglob("*.py")
        if "time_ns() // 1_000_000" in module.read_text() and module != Path(__file__)
    }
    assert asking == {"runtime/clock.py"}
