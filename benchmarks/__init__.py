"""Measurements that anyone can repeat: `python -m benchmarks.fold --help`. Ratios within one run count."""
