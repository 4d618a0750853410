"""The real ticks of the test data, and the provider's own bars to compare with."""

import csv
import gzip
import os
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from marketdata.tick import Tick

DATA_DIR = Path(os.environ.get("TICK_DATA_DIR", Path(__file__).parents[2] / "shared" / "data"))

EURUSD_TICKS = DATA_DIR / "eurusd-2019-02-04-ticks.csv.gz"
EURUSD_BARS = DATA_DIR / "eurusd-2019-02-04-m1-bid.csv.gz"
USDJPY_TICKS = DATA_DIR / "usdjpy-2013-01-01-ticks.csv"

#: Ticks of the EURUSD day.
EURUSD_COUNT = 136_741


@cache
def eurusd_ticks() -> list[Tick]:
    """The day's quotes, in order of time."""
    with gzip.open(EURUSD_TICKS, "rt") as file:
        return [
            Tick(int(row["time_msc"]), float(row["bid"]), float(row["ask"]), 0.0, 0.0, 6)
            for row in csv.DictReader(file)
        ]


@cache
def eurusd_bars() -> dict[int, tuple[float, float, float, float]]:
    """The provider's bid bars: minute (epoch milliseconds) to open, high, low, close."""
    with gzip.open(EURUSD_BARS, "rt") as file:
        return {
            int(row["time_msc"]): (float(row["open"]), float(row["high"]), float(row["low"]), float(row["close"]))
            for row in csv.DictReader(file)
        }


@cache
def usdjpy_minutes() -> dict[int, int]:
    """Minutes of the sparse USDJPY file that have ticks (epoch milliseconds), and how many."""
    minutes: dict[int, int] = {}
    with USDJPY_TICKS.open() as file:
        for row in csv.DictReader(file):
            time = datetime.fromisoformat(row["timestamp"]).astimezone(UTC)
            minute = int(time.timestamp()) // 60 * 60_000
            minutes[minute] = minutes.get(minute, 0) + 1
    return minutes
