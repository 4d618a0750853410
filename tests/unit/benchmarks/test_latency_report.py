from benchmarks.latency_report import Compilation, Round, lines_of
from benchmarks.watches import STAGES


def one_round(rate: float, p99: float) -> Round:
    latencies = dict.fromkeys(STAGES, (0.004, p99, 0.5))
    return Round(0.5, rate, 8, 1_000, latencies, {"sink": p99}, {"storing": (80.0, p99)})


def test_a_rate_is_told_by_the_medians_of_its_rounds_and_their_range() -> None:
    rounds = [one_round(rate, p99) for p99 in (0.2, 0.02, 0.03) for rate in (100, 200)]

    text = "\n".join(lines_of(400, Compilation(45, 0.02), rounds, 5))

    for rate in ("100", "200"):
        rows = [line for line in text.splitlines() if line.startswith(f"| {rate} ticks/s (50%) | 8 |")]
        percentiles, ranges, cores, turns = rows
        assert percentiles.count("4.0 / 30.0 / 500.0") == len(STAGES)
        assert ranges.count("20.0 – 200.0") == len(STAGES)
        assert cores.endswith("| 0.03 |")
        assert turns.endswith("| 80 of 30.0 ms |")


def test_a_single_round_has_no_range() -> None:
    text = "\n".join(lines_of(0, Compilation(45, 0.02), [one_round(100, 0.02)], 5))

    assert "least and most" not in text
