"""A day of EURUSD quotes made from a seed, in the shape of a real one, and its bars by a fold of their own.

The same on every platform and Python: integers, and of the random module only `random()`, whose sequence is documented
to stay. Statistics of the real day that it keeps: quotes an hour, the spread of busy and quiet minutes, gaps from 0.05
to some ten seconds, spreads of 1 to 5 points that widen late in the evening. Beyond the real day it holds what brokers
send as well: several quotes in one millisecond, quotes that repeat the one before, minutes of one quote and of none,
quotes on the first and the last millisecond of a minute.
"""

import random
from collections.abc import Iterator, Sequence

MINUTE_MS = 60_000
#: 2019-02-04, a Monday, 00:00 UTC.
START_MS = 1_549_238_400_000

#: 2013-01-01, 22:00 UTC.
SPARSE_START_MS = 1_357_077_600_000

#: Time (UTC epoch milliseconds), bid and ask (points).
Quote = tuple[int, int, int]

_SEED = 20190204
_CENTRE = 114_450
#: From this minute on the market is thin.
_EVENING = 21 * 60
#: Quotes a minute, hour by hour.
_PACE = (62, 47, 41, 50, 56, 43, 54, 115, 176, 155, 140, 116, 121, 129, 166, 184, 150, 107, 94, 73, 80, 36, 42, 44)
#: Minutes without a quote: the broker's break at 22:00, and two on their own.
_SILENT = frozenset((128, 179, *range(22 * 60, 22 * 60 + 5)))
#: Minutes with a single quote.
_LONELY = frozenset((34, 127, 143, 1266, 1306, 1343))
#: Of so many minutes one has a quote on its first and on its last millisecond.
_EDGES_EVERY = 50
#: How far a bid moves (points) and how often (per thousand), and the same for a spread.
_STEPS = ((0, 462), (-1, 225), (1, 213), (2, 39), (-2, 37), (3, 9), (-3, 7), (4, 3), (-4, 3), (-7, 2))
_SPREADS = ((1, 68), (2, 239), (3, 362), (4, 255), (5, 63), (6, 9), (7, 4))


def quotes(seed: int = _SEED) -> Iterator[Quote]:
    """Every quote of the day, in order of time; prices in points of 0.00001."""
    dice = random.Random(seed)
    bid, ask = _CENTRE, _CENTRE + 3
    newest_msc, of_this_msc = -1, set[tuple[int, int]]()
    for minute in range(24 * 60):
        for msc in (minute * MINUTE_MS + msc for msc in _times(dice, minute)):
            # Of the quotes of one burst some repeat the one before.
            if dice.random() < 0.97:
                bid, ask = _moved(dice, bid, late=minute >= _EVENING)
            if msc != newest_msc:
                newest_msc = msc
                of_this_msc.clear()
            # Where requests are cut between equal quotes of one millisecond, the second looks like a resend
            # (docs/decisions/0002). Senders keep them together; tests cut anywhere.
            while (bid, ask) in of_this_msc:
                ask += 1
            of_this_msc.add((bid, ask))
            yield START_MS + msc, bid, ask


def sparse_quotes(seed: int = _SEED) -> Iterator[Quote]:
    """The first evening of a year in USDJPY: a minute in three without a quote; prices in points of 0.001."""
    dice = random.Random(seed + 1)
    bid = 86_655
    for minute in range(60):
        if minute % 3 == 1:
            continue
        for msc in sorted(_below(dice, MINUTE_MS) for _ in range(1 + _below(dice, 50))):
            bid += _rolled(dice, _STEPS)
            yield SPARSE_START_MS + minute * MINUTE_MS + msc, bid, bid + 10 + _below(dice, 70)


def bars(day: Sequence[tuple[int, float]]) -> dict[int, tuple[float, float, float, float]]:
    """Minute (UTC epoch milliseconds) to open, high, low and close, of times and prices in order."""
    minutes: dict[int, list[float]] = {}
    for time_msc, price in day:
        minutes.setdefault(time_msc // MINUTE_MS * MINUTE_MS, []).append(price)
    return {minute: (prices[0], max(prices), min(prices), prices[-1]) for minute, prices in minutes.items()}


def _times(dice: random.Random, minute: int) -> list[int]:
    """The milliseconds of the minute at which a quote comes."""
    if minute in _SILENT:
        return []
    if minute in _LONELY:
        return [_below(dice, MINUTE_MS)]
    # Near the pace by day, anything from a tenth to twice of it in the evening.
    busy = 10 + _below(dice, 180) if minute >= _EVENING else 52 + _below(dice, 60) + _below(dice, 40)
    count = max(3, _PACE[minute // 60] * busy // 100)
    short = [_short(dice) for _ in range(count)]
    # What is left of the minute is shared out, by the square of a roll: a few long gaps, many small ones.
    shares = [0 if gap is not None else (1 + _below(dice, 1000)) ** 2 for gap in short]
    left, whole = MINUTE_MS - 1 - sum(gap or 0 for gap in short), sum(shares) + 250_000
    times, msc = [], 0
    for gap, share in zip(short, shares, strict=True):
        msc += left * share // whole if gap is None else gap
        times.append(msc)
    if minute % _EDGES_EVERY == 0:
        times[0], times[-1] = 0, MINUTE_MS - 1
    return times


def _short(dice: random.Random) -> int | None:
    """The gap before a quote of a burst (milliseconds); None before one that comes in its own time."""
    roll = dice.random()
    if roll < 0.02:
        return 0
    return 50 + _below(dice, 120) if roll < 0.27 else None


def _moved(dice: random.Random, bid: int, *, late: bool) -> tuple[int, int]:
    """The next bid and ask."""
    step = _rolled(dice, _STEPS)
    # What has gone far is pulled back, so that the day stays within some 40 pips.
    if step * (bid - _CENTRE) > 0 and _below(dice, 1500) < abs(bid - _CENTRE):
        step = -step
    spread = _rolled(dice, _SPREADS)
    if late and dice.random() < 0.3:
        spread += _below(dice, 45)
    return bid + step, bid + step + spread


def _rolled(dice: random.Random, weights: Sequence[tuple[int, int]]) -> int:
    roll = _below(dice, 1000)
    for value, per_thousand in weights:
        roll -= per_thousand
        if roll < 0:
            return value
    raise AssertionError("the weights do not add up to 1000")


def _below(dice: random.Random, limit: int) -> int:
    """A whole number from 0 to below the limit; `randrange` may change between versions of Python."""
    return int(dice.random() * limit)
