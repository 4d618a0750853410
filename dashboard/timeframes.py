"""Where the bar of a timeframe begins that holds a minute, as the database says; cached for a while."""

import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from dashboard.answers import Refusal
from dashboard.database import SQL, Database
from marketdata.timeframes import M1

#: Cached bars of each timeframe.
_CACHED: Final = 32

#: Where days begin may be changed (set_candle_day); then bars are wrong for at most this long (seconds).
_VALID_SECONDS: Final = 60.0

#: A database that answers later than this does not tell (seconds): the streams wait for it.
_PATIENCE_SECONDS: Final = 2.0


class Bar(NamedTuple):
    """A bar's bounds (UTC epoch milliseconds), and until when they are valid (monotonic seconds)."""

    starts: int
    ends: int
    valid_until: float


class BarStarts:
    """Openings of bars."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._bars: dict[str, deque[Bar]] = {}

    async def of(self, timeframe: str, ts: int) -> int | None:
        """Opening of the bar of `timeframe` that holds the minute `ts` (UTC epoch milliseconds).

        None while the database does not answer.
        """
        if timeframe == M1.name:
            return ts - ts % M1.base_width_ms
        bars = self._bars.setdefault(timeframe, deque(maxlen=_CACHED))
        now = time.monotonic()
        for bar in reversed(bars):
            if bar.starts <= ts < bar.ends and now < bar.valid_until:
                return bar.starts
        try:
            row = await self._database.within(_PATIENCE_SECONDS, self._bounds(timeframe, ts))
        except Refusal:
            return None
        if row is None:
            return None
        bar = Bar(_epoch_ms(row[0]), _epoch_ms(row[1]), now + _VALID_SECONDS)
        bars.append(bar)
        return bar.starts

    async def _bounds(self, timeframe: str, ts: int) -> Sequence[Any] | None:
        about = {"timeframe": timeframe, "moment": datetime.fromtimestamp(ts / 1000, UTC)}
        async with self._database.reading() as connection:
            return await (await connection.execute(SQL["bar_bounds"], about)).fetchone()


def _epoch_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
