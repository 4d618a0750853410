"""How throughput and memory change with one quantity: a table, a plot and JSON of a curve.

The points are measured in turn, round by round, so that a machine that slows down does not bend the curve.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import matplotlib as mpl
from rich.console import Console

from benchmarks.outcome import Beginning
from benchmarks.report import RESULTS, table_of
from benchmarks.rounds import Contender, Measured

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class Curve:
    """What is varied and what came of it."""

    #: Of the files in `benchmarks/results`.
    name: str
    #: The quantity on the x axis, such as "symbols".
    over: str
    points: Mapping[int, Sequence[Measured]]
    notes: Sequence[str] = ()
    #: Heading of the seconds that a point took, when they matter more than the rate.
    seconds: str = ""


def measure(
    name: str,
    over: str,
    contenders: Mapping[int, Contender],
    *,
    rounds: int,
    notes: Sequence[str] = (),
    seconds: str = "",
) -> None:
    """Run every point `rounds` times in turn; print and store the curve."""
    console, beginning = Console(), Beginning.now()
    points: dict[int, list[Measured]] = {x: [] for x in contenders}
    for number in range(1, rounds + 1):
        for x, run in contenders.items():
            points[x].append(one := run())
            console.print(
                f"round {number}  {x:,} {over}: {one.rate:,.0f} ticks/s, {one.peak_bytes / 1e6:.0f} MB", highlight=False
            )
    curve = Curve(name, over, points, notes, seconds)
    beginning.store(name, _lines(curve), asdict(curve), after=["", f"![{name}]({name}.png)"])
    plot(curve)


def _lines(curve: Curve) -> list[str]:
    heading = [curve.over, *([curve.seconds] if curve.seconds else [])]
    heading += ["ticks/s", "least", "most", "CPU s a million", "peak MB"]
    rows = []
    for x, rounds in curve.points.items():
        rates = [one.rate for one in rounds]
        row = [f"{x:,}", *([f"{median(one.wall_seconds for one in rounds):.1f}"] if curve.seconds else [])]
        row += [f"{rate:,.0f}" for rate in (median(rates), min(rates), max(rates))]
        row += [f"{median(one.cpu_seconds / one.work * 1e6 for one in rounds):.2f}", f"{_peak_mb(rounds):.0f}"]
        rows.append(row)
    count = max(map(len, curve.points.values()))
    return [*table_of(heading, rows), "", f"Medians of {count} rounds in turn.", *curve.notes]


def _peak_mb(rounds: Sequence[Measured]) -> float:
    return max(one.peak_bytes for one in rounds) / 1e6


def plot(curve: Curve) -> None:
    """Throughput (or seconds) and memory; a dot is a round."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
    value: Callable[[Measured], float] = (lambda one: one.wall_seconds) if curve.seconds else (lambda one: one.rate)
    xs = list(curve.points)
    left.plot(xs, [median(map(value, rounds)) for rounds in curve.points.values()], color="tab:blue")
    for x, rounds in curve.points.items():
        left.plot([x] * len(rounds), list(map(value, rounds)), linestyle="", marker=".", color="black", markersize=4)
    right.plot(xs, [_peak_mb(rounds) for rounds in curve.points.values()], color="tab:orange", marker=".")
    for axes, label in ((left, curve.seconds or "ticks/s"), (right, "peak memory (MB)")):
        if max(xs) > 20 * min(xs):
            axes.set_xscale("log")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
            axes.xaxis.set_major_formatter(lambda number, _: f"{number:,.0f}")
        axes.set_xlabel(curve.over)
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.1 * axes.dataLim.ymax)
        axes.yaxis.set_major_formatter(lambda number, _: f"{number:,.0f}")
    figure.savefig(RESULTS / f"{curve.name}.png", dpi=110)
    plt.close(figure)
