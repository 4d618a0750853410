"""The picture of a soak: memory, descriptors and lag over time, with a line where a fault was."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from tests.faults.record import PAGE

Values = Sequence[int | None]


def plot(
    at: Sequence[float],
    rss_bytes: Mapping[str, Values],
    descriptors: Mapping[str, Values],
    lag: Values,
    faults: Sequence[tuple[float, str]],
) -> None:
    """Write docs/soak.png; `at` are seconds, the other sequences are parallel to it, with None for what was dead."""
    minutes = [seconds / 60 for seconds in at]
    figure, (memory, open_files, behind) = plt.subplots(3, 1, sharex=True, figsize=(10, 8), layout="constrained")
    for name, values in rss_bytes.items():
        memory.plot(minutes, [float("nan") if value is None else value / 1e6 for value in values], label=name)
    for name, values in descriptors.items():
        open_files.plot(minutes, [float("nan") if value is None else value for value in values], label=name)
    behind.plot(minutes, [float("nan") if value is None else value for value in lag], color="black")
    for axes, title in ((memory, "memory (RSS, MB)"), (open_files, "file descriptors"), (behind, "lag (records)")):
        axes.set_ylabel(title)
        axes.set_ylim(bottom=0)
        for when, what in faults:
            axes.axvline(when / 60, color="red" if what.startswith("kill") else "orange", linewidth=0.5)
    memory.legend(loc="lower right", ncols=4, fontsize="small")
    behind.set_xlabel("minutes (red: a kill, orange: a pause or a lock)")
    figure.savefig(PAGE.parent / "soak.png", dpi=110)
    plt.close(figure)
