"""Folds that give back the ticks of a minute instead of its candle: those that count, or those of every record. Pure.

Both are fed by `marketdata.refold.Refold`, so what counts is decided by the fold itself and nowhere else.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final

from msgspec.structs import astuple

from marketdata.fold import CandleFold
from marketdata.offsets import place
from marketdata.resends import Passes
from marketdata.tick import Frame, Tick, period_of, same
from marketdata.timeframes import M1, Timeframe

#: The columns of a tick that counts, and what a tick of a record has besides.
TICK_COLUMNS: Final = ("time_msc", "bid", "ask", "last", "volume", "flags")
RECORD_COLUMNS: Final = ("partition", "offset", "index", "received", "request")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_time = attrgetter("time_msc")

#: A tick as a row of TICK_COLUMNS, or of TICK_COLUMNS and RECORD_COLUMNS.
TickRow = tuple[Any, ...]


def columns_of(*, raw: bool) -> tuple[str, ...]:
    """The names of what `shown` gives: each form that people and programs are given has these columns."""
    return ("time", *TICK_COLUMNS, *(RECORD_COLUMNS if raw else ()))


def shown(row: TickRow) -> list[Any]:
    """The row with its time in UTC in front, as text; also the receipt of a raw one."""
    cells = [iso_milliseconds(row[0]), *row]
    if len(row) > len(TICK_COLUMNS):
        at = columns_of(raw=True).index("received")
        cells[at] = iso_milliseconds(cells[at])
    return cells


def iso_milliseconds(time_msc: int) -> str:
    """`2019-02-04T00:00:00.417Z`, always with milliseconds."""
    moment = _EPOCH + timedelta(milliseconds=time_msc)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


class TickFold(CandleFold):
    """A fold that holds every tick it counts: each once, however often it was sent."""

    __slots__ = ("_held_copies", "_ticks")

    def __init__(self, source: str, symbol: str, ts: int, timeframe: Timeframe = M1) -> None:
        super().__init__(source, symbol, ts, timeframe)
        self._ticks: list[Tick] = []
        self._held_copies: list[Tick] = []

    def count(self, frame: Frame, ticks: list[Tick]) -> None:
        """Hold the ticks."""
        super().count(frame, ticks)
        self._ticks += ticks

    def finish(self) -> None:
        """Take over the copies that are known to count now that nothing more will be added."""
        self._held_copies += self.copies
        super().finish()

    def rows(self) -> Iterator[TickRow]:
        """The ticks in order of time, those of one millisecond in order of arrival; call `finish` first."""
        ticks = self._ticks
        if self._held_copies:
            ticks = self._with_copies()
        # Sorting is stable: what comes in one millisecond stays in order of arrival.
        return map(astuple, sorted(ticks, key=_time))

    def _with_copies(self) -> list[Tick]:
        # A copy draws nothing, so it stands beside the tick that it repeats: at the end of its second it would close
        # the candle of whoever folds these rows.
        copies: dict[Tick, list[Tick]] = {}
        for copy in self._held_copies:
            copies.setdefault(same(copy), []).append(copy)
        ticks = []
        for tick in self._ticks:
            ticks += [tick, *copies.pop(same(tick), ())]
        return ticks


class RecordFold(CandleFold):
    """Holds the frames that touch a minute, and folds nothing."""

    __slots__ = ("_records",)

    def __init__(self, source: str, symbol: str, ts: int, timeframe: Timeframe = M1) -> None:
        super().__init__(source, symbol, ts, timeframe)
        self._records: list[tuple[int, Frame]] = []

    def add(self, offset: int, run: int, passes: Passes, frame: Frame, ticks: list[Tick]) -> bool:
        """Hold the frame; `offset` is its position in the log."""
        self._records.append((offset, frame))
        return True

    def add_run(
        self, offsets: Sequence[int], run: int, passes: Passes, frames: Sequence[Frame], ticks: list[Tick]
    ) -> None:
        """Hold the frames."""
        self._records += zip(offsets, frames, strict=True)

    def rows(self) -> Iterator[TickRow]:
        """Every tick of the minute, resends too, in the order of the log."""
        width_ms = self.timeframe.base_width_ms
        for position, frame in self._records:
            partition, offset = place(position)
            for index, tick in enumerate(frame.ticks):
                if period_of(tick.time_msc, width_ms) == self.ts:
                    yield (*astuple(tick), partition, offset, index, frame.received, frame.request)
