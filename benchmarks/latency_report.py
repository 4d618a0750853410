"""What `benchmarks.latency` has measured, and the tables of it: medians of the rounds of each rate, and their range."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.report import table_of
from benchmarks.watches import STAGES


@dataclass(frozen=True)
class Round:
    """Of one rate."""

    #: Of the rate that saturates; 0 when the rate was given.
    share: float
    #: Ticks a second, and symbols.
    rate: float
    symbols: int
    #: Ticks that were counted.
    ticks: int
    #: 50th, 99th and 99.9th percentile of each stage (seconds).
    latencies: dict[str, tuple[float, float, float]]
    #: Processor time a second of each process.
    cpu: dict[str, float]
    #: How often a second the worker publishes and the sink stores, and how long that takes (seconds).
    turns: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Compilation:
    """The load before the first figure."""

    #: How long it took (seconds), and what the broker's compilers used in its last step (cores).
    seconds: float
    cores: float


def by_rate(rounds: Sequence[Round]) -> list[list[Round]]:
    """The rounds of each rate and number of symbols, in the order of the first of each."""
    found: dict[tuple[float, int], list[Round]] = {}
    for one in rounds:
        found.setdefault((one.rate, one.symbols), []).append(one)
    return list(found.values())


def lines_of(saturating: float, compilation: Compilation, rounds: Sequence[Round], step_seconds: float) -> list[str]:
    """The tables and what was done, as Markdown."""
    rates = by_rate(rounds)
    names = list(rounds[0].cpu)
    count = len(rates[0])
    percentiles, ranges, spent, turns = (
        [[_rate(of_rate[0]), f"{of_rate[0].symbols:,}", *cells(of_rate)] for of_rate in rates]
        for cells in (_percentiles, _ranges, _spent, _turns)
    )
    stages = ["rate", "symbols", *(f"{stage}, ms" for stage in STAGES)]
    return [
        *table_of(stages, percentiles), "",
        "50th, 99th and 99.9th percentile from the planned moment of the POST, each the median of as many rounds as "
        f"every rate had, {count}, in turn with the other rates. "
        + (f"Saturated by {saturating:,.0f} ticks/s. " if saturating else "")
        + f"Before that {compilation.seconds:.0f} s as fast as answers come; in the last {step_seconds:.0f} of "
        f"them the compilers of Kafka's JVM took {compilation.cores:.2f} cores.",
        *(["", "99th percentile, least and most of the rounds:", "", *table_of(stages, ranges)] if count > 1 else []),
        "", "Cores in use meanwhile:", "",
        *table_of(["rate", "symbols", *names], spent), "",
        "Rounds a second of the worker and transactions a second of the sink, and what one takes:", "",
        *table_of(["rate", "symbols", *rounds[0].turns], turns), "",
    ]  # fmt: skip


def _rate(one: Round) -> str:
    return f"{one.rate:,.0f} ticks/s" + (f" ({one.share:.0%})" if one.share else "")


def _median(of_rate: Sequence[Round], figure: Callable[[Round], float]) -> float:
    return median(map(figure, of_rate))


def _percentiles(of_rate: Sequence[Round]) -> list[str]:
    return [
        " / ".join(f"{median(each) * 1e3:.1f}" for each in zip(*(one.latencies[stage] for one in of_rate), strict=True))
        for stage in STAGES
    ]


def _ranges(of_rate: Sequence[Round]) -> list[str]:
    of_stages = [[one.latencies[stage][1] for one in of_rate] for stage in STAGES]
    return [f"{min(each) * 1e3:.1f} – {max(each) * 1e3:.1f}" for each in of_stages]


def _spent(of_rate: Sequence[Round]) -> list[str]:
    return [f"{median(one.cpu[name] for one in of_rate):.2f}" for name in of_rate[0].cpu]


def _turns(of_rate: Sequence[Round]) -> list[str]:
    return [
        f"{often:,.0f} of {took * 1e3:.1f} ms"
        for often, took in (
            [median(each) for each in zip(*(one.turns[name] for one in of_rate), strict=True)]
            for name in of_rate[0].turns
        )
    ]
