"""Folding again from the offsets that candles name, as `tickpipe verify` does, against the fold stage.

`python -m benchmarks.refold` refolds one tick per record; `--frame 200` frames of 200.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from itertools import cycle, islice

import psutil

from benchmarks.fold import SYMBOLS, arguments, filled, folding
from benchmarks.rounds import Measured, cpu_seconds, measured_child, peak_bytes, run_rounds
from marketdata.refold import Proof
from marketdata.tick import DAY_MS, period_of
from runtime.process import collect_rarely
from runtime.settings import Settings, load_settings
from runtime.ticklog import TickLog
from tests.days import eurusd_ticks


def proofs_of(ticks_per_symbol: int, frame_size: int) -> list[Proof]:
    """What the candles of the topic that `records_of` gives name as their offsets."""
    day = len(eurusd_ticks())
    bounds: dict[int, tuple[int, int]] = {}
    for number, tick in enumerate(islice(cycle(eurusd_ticks()), ticks_per_symbol)):
        # `records_of` moves each lap of the day by the first tick of the frame.
        lap = number // frame_size * frame_size // day
        ts = period_of(tick.time_msc + lap * DAY_MS)
        record = number // frame_size * len(SYMBOLS)
        bounds[ts] = (bounds.get(ts, (record, 0))[0], record)
    return [
        Proof("bench", symbol, ts, ((0, first + index, last + index),))
        for ts, (first, last) in bounds.items()
        for index, symbol in enumerate(SYMBOLS)
    ]


def refolding(settings: Settings, ticks_per_symbol: int, frame_size: int) -> Callable[[], Measured]:
    """A process that folds every minute of the topic again."""

    def run() -> Measured:
        command = [
            sys.executable, "-m", "benchmarks.refold", "--refold", settings.kafka_bootstrap,
            "--ticks", str(ticks_per_symbol), "--frame", str(frame_size),
        ]  # fmt: skip
        return measured_child(command, ticks_per_symbol * len(SYMBOLS))[0]

    return run


async def refold_all(settings: Settings, proofs: list[Proof], ticks: int) -> tuple[float, float, int]:
    """Fold every proof again; wall seconds, CPU seconds, peak bytes."""
    process = psutil.Process()
    async with TickLog(settings) as tick_log:
        began, cpu_before = time.monotonic(), cpu_seconds(process)
        refolded = await tick_log.refold(proofs)
        wall, cpu = time.monotonic() - began, cpu_seconds(process) - cpu_before
    if sum(fold.volume for fold in refolded.folds.values()) != ticks:
        raise SystemExit("the folds do not hold every tick of the topic once")
    return wall, cpu, peak_bytes(process)


def main() -> None:
    """Measure, print, store."""
    options = arguments(__doc__, "--refold")
    if options.refold:
        # As the sink and the command line do.
        collect_rarely()
        proofs = proofs_of(options.ticks, options.frame)
        settings = load_settings(kafka_bootstrap=options.refold)
        print(*asyncio.run(refold_all(settings, proofs, options.ticks * len(SYMBOLS))))
        return
    with filled(options) as (settings, ticks):
        contenders = {
            "fold": folding(settings, ticks),
            "refold": refolding(settings, options.ticks, options.frame),
        }
        run_rounds(f"refold-frames-of-{options.frame}", contenders, rounds=options.rounds, unit="ticks")


if __name__ == "__main__":
    main()
