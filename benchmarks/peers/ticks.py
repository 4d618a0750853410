"""The topics of ticks that every contender reads, and the candles that each has to publish."""

import itertools
from collections.abc import Sequence

from rich.progress import track

from benchmarks.peers.topics import create_topic
from marketdata.tick import DAY_MS, MINUTE_MS, Frame, Tick
from marketdata.wire import encode, frame_key
from runtime.kafka import new_producer
from runtime.settings import Settings
from tests.days import eurusd_ticks


def symbols_of(count: int) -> list[str]:
    """The names of so many symbols."""
    return [f"SYM{i}" for i in range(count)]


#: Those of a usual run.
SYMBOLS = symbols_of(8)

#: Open, high, low, close, tick volume.
Bar = tuple[float, float, float, float, int]
#: By symbol and minute (epoch milliseconds).
Bars = dict[tuple[str, int], Bar]


def ticks_of_a_symbol(count: int) -> list[Tick]:
    """The first `count` ticks of the generated day; each lap of the day is a day later."""
    day = eurusd_ticks()
    laps = itertools.count()
    shifted = (Tick(tick.time_msc + lap * DAY_MS, tick.bid, tick.ask, 0.0, 0.0, 6) for lap in laps for tick in day)
    return list(itertools.islice(shifted, count))


def closing_tick(ticks: list[Tick]) -> Tick:
    """An hour after the last: it closes every minute before, in each contender; its own minute is not compared."""
    last = ticks[-1]
    return Tick(last.time_msc + 60 * MINUTE_MS, last.bid, last.ask, 0.0, 0.0, 6)


def expected_bars(ticks: list[Tick], symbols: Sequence[str] = SYMBOLS) -> Bars:
    """The candles of all symbols, folded plainly: the ticks are in order and none is there twice."""
    minutes: Bars = {}
    for minute, found in itertools.groupby(ticks, key=lambda tick: tick.time_msc // MINUTE_MS * MINUTE_MS):
        bids = [tick.bid for tick in found]
        bar = (bids[0], max(bids), min(bids), bids[-1], len(bids))
        minutes.update({(symbol, minute): bar for symbol in symbols})
    return minutes


async def write_ticks(
    settings: Settings, topic: str, ticks: list[Tick], frame_size: int, symbols: Sequence[str] = SYMBOLS
) -> int:
    """Write a topic of one partition, symbol after symbol; the record's timestamp is its first tick's time.

    Returns:
        The number of ticks, the closing ones included.
    """
    await create_topic(settings, topic)
    producer = new_producer(settings, linger_ms=20, max_batch_size=256 * 1024)
    await producer.start()
    parts = [ticks[start : start + frame_size] for start in range(0, len(ticks), frame_size)]
    parts.append([closing_tick(ticks)])
    for number, part in enumerate(track(parts, f"writing {topic}")):
        for symbol in symbols:
            frame = Frame(
                v=1, source="bench", symbol=symbol, mode="bid", point=0.00001, request=f"r{number:012}",
                received=1_700_000_000_000, ticks=part,
            )  # fmt: skip
            key = frame_key("bench", symbol)
            await producer.send(topic, encode(frame), key=key, timestamp_ms=part[0].time_msc)
    await producer.stop()
    return (len(ticks) + 1) * len(symbols)
