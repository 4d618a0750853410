"""The days of ticks that tests and benchmarks use, each with bars to compare with that our code did not fold.

The generated day is there for everybody. The real one, with the provider's own bars, is used as well where it is found:
in the folder that `TICK_DATA_DIR` names, or in `shared/data` beside the checkout.
"""

import csv
import gzip
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from marketdata.tick import Tick
from tests import generated_day

#: Open, high, low and close of the bids of a minute (epoch milliseconds).
Bars = dict[int, tuple[float, float, float, float]]

_FILES = ("eurusd-2019-02-04-ticks.csv.gz", "eurusd-2019-02-04-m1-bid.csv.gz", "usdjpy-2013-01-01-ticks.csv")


@dataclass(frozen=True)
class Day:
    """EURUSD of 2019-02-04 (UTC), and a sparse evening of USDJPY at the beginning of 2013."""

    name: str
    read_ticks: Callable[[], list[Tick]]
    read_bars: Callable[["Day"], Bars]
    read_sparse: Callable[[], list[Tick]]

    @cached_property
    def ticks(self) -> list[Tick]:
        """The quotes of EURUSD in order of time."""
        return self.read_ticks()

    @cached_property
    def bars(self) -> Bars:
        """The bars of EURUSD; a minute without a quote has none."""
        return self.read_bars(self)

    @cached_property
    def sparse(self) -> list[Tick]:
        """The quotes of USDJPY in order of time."""
        return self.read_sparse()

    @property
    def sparse_minutes(self) -> dict[int, int]:
        """Minutes of `sparse` that have quotes (epoch milliseconds), in order, and how many."""
        minutes: dict[int, int] = {}
        for tick in self.sparse:
            minute = tick.time_msc // 60_000 * 60_000
            minutes[minute] = minutes.get(minute, 0) + 1
        return minutes

    def beginning(self, hours: int) -> "Day":
        """Its first hours of EURUSD, with the same evening of USDJPY."""

        def end_ms() -> int:
            return min(self.bars) // 86_400_000 * 86_400_000 + hours * 3_600_000

        def ticks() -> list[Tick]:
            end = end_ms()
            return [tick for tick in self.ticks if tick.time_msc < end]

        def bars(_: Day) -> Bars:
            end = end_ms()
            return {ts: bar for ts, bar in self.bars.items() if ts < end}

        return Day(f"{hours} hours of {self.name}", read_ticks=ticks, read_bars=bars, read_sparse=lambda: self.sparse)

    def write_ticks(self, path: Path) -> Path:
        """Write EURUSD as a gzipped CSV of milliseconds."""
        with gzip.open(path, "wt", compresslevel=1) as file:
            file.write("time_msc,bid,ask,bid_volume,ask_volume\n")
            file.writelines(f"{tick.time_msc},{tick.bid},{tick.ask},1.5,0.75\n" for tick in self.ticks)
        return path

    def write_sparse(self, path: Path) -> Path:
        """Write USDJPY as a CSV of ISO 8601 times with an offset."""
        with path.open("w") as file:
            file.write("timestamp,bid,ask\n")
            file.writelines(f"{iso_time(tick)},{tick.bid},{tick.ask}\n" for tick in self.sparse)
        return path

    def __str__(self) -> str:
        return self.name


def iso_time(tick: Tick) -> str:
    """The time of the tick as ISO 8601 writes it, for example `2013-01-01 22:00:00.295000+00:00`."""
    return datetime.fromtimestamp(tick.time_msc / 1000, UTC).isoformat(sep=" ", timespec="microseconds")


def _quote(time_msc: int, bid: float, ask: float) -> Tick:
    return Tick(time_msc, bid, ask, 0.0, 0.0, 6)


def _made(quotes: Iterable[generated_day.Quote], points: int) -> list[Tick]:
    # A quotient is rounded as a decimal number is when it is read: these doubles are those of the prices as written.
    return [_quote(time_msc, bid / points, ask / points) for time_msc, bid, ask in quotes]


GENERATED = Day(
    "generated",
    read_ticks=lambda: _made(generated_day.quotes(), 100_000),
    read_bars=lambda day: generated_day.bars([(tick.time_msc, tick.bid) for tick in day.ticks]),
    read_sparse=lambda: _made(generated_day.sparse_quotes(), 1_000),
)


def _real(folder: Path) -> Day:
    ticks, bars, sparse = (folder / name for name in _FILES)

    def read_ticks() -> list[Tick]:
        with gzip.open(ticks, "rt") as file:
            rows = csv.DictReader(file)
            return [_quote(int(row["time_msc"]), float(row["bid"]), float(row["ask"])) for row in rows]

    def read_bars(_: Day) -> Bars:
        with gzip.open(bars, "rt") as file:
            return {
                int(row["time_msc"]): (float(row["open"]), float(row["high"]), float(row["low"]), float(row["close"]))
                for row in csv.DictReader(file)
            }

    def read_sparse() -> list[Tick]:
        with sparse.open() as file:
            return [
                _quote(
                    round(datetime.fromisoformat(row["timestamp"]).timestamp() * 1000),
                    float(row["bid"]), float(row["ask"]),
                )
                for row in csv.DictReader(file)
            ]  # fmt: skip

    return Day("real", read_ticks, read_bars, read_sparse)


def _days() -> tuple[Day, ...]:
    named = os.environ.get("TICK_DATA_DIR")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if all((folder / name).exists() for name in _FILES):
        return GENERATED, _real(folder)
    if named:
        raise FileNotFoundError(f"TICK_DATA_DIR names {folder}, which lacks one of {', '.join(_FILES)}")
    return (GENERATED,)


#: The generated day, and the real one where it is found.
DAYS = _days()

#: Ticks of the generated day.
EURUSD_COUNT = 136_584


def eurusd_ticks() -> list[Tick]:
    """The quotes of the generated day, in order of time."""
    return GENERATED.ticks


def eurusd_bars() -> Bars:
    """The bars of the generated day."""
    return GENERATED.bars


def report() -> str:
    """Which days this run uses, in one line."""
    if len(DAYS) == 1:
        return "ticks: a generated day of EURUSD (real days: set TICK_DATA_DIR)"
    return "ticks: a generated day of EURUSD, and the real one for the rare tests that name it"
