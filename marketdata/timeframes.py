"""Timeframes: their names, how long their bars are, and what each is rolled up from. The only list of them in Python.

The migrations hold the same list for SQL, and a test compares the two.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from marketdata.errors import UnknownTimeframe
from marketdata.tick import DAY_MS, MINUTE_MS

_HOUR_MS: Final = 60 * MINUTE_MS


@dataclass(frozen=True, slots=True)
class Timeframe:
    """The length of a bar (MT5: ENUM_TIMEFRAMES)."""

    name: str
    #: Length of a bar (milliseconds), the ordinary one where `calendar` is set; None when there is no ordinary one.
    width_ms: int | None
    #: Name of the timeframe whose bars it is rolled up from; None when it is folded from ticks.
    parent: str | None = None
    #: Bars begin by the wall clock of trading days, so a change of clocks makes one longer or shorter.
    calendar: bool = False

    @property
    def base_width_ms(self) -> int:
        """Length of a bar that ticks can be folded into (milliseconds).

        Raises:
            UnknownTimeframe: when its bars are not all equally long.
        """
        if self.width_ms is None or self.calendar:
            raise UnknownTimeframe(f"{self.name} cannot be folded from ticks: its bars are not equally long")
        return self.width_ms

    @property
    def minutes(self) -> int:
        """How MQL4 and several programs number it: the length of a bar (minutes), a month as 30 days."""
        return 43_200 if self.width_ms is None else self.width_ms // MINUTE_MS

    @property
    def mql5_number(self) -> int:
        """Its value of MQL5's ENUM_TIMEFRAMES: minutes, hours up to a day, weeks or months, with the unit's bits."""
        if self.width_ms is None:
            return 0xC001
        if self.width_ms > DAY_MS:
            return 0x8000 + self.width_ms // (7 * DAY_MS)
        return self.minutes if self.width_ms < _HOUR_MS else 0x4000 + self.width_ms // _HOUR_MS


def _by_name(timeframes: Iterable[Timeframe]) -> dict[str, Timeframe]:
    return {timeframe.name: timeframe for timeframe in timeframes}


#: What candles are folded into unless a setting says otherwise.
M1: Final = Timeframe("M1", MINUTE_MS)

#: The timeframes of MetaTrader 5 that are offered, shortest first, by name.
TIMEFRAMES: Final = _by_name(
    (
        M1,
        Timeframe("M5", 5 * MINUTE_MS, "M1"),
        Timeframe("M15", 15 * MINUTE_MS, "M1"),
        Timeframe("M30", 30 * MINUTE_MS, "M1"),
        Timeframe("H1", _HOUR_MS, "M1"),
        Timeframe("H4", 4 * _HOUR_MS, "H1", calendar=True),
        Timeframe("D1", DAY_MS, "H1", calendar=True),
        Timeframe("W1", 7 * DAY_MS, "D1", calendar=True),
        Timeframe("MN1", None, "D1", calendar=True),
    )
)

#: Seconds that divide a minute: ticks can be folded into them, but no setting offers it.
_SECONDS: Final = _by_name(Timeframe(f"S{n}", 1000 * n) for n in range(1, 60) if 60 % n == 0)

#: What ticks can be folded into, by name.
FOLDABLE: Final = _SECONDS | {name: timeframe for name, timeframe in TIMEFRAMES.items() if not timeframe.calendar}


def timeframe_named(name: str) -> Timeframe:
    """The timeframe of this name: one of `TIMEFRAMES`, or seconds that divide a minute, such as `S5`.

    Raises:
        UnknownTimeframe: when there is none.
    """
    if (timeframe := TIMEFRAMES.get(name) or _SECONDS.get(name)) is None:
        raise UnknownTimeframe(f"{name!r} is no timeframe; there are {', '.join(TIMEFRAMES)}")
    return timeframe
