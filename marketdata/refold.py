"""Refolds stored candles from the offsets they name. Pure.

The caller reads what `to_read` names, in order, and feeds every frame with its position in the log; frames of the same
source and symbol that do not touch the candle matter as well, because going back in time opens a pass. Plain forward
flow is folded in runs (marketdata/runs.py).

`TickFold` and `RecordFold` return the ticks of a minute instead of its candle: those that count, or those of every
record. Both are fed by `Refold`, so what counts is decided by the fold itself and nowhere else.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from msgspec.structs import astuple

from marketdata.fold import CandleFold, split_by_period
from marketdata.offsets import Range, Ranges, first_position, last_position, normalized, place, spans
from marketdata.parts import PeriodPart
from marketdata.resends import Passes
from marketdata.runs import Chunk, Flows, Run, flows
from marketdata.tick import Columns, Frame, Tick, Ticks, joined, period_of, rows_of, same
from marketdata.timeframes import M1, Timeframe

#: Ranges closer than this are read in one go: skipping fewer records costs more than reading them.
BRIDGE_RECORDS = 5_000


@dataclass(frozen=True)
class Proof:
    """What a candle claims: this period is the fold of these offsets. Only what nearly always differs is hashed."""

    source: str = field(hash=False)
    symbol: str
    #: Start of the period (UTC epoch milliseconds).
    ts: int
    ranges: Ranges
    timeframe: Timeframe = field(default=M1, hash=False)


def bridged(ranges: Iterable[Range]) -> Ranges:
    """The ranges with the small gaps between them."""
    found: list[Range] = []
    for partition, first, last in normalized(ranges):
        if found and found[-1][0] == partition and first - found[-1][2] <= BRIDGE_RECORDS:
            found[-1] = (partition, found[-1][1], last)
        else:
            found.append((partition, first, last))
    return tuple(found)


#: Makes the fold of a source, symbol, start of the period and timeframe.
NewFold = Callable[[str, str, int, Timeframe], CandleFold]


class _Target:
    __slots__ = ("fold", "index", "passes", "spans", "width_ms")

    def __init__(self, proof: Proof, new_fold: NewFold) -> None:
        self.fold = new_fold(proof.source, proof.symbol, proof.ts, proof.timeframe)
        self.width_ms = proof.timeframe.base_width_ms
        self.passes = Passes()
        self.spans = spans(proof.ranges)
        self.index = 0

    def feed(
        self, position: int, frame: Frame, earliest: int, latest: int, periods: list[tuple[int, list[Tick]]]
    ) -> bool:
        """Fold the frame if its position belongs to the proof; False once no later one can."""
        while self.spans[self.index][1] < position:
            if not self._next_span():
                return False
        if position >= self.spans[self.index][0]:
            self.passes.enter(frame, earliest, latest)
            for ts, ticks in periods:
                if ts == self.fold.ts:
                    self.fold.add(position, self.index, self.passes, frame, ticks)
        return True

    def feed_run(self, run: Run) -> bool:
        """Fold the part of the run that belongs to the proof; False once no later one can."""
        while self.spans[self.index][0] <= run.offsets[-1]:
            first, last = self.spans[self.index]
            if (inside := run.within(first, last)) is not None:
                self.passes.enter_run((inside.first_frame, inside.form), inside.earliest, inside.latest)
                if (part := inside.part(self.fold.ts, self.width_ms)) is not None:
                    is_last = self.spans[-1] == (first, last) and last <= run.offsets[-1]
                    self.fold.add_run(part, self.index, self.passes, is_last=is_last)
            if last >= run.offsets[-1]:
                break
            if not self._next_span():
                return False
        return True

    def _next_span(self) -> bool:
        self.index += 1
        self.passes.cut()
        if self.index < len(self.spans):
            return True
        self.fold.finish()
        return False


#: Source, symbol and width: frames are split once for all candles of one width.
_Key = tuple[str, str, int]


class TooManyTicks(Exception):
    """The folds would hold more ticks than they may; fold fewer candles at a time."""


class Refold:
    """Folds candles of one log again; feed it with chunks of frames in ascending order of positions."""

    def __init__(self, proofs: Iterable[Proof], new_fold: NewFold = CandleFold, max_ticks: int | None = None) -> None:
        self._max_ticks = max_ticks
        self._new_fold = new_fold
        # Each is made when its first record is reached: who waits for the first fold does not wait for all of them.
        self._targets: dict[Proof, _Target | None] = dict.fromkeys(proofs)
        self._waiting: dict[_Key, list[Proof]] = {}
        self._active: dict[_Key, list[_Target]] = {}
        self._ticks_held = 0
        for proof in self._targets:
            self._waiting.setdefault((proof.source, proof.symbol, proof.timeframe.base_width_ms), []).append(proof)
        self._widths_ms = {width_ms for _, _, width_ms in self._waiting}
        for waiting in self._waiting.values():
            waiting.sort(key=lambda proof: proof.ranges[0], reverse=True)

    def to_read(self) -> Ranges:
        """What to read, in order: the ranges of all proofs, with small gaps bridged."""
        return bridged(r for proof in self._targets for r in proof.ranges)

    def feed(self, chunk: Chunk) -> None:
        """Fold frames into every candle whose proof holds their positions.

        Raises:
            TooManyTicks: when the folds then hold more than `max_ticks`.
        """
        self.feed_flows(flows(chunk))

    def feed_flows(self, fed: Flows) -> None:
        """As `feed`, with the frames of each source and symbol by themselves, and with their positions.

        Raises: as `feed`.
        """
        for (source, symbol), (positions, frames) in fed.items():
            for width_ms in self._widths_ms:
                self._feed((source, symbol, width_ms), positions, frames)
        if self._max_ticks is not None and self._ticks_held > self._max_ticks:
            raise TooManyTicks

    def _feed(self, key: _Key, positions: Sequence[int], frames: Sequence[Frame]) -> None:
        if not (active := self._activated(key, positions[-1])):
            return
        # Only these change now; counting those of all candles costs each chunk the more, the more symbols there are.
        fed, before = active, sum(target.fold.ticks_held for target in active)
        if (run := Run.of(positions, frames)) is not None:
            active = [target for target in active if target.feed_run(run)]
        else:
            for position, frame in zip(positions, frames, strict=True):
                earliest, latest, periods = split_by_period(frame, key[2])
                active = [target for target in active if target.feed(position, frame, earliest, latest, periods)]
        self._active[key] = active
        self._ticks_held += sum(target.fold.ticks_held for target in fed) - before

    def _activated(self, key: _Key, position: int) -> list[_Target]:
        waiting, active = self._waiting.get(key), self._active.setdefault(key, [])
        while waiting and first_position(waiting[-1].ranges) <= position:
            if (proof := waiting.pop()) in self._targets:
                self._targets[proof] = target = _Target(proof, self._new_fold)
                active.append(target)
        return active

    def complete(self, proof: Proof, position: int) -> CandleFold | None:
        """The fold of a proof, which is let go, when all up to `position` was fed; None if more may belong to it."""
        if last_position(proof.ranges) > position:
            return None
        fold = (self._targets.pop(proof) or _Target(proof, self._new_fold)).fold
        self._ticks_held -= fold.ticks_held
        fold.finish()
        return fold

    def results(self) -> dict[Proof, CandleFold]:
        """The fold of every proof, complete once everything was fed."""
        targets = {proof: target or _Target(proof, self._new_fold) for proof, target in self._targets.items()}
        for target in targets.values():
            target.fold.finish()
        return {proof: target.fold for proof, target in targets.items()}


def completed(
    left: deque[Proof], provable: Collection[Proof], refold: Refold, position: int
) -> Iterator[tuple[Proof, CandleFold | None]]:
    """The next ones of `left`, which are taken from it, up to the first that is not complete."""
    while left:
        fold = refold.complete(left[0], position) if left[0] in provable else None
        if fold is None and left[0] in provable:
            return
        yield left.popleft(), fold


#: The columns of a tick that counts, and the additional ones of a tick in a record.
TICK_COLUMNS: Final = Tick.__struct_fields__
RECORD_COLUMNS: Final = ("partition", "offset", "index", "received", "request")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_time = attrgetter("time_msc")

#: A tick as a row of TICK_COLUMNS, or of TICK_COLUMNS and RECORD_COLUMNS.
TickRow = tuple[Any, ...]


def columns_of(*, raw: bool) -> tuple[str, ...]:
    """The column names of what `shown` returns; every output format has these columns."""
    return ("time", *TICK_COLUMNS, *(RECORD_COLUMNS if raw else ()))


def shown(row: TickRow) -> list[Any]:
    """The row preceded by its time in UTC as text; the receipt of a raw row is text as well."""
    cells = [iso_milliseconds(row[0]), *row]
    if len(row) > len(TICK_COLUMNS):
        at = columns_of(raw=True).index("received")
        cells[at] = iso_milliseconds(cells[at])
    return cells


def iso_milliseconds(time_msc: int) -> str:
    """`2019-02-04T00:00:00.417Z`, always with milliseconds."""
    return f"{_iso_second(time_msc // 1000)}.{time_msc % 1000:03d}Z"


@lru_cache(maxsize=256)
def _iso_second(second: int) -> str:
    # Ticks come in order of time, so a second is asked for some times in a row.
    return (_EPOCH + timedelta(seconds=second)).replace(tzinfo=None).isoformat()


class TickFold(CandleFold):
    """A fold that holds every tick it counts: each once, however often it was sent."""

    __slots__ = ("_held_copies", "_length", "_parts")

    def __init__(self, source: str, symbol: str, ts: int, timeframe: Timeframe = M1) -> None:
        super().__init__(source, symbol, ts, timeframe)
        # Columns as they came, and lists of single ticks between them.
        self._parts: list[Ticks] = []
        self._length = 0
        self._held_copies: list[Tick] = []

    def count(self, frame: Frame, ticks: Ticks) -> None:
        """Hold the ticks."""
        super().count(frame, ticks)
        self._hold(ticks)

    def _count_run(self, part: PeriodPart) -> None:
        self.count(part.form, part.ticks)

    def _hold(self, ticks: Ticks) -> None:
        self._length += len(ticks)
        if isinstance(ticks, Columns):
            self._parts.append(ticks)
        elif self._parts and isinstance(before := self._parts[-1], list):
            before += ticks
        else:
            self._parts.append(list(ticks))

    @property
    def ticks_held(self) -> int:
        """Number of ticks held in memory, to be returned or in case the period is resent."""
        return self._length + super().ticks_held

    def finish(self) -> None:
        """Add the copies that are now known to count, as no more frames will follow."""
        self._held_copies += self.copies
        super().finish()

    def ticks(self) -> Ticks:
        """The ticks in order of time, those of one millisecond in order of arrival; call `finish` first."""
        # Sorting is stable: what comes in one millisecond stays in order of arrival.
        ticks = self._with_copies() if self._held_copies else joined(self._parts)
        if isinstance(ticks, Columns) and ticks.in_order:
            return ticks
        return sorted(ticks, key=_time)

    def rows(self) -> Iterator[TickRow]:
        """`ticks` as rows."""
        return rows_of(self.ticks())

    def _with_copies(self) -> list[Tick]:
        # A copy draws nothing, so it stands beside the tick that it repeats: at the end of its second it would close
        # the candle of whoever folds these rows.
        copies: dict[Tick, list[Tick]] = {}
        for copy in self._held_copies:
            copies.setdefault(same(copy), []).append(copy)
        ticks = []
        for tick in joined(self._parts):
            ticks += [tick, *copies.pop(same(tick), ())]
        return ticks


class CountedTicks(TickFold):
    """A `TickFold` without the candle, which takes a third of its time: prices and sums are not computed."""

    __slots__ = ("has_deals",)

    def __init__(self, source: str, symbol: str, ts: int, timeframe: Timeframe = M1) -> None:
        super().__init__(source, symbol, ts, timeframe)
        #: Whether a frame of a symbol charted by last has counted: then the volume of the candle is not `len(ticks)`.
        self.has_deals = False

    def _settle_frames(self, pending: Iterable[tuple[Frame, Ticks]]) -> None:
        for frame, ticks in pending:
            self.latest = max(self.latest, *map(_time, ticks))
            self.count(frame, ticks)

    def _settle_run(self, part: PeriodPart) -> bool:
        self.latest = max(self.latest, part.latest)
        self.count(part.form, part.ticks)
        return True

    def count(self, frame: Frame, ticks: Ticks) -> None:
        """Hold the ticks, and nothing else."""
        self._hold(ticks)
        self.has_deals |= frame.mode != "bid"


class RecordFold(CandleFold):
    """Holds the frames that touch a minute, and folds nothing."""

    __slots__ = ("_records", "_ticks_held")

    def __init__(self, source: str, symbol: str, ts: int, timeframe: Timeframe = M1) -> None:
        super().__init__(source, symbol, ts, timeframe)
        self._records: list[tuple[int, Frame]] = []
        self._ticks_held = 0

    @property
    def ticks_held(self) -> int:
        """Number of ticks in the frames held."""
        return self._ticks_held

    def add(self, offset: int, run: int, passes: Passes, frame: Frame, ticks: list[Tick]) -> bool:
        """Hold the frame; `offset` is its position in the log."""
        self._records.append((offset, frame))
        self._ticks_held += len(frame.ticks)
        return True

    def add_run(self, part: PeriodPart, run: int, passes: Passes, *, is_last: bool = False) -> None:
        """Hold the frames."""
        self._records += zip(part.offsets, part.frames, strict=True)
        self._ticks_held += sum(len(frame.ticks) for frame in part.frames)

    def rows(self) -> Iterator[TickRow]:
        """Every tick of the minute, resends too, in the order of the log."""
        width_ms = self.timeframe.base_width_ms
        for position, frame in self._records:
            partition, offset = place(position)
            for index, tick in enumerate(frame.ticks):
                if period_of(tick.time_msc, width_ms) == self.ts:
                    yield (*astuple(tick), partition, offset, index, frame.received, frame.request)
