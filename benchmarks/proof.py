"""What the proof costs: our fold against one that only keeps open, high, low, close and counts, in one process each.

`python -m benchmarks.proof` folds one tick per record, `--frame 200` frames of 200. Both decode the same records, from
memory, and encode what has changed each time that they folded 10,000 ticks. The plain fold is what is left of ours when
nothing is ever sent twice, late, or read again: it notes no offsets, keeps no ticks in case they come again, knows no
passes, spreads and quotes, and never closes a minute. The candles of both must be equal.
"""

import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import count

import msgspec
import psutil

from benchmarks.fold import SYMBOLS, arguments, records_of
from benchmarks.rounds import Contender, Measured, cpu_seconds, measured_child, peak_bytes, run_rounds
from marketdata.candle import Candle
from marketdata.pieces import in_pieces
from marketdata.tick import MINUTE_MS, Columns, Ticks, period_of
from marketdata.wire import decode_frames, encode
from runtime import clock
from runtime.process import collect_rarely
from stream_app.emitter import Metrics
from stream_app.partition import Decoding, Partition
from stream_app.window import Window

#: What a worker that catches up publishes in between is a candle of each symbol every so many ticks.
PUBLISH_TICKS = 10_000

#: Symbol and minute.
Key = tuple[str, int]
#: Open, high, low, close, tick volume.
Bar = tuple[float, float, float, float, int]


class Stored(msgspec.Struct):
    """A record of the log."""

    offset: int
    key: bytes
    value: bytes
    timestamp: int = 0
    timestamp_type: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


def exactly(records: list[Stored], frame_size: int) -> dict[Key, Bar]:
    """As the stream worker folds."""
    partition = Partition(0, Window(log="bench", partition=0, grace_ms=5_000))
    window, bars, folded = partition.window, {}, 0
    decoding = Decoding("ticks", Metrics(), links=False)

    def publish() -> None:
        wall_ms, now = clock.now_ms(), time.monotonic()
        for emission in window.emissions(wall_ms=wall_ms, now=now):
            if (candle := emission.candle) is not None:
                encode(candle)
                bars[candle.symbol, candle.ts] = _bar(candle)
            window.settle(emission)
        window.forget(wall_ms=wall_ms, now=now)

    for poll in _polls(records, frame_size):
        # Nothing is so new that it would be timed.
        folded += partition.fold(poll, decoding, 2**63, time.monotonic())
        if folded >= PUBLISH_TICKS:
            folded = 0
            publish()
    publish()
    return bars


class PlainCandle(msgspec.Struct):
    """A candle without its proof."""

    symbol: str
    ts: int
    open: float
    high: float
    low: float
    close: float
    volume: int = 0


def plainly(records: list[Stored], frame_size: int) -> dict[Key, Bar]:
    """Five figures a minute, by column where the record has columns."""
    candles: dict[Key, PlainCandle] = {}
    touched: dict[Key, PlainCandle] = {}
    encode_plain, folded = msgspec.json.Encoder().encode, 0
    for poll in _polls(records, frame_size):
        for some in in_pieces(poll):
            for frame in decode_frames([record.value for record in some]) or ():
                folded += len(frame.ticks)
                for ts, high, low, prices in _minutes(frame.ticks):
                    key = (frame.symbol, ts)
                    candle = candles.get(key)
                    if candle is None:
                        candle = candles[key] = PlainCandle(*key, prices[0], high, low, prices[-1])
                    if high > candle.high:
                        candle.high = high
                    if low < candle.low:
                        candle.low = low
                    candle.close = prices[-1]
                    candle.volume += len(prices)
                    touched[key] = candle
        if folded >= PUBLISH_TICKS:
            folded = 0
            for candle in touched.values():
                encode_plain(candle)
            touched.clear()
    return {key: (one.open, one.high, one.low, one.close, one.volume) for key, one in candles.items()}


def _minutes(ticks: Ticks) -> Iterator[tuple[int, float, float, list[float]]]:
    """Minute, highest, lowest and all bids of each minute, of ticks in order of time."""
    if isinstance(ticks, Columns):
        begin, times = 0, ticks.after_ms
        while begin < len(times):
            ts = period_of(ticks.time_msc + times[begin])
            end = bisect_left(times, ts + MINUTE_MS - ticks.time_msc, begin)
            bids = ticks.bid[begin:end]
            yield ts, max(bids), min(bids), bids
            begin = end
    else:
        for tick in ticks:
            yield period_of(tick.time_msc), tick.bid, tick.bid, [tick.bid]


def _bar(candle: Candle) -> Bar:
    return candle.open, candle.high, candle.low, candle.close, candle.volume


def _polls(records: list[Stored], frame_size: int) -> Iterator[list[Stored]]:
    """As many records as a poll of the worker has."""
    size = max(1, 5_000 // frame_size)
    return (records[begin : begin + size] for begin in range(0, len(records), size))


FOLDS: dict[str, Callable[[list[Stored], int], dict[Key, Bar]]] = {"plain": plainly, "exact": exactly}


def fold_all(name: str, ticks: int, frame_size: int) -> tuple[float, float, int, int]:
    """Wall seconds, processor seconds, peak bytes and a hash of the candles."""
    records = [
        Stored(offset, key, value)
        for offset, (key, value) in zip(count(), records_of(ticks, frame_size, SYMBOLS), strict=False)
    ]
    collect_rarely()
    process = psutil.Process()
    began, cpu_before = time.monotonic(), cpu_seconds(process)
    bars = FOLDS[name](records, frame_size)
    wall, cpu = time.monotonic() - began, cpu_seconds(process) - cpu_before
    if sum(bar[4] for bar in bars.values()) != ticks * len(SYMBOLS):
        raise SystemExit("the candles do not hold every tick once")
    return wall, cpu, peak_bytes(process), hash(tuple(sorted(bars.items())))


def contender(name: str, ticks: int, frame_size: int, hashes: set[str]) -> Contender:
    """A process of its own; the hash of its candles is added to those of the others."""

    def run() -> Measured:
        command = [
            sys.executable, "-m", "benchmarks.proof", "--run", name, "--ticks", str(ticks), "--frame", str(frame_size),
        ]  # fmt: skip
        # Hashes of texts differ from process to process unless this is set.
        outcome, [found] = measured_child(command, ticks * len(SYMBOLS), env={"PYTHONHASHSEED": "0"})
        hashes.add(found)
        if len(hashes) != 1:
            raise SystemExit("the candles of both folds differ")
        return outcome

    return run


def main() -> None:
    """Measure, print, store."""
    options = arguments(__doc__, "--run")
    if options.run:
        print(*fold_all(options.run, options.ticks, options.frame))
        return
    hashes: set[str] = set()
    run_rounds(
        f"proof-frames-of-{options.frame}",
        {name: contender(name, options.ticks, options.frame, hashes) for name in FOLDS},
        rounds=options.rounds, unit="ticks",
    )  # fmt: skip


if __name__ == "__main__":
    main()
