"""What a fold takes out of many ticks: times, extremes of prices, and sums of volumes that are exact. Pure."""

from collections.abc import Iterable
from math import inf
from typing import Final

from marketdata.tick import Frame, Tick, is_deal

#: Doubles are whole numbers of 2**-1074: counted in these units volumes add up exactly, in whatever order they come.
VOLUME_SCALE: Final = 1074
_ONE: Final = 1 << VOLUME_SCALE

#: No instrument trades more in a tick (lots, contracts or shares); a larger volume that a sender claims is not added.
_MAX_VOLUME: Final = 1e18


def bounds(frame: Frame) -> tuple[int, int]:
    """Times of the earliest and the latest tick (UTC epoch milliseconds)."""
    times = [tick.time_msc for tick in frame.ticks]
    return min(times), max(times)


def extremes(bids: list[float], asks: list[float]) -> tuple[float, float, float]:
    """Lowest and highest bid, and lowest ask − bid.

    One loop takes a fifth less than `min`, `max` and the `min` of a `map` of differences.
    """
    low, high, spread = bids[0], bids[0], inf
    for bid, ask in zip(bids, asks, strict=True):
        if ask - bid < spread:
            spread = ask - bid
        if bid > high:
            high = bid
        elif bid < low:
            low = bid
    return low, high, spread


def volume_units(ticks: Iterable[Tick]) -> int:
    """Sum of the deals' volumes in units of 2**-1074."""
    total = 0
    for volume in (tick.volume for tick in ticks if is_deal(tick.flags)):
        if 0.0 < volume < _MAX_VOLUME:
            whole, parts = volume.as_integer_ratio()
            total += whole << (VOLUME_SCALE + 1 - parts.bit_length())
    return total


def volume_of(units: int) -> float:
    """The volume of so many units, as the nearest double."""
    return units / _ONE if units else 0.0
