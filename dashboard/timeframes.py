"""Where the bar of a timeframe begins that a minute belongs to; the SQL function `candles` cuts at the same places."""

from datetime import UTC, datetime
from typing import Final

from marketdata.tick import MINUTE_MS

_DAY_MS: Final = 86_400_000

_FIXED_MS: Final = {
    "M1": MINUTE_MS,
    "M5": 5 * MINUTE_MS,
    "M15": 15 * MINUTE_MS,
    "M30": 30 * MINUTE_MS,
    "H1": 60 * MINUTE_MS,
    "H4": 240 * MINUTE_MS,
    "D1": _DAY_MS,
}

#: 1970-01-01 was a Thursday; weeks begin on Sunday, as in MetaTrader.
_FIRST_SUNDAY_MS: Final = 3 * _DAY_MS


def bar_start(timeframe: str, ts: int) -> int:
    """Opening time of the bar that holds the minute `ts` (both UTC epoch milliseconds)."""
    if length := _FIXED_MS.get(timeframe):
        return ts - ts % length
    if timeframe == "W1":
        return ts - (ts - _FIRST_SUNDAY_MS) % (7 * _DAY_MS)
    day = datetime.fromtimestamp(ts / 1000, UTC)
    return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp()) * 1000
