"""How far the ticks of one symbol were taken from the terminal, and which of its minutes are read again, and when.

The terminal's list is not append-only: ticks enter it behind the cursor after a reconnection, or when history comes
late. So every minute is read again when it is 1, 10 and 60 minutes old, and where it has changed it is sent again as a
whole, which the server counts once however often it comes (docs/candles.md).
"""

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final, NamedTuple

from marketdata.tick import MINUTE_MS, Tick
from relay.terminal import SymbolFacts, Terminal

#: Every minute is read again when it is so old, and so much at a time, up to the last (ms).
CHECK_AGES_MS: Final = (60_000, 600_000, 3_600_000)
_CHECK_STEPS_MS: Final = (60_000, 120_000, 600_000)
_CHECK_MOST_MS: Final = 600_000

#: Ticks of one reading; where a second, or a millisecond, holds more it is doubled.
_READ_TICKS: Final = 5_000
_MOST_READ: Final = 1 << 22

#: The newest millisecond counts as whole when nothing was added to it for so long (seconds).
_SETTLE_SECONDS: Final = 1.0

#: After a reconnection two readings must agree that are so far apart (seconds).
_AGREE_SECONDS: Final = 2.0

#: A minute that has fewer ticks than before is read again so often: the answer may have been short.
_SHORT_ANSWERS: Final = 3


class Totals(NamedTuple):
    """How many ticks of a minute were taken, and the sum of their hashes."""

    ticks: int = 0
    sum: int = 0

    def plus(self, ticks: Iterable[Tick]) -> "Totals":
        count, total = self
        for tick in ticks:
            count, total = count + 1, total + _hash(tick) & 0x7FFF_FFFF_FFFF_FFFF
        return Totals(count, total)


def _hash(tick: Tick) -> int:
    packed = struct.pack("<qddddQ", tick.time_msc, tick.bid, tick.ask, tick.last, tick.volume, tick.flags)
    return zlib.crc32(packed) << 31 ^ zlib.crc32(packed[::-1])


def by_minute(ticks: Iterable[Tick]) -> dict[int, list[Tick]]:
    """Ticks in their order, by the start of their minute (ms)."""
    return {minute: list(group) for minute, group in groupby(ticks, lambda tick: minute_of(tick.time_msc))}


def minute_of(msc: int) -> int:
    """The start of the minute of a time (ms)."""
    return msc // MINUTE_MS * MINUTE_MS


class Check(NamedTuple):
    """A time that is to be read again."""

    number: int
    from_msc: int
    end_msc: int


#: Before a symbol was asked for.
_UNKNOWN: Final = SymbolFacts(0, 0.0, "")


@dataclass
class Feed:
    """One symbol. All times are the broker's clock (ms); `now` is monotonic (seconds)."""

    symbol: str
    #: Everything up to here was taken, the last millisecond as a whole.
    msc: int
    #: Up to where each check has read again.
    checked: list[int]
    minutes: dict[int, Totals] = field(default_factory=dict)
    #: Offset of the broker's clock from UTC by which ticks were sent (seconds).
    offset: int | None = None
    facts: SymbolFacts = _UNKNOWN
    #: Why its ticks cannot be read; how often in a row, and when it is tried again.
    error: str = ""
    failures: int = 0
    retry_at: float = 0.0
    #: The newest quote, and whether there may be ticks that were not taken.
    quote_msc: int = 0
    has_more: bool = True
    #: Until two readings agree nothing is taken.
    is_holding: bool = True
    _held: tuple[int, Totals, float] | None = None
    _newest: tuple[int, int, float] = (0, 0, 0.0)
    _short: int = 0

    @classmethod
    def begin(cls, symbol: str, msc: int) -> "Feed":
        """A symbol of which nothing was taken: what comes after a time is."""
        return cls(symbol, msc, [msc + 1] * len(CHECK_AGES_MS))

    def copy(self) -> "Feed":
        """The same, to see what it is after something that may not be stored."""
        return replace(self, checked=list(self.checked), minutes=dict(self.minutes))

    def hold(self) -> None:
        """Take nothing until two readings agree: after a reconnection the terminal fills its list from both ends."""
        self.is_holding, self._held, self.has_more = True, None, True

    def go_by(self, offset: int | None) -> None:
        """Go by another offset of the broker's clock: what was sent by the one before cannot be sent again by it."""
        if offset != self.offset:
            self.offset = offset
            self.checked = [max(msc, self.msc + 1) for msc in self.checked]
            self.minutes = {}

    def read(self, terminal: Terminal, now: float) -> list[Tick]:
        """The ticks behind the cursor that can be taken, in whole milliseconds; the cursor stays until `advance`.

        Raises:
            NoTicks: the terminal gives no whole answer.
        """
        room = _READ_TICKS
        while True:
            ticks = terminal.ticks_from(self.symbol, self.msc, room)
            fresh = [tick for tick in ticks if tick.time_msc > self.msc]
            is_full = len(ticks) >= room
            self.has_more = bool(fresh) or is_full
            if fresh:
                if self.is_holding and not self._agrees(fresh, now):
                    return []
                newest = fresh[-1].time_msc
                # Of a full reading the newest millisecond may be cut.
                if is_full or not self._is_settled(fresh, now):
                    fresh = [tick for tick in fresh if tick.time_msc < newest]
            if fresh or not is_full or room >= _MOST_READ:
                return fresh
            room *= 2

    def _agrees(self, fresh: list[Tick], now: float) -> bool:
        """Whether a reading still has what the one before had, and nothing in between."""
        if self._held is not None:
            msc, totals, at = self._held
            if Totals().plus(tick for tick in fresh if tick.time_msc <= msc) == totals:
                self.is_holding = now - at < _AGREE_SECONDS
                return not self.is_holding
        self._held = fresh[-1].time_msc, Totals().plus(fresh), now
        return False

    def _is_settled(self, fresh: list[Tick], now: float) -> bool:
        newest = fresh[-1].time_msc
        count = sum(tick.time_msc == newest for tick in fresh)
        if (newest, count) != self._newest[:2]:
            self._newest = (newest, count, now)
        return now - self._newest[2] >= _SETTLE_SECONDS

    def advance(self, taken: list[Tick]) -> set[int]:
        """Move the cursor behind ticks that are stored; the minutes whose totals have changed."""
        minutes = by_minute(taken)
        for minute, ticks in minutes.items():
            self.minutes[minute] = self.minutes.get(minute, Totals()).plus(ticks)
        self.msc = taken[-1].time_msc
        return set(minutes)

    def due(self, broker_now_msc: int) -> Check | None:
        """What is to be read again. What is behind the cursor was never read at all."""
        reach = minute_of(self.msc) + MINUTE_MS
        for number, (age, step) in enumerate(zip(CHECK_AGES_MS, _CHECK_STEPS_MS, strict=True)):
            start = self.checked[number]
            old = minute_of(broker_now_msc - age)
            end = min(old, reach, minute_of(start) + _CHECK_MOST_MS)
            if old - minute_of(start) >= step and end > start:
                return Check(number, start, end)
        return None

    def changed(self, terminal: Terminal, check: Check) -> dict[int, list[Tick]] | None:
        """The minutes that have changed since, each with all its ticks; None when the answer may have been short.

        Raises:
            NoTicks: the terminal gives no whole answer.
        """
        read = terminal.ticks_between(self.symbol, check.from_msc, check.end_msc)
        found = by_minute(tick for tick in read if tick.time_msc <= self.msc)
        first = minute_of(check.from_msc)
        is_short = any(
            len(found.get(minute, ())) < self.minutes.get(minute, Totals()).ticks
            for minute in range(first if check.from_msc == first else first + MINUTE_MS, check.end_msc, MINUTE_MS)
        )
        if is_short and self._short < _SHORT_ANSWERS:
            self._short += 1
            return None
        self._short = 0
        return {
            minute: ticks
            for minute, ticks in found.items()
            if Totals().plus(ticks) != self.minutes.get(minute, Totals())
            and len(ticks) >= self.minutes.get(minute, Totals()).ticks
        }

    def before(self, terminal: Terminal, minute: int, ticks: list[Tick]) -> list[Tick] | None:
        """What goes in front of a minute that is sent again; None while there is nothing that could.

        The server knows a resend by time that goes back. A minute of one single millisecond may not go back, and needs
        the two milliseconds before it: the request before may have ended with the last of them.

        Raises:
            NoTicks: the terminal gives no whole answer.
        """
        if ticks[0].time_msc < ticks[-1].time_msc:
            return []
        earlier = sorted(known for known in self.minutes if known < minute)[-2:]
        if not earlier:
            return None
        read = terminal.ticks_between(self.symbol, earlier[0], earlier[-1] + MINUTE_MS)
        times = sorted({tick.time_msc for tick in read})[-2:]
        return [tick for tick in read if tick.time_msc >= times[0]] or None

    def done(self, check: Check, changed: dict[int, list[Tick]]) -> None:
        """What a check has read again is stored."""
        for minute, ticks in changed.items():
            self.minutes[minute] = Totals().plus(ticks)
        self.checked[check.number] = check.end_msc
        oldest = minute_of(min(self.checked))
        # Two before them are needed by `before`.
        oldest = [oldest, *sorted((minute for minute in self.minutes if minute < oldest), reverse=True)[:2]][-1]
        self.minutes = {minute: totals for minute, totals in self.minutes.items() if minute >= oldest}
