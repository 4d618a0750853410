"""Faults injected for real: processes killed and paused, brokers stopped, under live traffic."""
