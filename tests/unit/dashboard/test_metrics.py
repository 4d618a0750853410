"""The status line shows the last moments only."""

from dashboard.metrics import STAGES, Gauges


def test_gauges_forget() -> None:
    now = 0.0
    gauges = Gauges(lambda: now)
    assert (gauges.ticks_per_second(), gauges.latency_ms()) == (0.0, dict.fromkeys(STAGES))
    for latency in range(1, 101):
        gauges.count(2)
        gauges.time({"shown": latency})
    gauges.time({"received": -3})
    assert gauges.ticks_per_second() == 20.0  # 200 ticks in the ten seconds that are looked at
    expected = {**dict.fromkeys(STAGES), "received": {"p50": 0, "p99": 0}, "shown": {"p50": 50, "p99": 99}}
    assert gauges.latency_ms() == expected
    now = 11.0
    assert gauges.ticks_per_second() == 0.0
    assert gauges.latency_ms() == expected
    now = 61.0
    assert gauges.latency_ms() == dict.fromkeys(STAGES)
