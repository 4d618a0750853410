"""The result of a benchmark: as JSON, as Markdown with a plot, and as a table on the screen.

`python -m benchmarks.report FILE.json …` prints the Markdown of stored results.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.table import Table

from benchmarks.machine import Machine

if TYPE_CHECKING:
    from benchmarks.rounds import Measured

RESULTS = Path(__file__).parent / "results"

#: More busy cores than this share of all when a benchmark begins mean that others used the machine.
BUSY_SHARE = 0.5


@dataclass(frozen=True)
class Ratio:
    """Rate of one contender over that of another, round by round."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, rates: Sequence[float], others: Sequence[float]) -> "Ratio":
        """Of rates of the same rounds."""
        ratios = [one / other for one, other in zip(rates, others, strict=True)]
        return cls(median(ratios), min(ratios), max(ratios))

    def __str__(self) -> str:
        """Median and spread."""
        return f"{self.median:.2f} ({self.least:.2f}–{self.most:.2f})"


@dataclass(frozen=True)
class Figures:
    """All rounds of one contender."""

    #: Pieces of work a second, from the first to the last.
    rates: list[float]
    #: The same with the start of the process counted in; empty when nothing was started.
    whole_rates: list[float]
    #: Processor time of each round (seconds).
    cpu: list[float]
    #: The same for a million pieces of work.
    cpu_of_a_million: float
    #: Largest resident set of all rounds (bytes).
    peak: int

    @classmethod
    def of(cls, rounds: Sequence[dict[str, Any]]) -> "Figures":
        """From the stored rounds."""
        starts = [one.get("startup_seconds") for one in rounds]
        return cls(
            rates=[one["work"] / one["wall_seconds"] for one in rounds],
            whole_rates=[
                one["work"] / (one["wall_seconds"] + start)
                for one, start in zip(rounds, starts, strict=True)
                if start is not None
            ],
            cpu=[one["cpu_seconds"] for one in rounds],
            cpu_of_a_million=median(one["cpu_seconds"] / one["work"] * 1e6 for one in rounds),
            peak=max(one["peak_bytes"] for one in rounds),
        )


@dataclass(frozen=True)
class Report:
    """What was measured, where and with what: the content of the JSON file."""

    name: str
    unit: str
    at: str
    machine: dict[str, Any]
    #: Load averages of the last minute, before the first round and after the last.
    busy_cores: float
    versions: dict[str, str]
    #: Contenders that all others are compared with.
    ours: list[str]
    rounds: dict[str, list[dict[str, Any]]]
    #: Contender to the reason why it has no figures.
    not_measured: dict[str, str]
    notes: list[str]

    @classmethod
    def of(
        cls,
        name: str,
        unit: str,
        *,
        rounds: "dict[str, list[Measured]]",
        ours: list[str],
        not_measured: dict[str, str],
        machine: Machine,
        busy_cores: float,
        versions: dict[str, str],
        notes: list[str],
    ) -> "Report":
        """Of this moment."""
        return cls(
            name=name, unit=unit, at=datetime.now(UTC).isoformat(timespec="seconds"), machine=asdict(machine),
            busy_cores=busy_cores, versions=versions, ours=ours,
            rounds={contender: [asdict(one) for one in found] for contender, found in rounds.items()},
            not_measured=not_measured, notes=notes,
        )  # fmt: skip

    @classmethod
    def read(cls, path: Path) -> "Report":
        """From a stored JSON file."""
        stored = json.loads(path.read_text())
        return cls(**stored)

    @property
    def figures(self) -> dict[str, Figures]:
        """Of each contender."""
        return {contender: Figures.of(rounds) for contender, rounds in self.rounds.items()}

    def ratio(self, one: str, other: str) -> Ratio:
        """Rate of `one` over that of `other`."""
        figures = self.figures
        return Ratio.of(figures[one].rates, figures[other].rates)


def store(report: Report) -> list[Path]:
    """Write JSON, Markdown and plot into `benchmarks/results`; returns their paths."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{report.name}.json"
    path.write_text(json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n")
    picture = RESULTS / f"{report.name}.png"
    plot(report, picture)
    return [path, store_text(report.name, markdown(report, picture.name)), picture]


def store_text(name: str, text: str) -> Path:
    """Write the Markdown of a result; pictures in it are named as they lie beside it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.md"
    path.write_text(f"# {name}\n\n{text}\n")
    return path


def text_of(name: str) -> str:
    """The stored Markdown of a result, without its heading."""
    return (RESULTS / f"{name}.md").read_text().partition("\n")[2].strip()


def table_of(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown, figures to the right."""
    return [
        "| " + " | ".join(heading) + " |",
        "| --- |" + " ---: |" * (len(heading) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def where(at: str, machine: Machine, busy: float, versions: Mapping[str, str]) -> list[str]:
    """What a figure depends on, as sentences; `busy` says how many cores worked when it began."""
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [f"{at[:10]}, {machine}; {named}."]
    if busy > BUSY_SHARE * machine.cores:
        lines.append(
            f"**Other work ran on the machine** ({busy:.1f} of {machine.cores} cores were busy before it began): read "
            "the ratios, not the rates."
        )
    return lines


def cells(report: Report) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the table, the same on the screen and in Markdown."""
    figures = report.figures
    started = any(one.whole_rates for one in figures.values())
    heading = ["contender", f"{report.unit}/s", "least", "most"]
    heading += ["with start"] if started else []
    heading += ["CPU s", "CPU s a million", "peak MB", *(f"{ours} ÷ this" for ours in report.ours)]
    rows = []
    for contender, one in figures.items():
        row = [contender, f"{median(one.rates):,.0f}", f"{min(one.rates):,.0f}", f"{max(one.rates):,.0f}"]
        if started:
            row.append(f"{median(one.whole_rates):,.0f}" if one.whole_rates else "–")
        row += [f"{median(one.cpu):.2f}", f"{one.cpu_of_a_million:.2f}", f"{one.peak / 1e6:.0f}"]
        row += ["–" if contender == ours else str(report.ratio(ours, contender)) for ours in report.ours]
        rows.append(row)
    return heading, rows


def console_table(report: Report) -> Table:
    """For the screen."""
    heading, rows = cells(report)
    table = Table(title=report.name)
    for place, column in enumerate(heading):
        table.add_column(column, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    for contender, reason in report.not_measured.items():
        table.add_row(contender, f"not measured: {reason}")
    return table


def markdown(report: Report, picture: str) -> str:
    """Table, plot and where it comes from; `picture` is the plot's address."""
    heading, rows = cells(report)
    rounds = max((len(found) for found in report.rounds.values()), default=0)
    lines = [
        *table_of(heading, rows),
        "",
        *(f"Not measured: {contender} ({reason})." for contender, reason in report.not_measured.items()),
        f"{_medians_of(rounds)} after a warm-up; ratios are of the same round (median, least–most).",
        *where(report.at, Machine(**report.machine), report.busy_cores, report.versions),
        *report.notes,
    ]
    return "\n".join([*lines, "", f"![{report.name}: rate, processor time and memory]({picture})"])


def _medians_of(rounds: int) -> str:
    return "One round" if rounds == 1 else f"Medians of {rounds} rounds in turn"


def plot(report: Report, path: Path) -> None:
    """Rate, processor time and memory of each contender; a dot is a round."""
    # Slow to load, for whoever wants the figures alone.
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figures = report.figures
    names = list(figures)
    height = 1.2 + 0.45 * len(names)
    panels = plt.subplots(1, 3, sharey=True, figsize=(12, height), layout="constrained", squeeze=False)
    figure, (rate, cpu, memory) = panels[0], panels[1][0]
    colours = ["tab:blue" if name in report.ours else "tab:grey" for name in names]
    rate.barh(names, [median(one.rates) for one in figures.values()], color=colours)
    for name, one in figures.items():
        rate.plot(one.rates, [name] * len(one.rates), linestyle="", marker=".", color="black", markersize=4)
    cpu.barh(names, [one.cpu_of_a_million for one in figures.values()], color=colours)
    memory.barh(names, [one.peak / 1e6 for one in figures.values()], color=colours)
    rate.invert_yaxis()
    rate.set_xlabel(f"{report.unit} a second")
    cpu.set_xlabel(f"processor seconds, a million {report.unit}")
    memory.set_xlabel("peak memory (MB)")
    rate.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    rate.tick_params(axis="x", labelrotation=30)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Print the Markdown of stored results."""
    for name in sys.argv[1:]:
        path = Path(name)
        print(markdown(Report.read(path), f"{path.stem}.png"), end="\n\n")


if __name__ == "__main__":
    main()
