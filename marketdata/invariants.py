"""What holds for every candle and every bar, wherever it came from: decoded is not yet valid.

The CHECK constraints of `market_data` and `broker_bars` say the same, as far as a row alone can tell.
"""

from math import inf
from typing import Final

from marketdata.candle import BrokerBar, Candle
from marketdata.errors import InvalidCandle
from marketdata.offsets import MAX_OFFSET, MAX_PARTITION, Ranges
from marketdata.timeframes import FOLDABLE, TIMEFRAMES

#: 9999-01-01 UTC: every period that begins before ends at a time that datetimes can hold (epoch milliseconds).
_END_MS: Final = 253_370_764_800_000

#: Zones are whole quarters of an hour from UTC, so bars longer than that begin on a quarter (milliseconds).
_WIDEST_GRID_MS: Final = 15 * 60_000

_MAX_VOLUME: Final = 2**63 - 1


#: Length of the periods that ticks can be folded into (milliseconds).
_WIDTHS_MS: Final = {name: timeframe.base_width_ms for name, timeframe in FOLDABLE.items()}


def check_candle(candle: Candle) -> None:
    """Raise `InvalidCandle` unless the candle can be a fold of ticks.

    Prices may be negative, as oil's was in 2020.
    """
    if (width_ms := _WIDTHS_MS.get(candle.timeframe)) is None:
        raise InvalidCandle(f"ticks cannot be folded into {candle.timeframe!r}")
    _check_values(candle)
    if not 1 <= candle.volume <= _MAX_VOLUME:
        raise InvalidCandle(f"{candle.volume} ticks: a candle has at least one")
    if candle.ts % width_ms or not 0 <= candle.ts < _END_MS:
        raise InvalidCandle(f"{candle.ts} is no start of a period of {candle.timeframe} before the year 9999")
    if not candle.ts <= candle.first_tick <= candle.last_tick < candle.ts + width_ms:
        raise InvalidCandle("its ticks lie outside of its period, or the last before the first")
    if not candle.log:
        raise InvalidCandle("it names no log")
    # Nearly all have one range.
    if len(candle.offsets) == 1:
        [(partition, first, last)] = candle.offsets
        are_ranges = 0 <= partition <= MAX_PARTITION and 0 <= first <= last <= MAX_OFFSET
    else:
        are_ranges = _are_ranges(candle.offsets)
    if not are_ranges:
        raise InvalidCandle("its offsets are no ascending ranges with gaps between them")


def check_bar(bar: BrokerBar) -> None:
    """Raise `InvalidCandle` unless the bar can be one that a broker computed.

    Prices may be negative, as oil's was in 2020.
    """
    if (timeframe := TIMEFRAMES.get(bar.timeframe)) is None:
        raise InvalidCandle(f"{bar.timeframe!r} is no timeframe; there are {', '.join(TIMEFRAMES)}")
    _check_values(bar)
    if not 0 <= bar.volume <= _MAX_VOLUME:
        raise InvalidCandle(f"{bar.volume} ticks")
    grid_ms = min(timeframe.width_ms or _WIDEST_GRID_MS, _WIDEST_GRID_MS)
    if bar.ts % grid_ms or not 0 <= bar.ts < _END_MS:
        raise InvalidCandle(f"{bar.ts} is no start of a bar of {bar.timeframe} before the year 9999")


def _check_values(of: Candle | BrokerBar) -> None:
    low, high = of.low, of.high
    if not (-inf < low <= of.open <= high < inf and low <= of.close <= high):
        raise InvalidCandle("its prices are not finite, or not between its low and its high")
    if (real_volume := of.real_volume) is not None and not 0 <= real_volume < inf:
        raise InvalidCandle(f"its real volume is {real_volume}")


def _are_ranges(offsets: Ranges) -> bool:
    before = (-1, 0)
    for partition, first, last in offsets:
        if not (0 <= partition <= MAX_PARTITION and 0 <= first <= last <= MAX_OFFSET):
            return False
        if partition < before[0] or (partition == before[0] and first <= before[1] + 1):
            return False
        before = (partition, last)
    return bool(offsets)
