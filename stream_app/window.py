"""The open candles of one partition: which to publish, which are over, and the committable offset. Pure.

Time enters as arguments only: `wall_ms` is the clock (UTC epoch milliseconds), `now` a monotonic one (seconds).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from marketdata.backlog import Flow
from marketdata.candle import Candle
from marketdata.fold import CandleFold, split_by_period
from marketdata.parts import ForwardRun
from marketdata.resends import Passes
from marketdata.runs import Chunk, Run, flows, too_few
from marketdata.tick import MINUTE_MS, Frame
from marketdata.timeframes import M1, Timeframe
from runtime.telemetry import Headers, TraceContext

#: A closed candle stays in memory this long after its last tick: what comes later is refolded by the sink. Smaller
#: makes more refolds, larger holds more ticks in memory (seconds).
FORGET_IDLE_SECONDS = 5.0

#: In a fast replay: a closed candle is forgotten when its symbol is this far past it (milliseconds of event time).
FORGET_BEHIND_MS = 15 * MINUTE_MS

#: Any candle, closed or not, is forgotten after this long without a tick: one tick stamped tomorrow must not hold the
#: committed offset until tomorrow (seconds).
FORGET_UNTOUCHED_SECONDS = 120.0


class Origin(NamedTuple):
    """Where the newest ticks of a candle came from."""

    #: When the producer took their request (UTC epoch milliseconds).
    received_ms: int
    #: When their chunk of a poll was folded (UTC epoch milliseconds).
    folded_ms: int
    #: Headers of their record.
    headers: Headers
    #: Steps of requests that came since the last candle, the newest of each chunk but the last; only for spans.
    others: tuple[TraceContext, ...] = ()


class Period:
    """One period in memory: its fold, and what of it is not published yet."""

    __slots__ = (
        "closed", "dirty_from", "final", "first_offset", "fold", "origin", "sending_from", "ticks_held",
        "touched_at", "touched_chunk",
    )  # fmt: skip

    def __init__(self, fold: CandleFold, first_offset: int) -> None:
        self.fold = fold
        #: Where the period began in the log.
        self.first_offset = first_offset
        #: Of the newest chunk of a poll that touched it; the worker notes it.
        self.origin: Origin | None = None
        #: Over, by the watermark of its symbol.
        self.closed = False
        #: Over, and the broker has confirmed a candle that says so.
        self.final = False
        #: First offset that no published candle holds; None when all are published.
        self.dirty_from: int | None = None
        #: The same for the candle that is on its way to the broker.
        self.sending_from: int | None = None
        #: As of the newest candle; a fold that has changed since is dirty.
        self.ticks_held = 0
        self.touched_at = 0.0
        self.touched_chunk = -1

    @property
    def settled(self) -> bool:
        """Whether the broker has confirmed everything held of the period."""
        return self.dirty_from is None and self.sending_from is None


class _Symbol:
    __slots__ = ("arrived_at", "newest_ms", "passes", "periods")

    def __init__(self) -> None:
        self.passes = Passes()
        self.periods: dict[int, Period] = {}
        self.newest_ms = -1
        self.arrived_at = 0.0


class Emission(NamedTuple):
    """One candle to publish, and the period to settle when the broker has confirmed it."""

    period: Period
    #: None while no tick of the period has a price: there is nothing to publish, and nothing to wait for.
    candle: Candle | None
    says_closed: bool


class Window:
    """Every period of one partition in memory. Feed it polls in log order; publish what `emissions` returns."""

    def __init__(self, *, log: str, partition: int, grace_ms: int, timeframe: Timeframe = M1) -> None:
        self._log = log
        self._partition = partition
        self._grace_ms = grace_ms
        self._timeframe = timeframe
        self._width_ms = timeframe.base_width_ms
        self._symbols: dict[tuple[str, str], _Symbol] = {}
        self._dirty: set[Period] = set()
        # Of all periods in memory: how many there are, and the ticks that they held at their newest candles.
        self._length = self._ticks_held = 0
        # Chunks so far, and when the newest poll began.
        self._chunk = self._polled_at_chunk = 0
        # By the newest chunk: a search through all that the poll touched, or that waits for publication, would cost
        # each chunk the more, the more symbols tick.
        self._touched: list[Period] = []
        # Symbols, or periods of them, that the newest chunk touched.
        self._ticking = 0
        # The range that was read without a gap, [run_first, position); `run` changes when there was one.
        self._run = 0
        self._run_first = -1
        self.position = -1

    @property
    def width_ms(self) -> int:
        """Length of the periods (milliseconds)."""
        return self._width_ms

    def __len__(self) -> int:
        return self._length

    @property
    def symbols(self) -> int:
        """Symbols in memory, those of each source for themselves."""
        return len(self._symbols)

    @property
    def ticks_held(self) -> int:
        """Ticks held in memory in case they are sent again.

        Only what changed since its newest candle is looked at: all of ten thousand symbols take milliseconds.
        """
        return self._ticks_held + sum([period.fold.ticks_held - period.ticks_held for period in self._dirty])

    def feed(self, first: int, last: int, chunks: Iterable[Chunk | Flow], *, now: float) -> int:
        """Fold one poll that read the offsets `first` to `last`; records that are no frames are left out of `chunks`.

        A chunk is in the order of the log; flows, of which each symbol's are, may come in any order.

        Returns the number of ticks that were folded. Records read before are skipped.
        """
        self._align(first)
        self._polled_at_chunk = self._chunk + 1
        self._touched = []
        ticks_folded = sum(self._fold_chunk(chunk, now) for chunk in chunks)
        self.position = max(self.position, last + 1)
        return ticks_folded

    def _fold_chunk(self, chunk: Chunk | Flow, now: float) -> int:
        self._chunk += 1
        self._touched = []
        if isinstance(chunk, Flow):
            whole = chunk.run()
            if whole is None:
                return self._fold_each(zip(chunk.offsets, chunk.frames, strict=True), now)
            return self._fold_run(chunk.key, whole, now)
        if too_few(chunk, self._ticking):
            ticks_folded = self._fold_each(chunk, now)
            self._ticking = len(self._touched)
            return ticks_folded
        by_key = flows(chunk, self.position)
        self._ticking = len(by_key)
        return sum(self._fold_flow(key, *flow, now) for key, flow in by_key.items())

    def _fold_flow(self, key: tuple[str, str], offsets: Sequence[int], frames: Sequence[Frame], now: float) -> int:
        whole = Run.of(offsets, frames)
        if whole is None:
            return self._fold_each(zip(offsets, frames, strict=True), now)
        return self._fold_run(key, whole, now)

    def _fold_each(self, frames: Iterable[tuple[int, Frame]], now: float) -> int:
        run, width_ms, number, position, ticks_folded = self._run, self._width_ms, self._chunk, self.position, 0
        symbols = self._symbols
        for offset, frame in frames:
            if offset < position:
                continue
            key = (frame.source, frame.symbol)
            if len(frame.ticks) > 1 and (whole := Run.of((offset,), (frame,))) is not None:
                ticks_folded += self._fold_run(key, whole, now)
                continue
            symbol = symbols.get(key) or self._begin(key)
            symbol.arrived_at = now
            passes = symbol.passes
            earliest, latest, parts = split_by_period(frame, width_ms)
            passes.enter(frame, earliest, latest)
            if latest > symbol.newest_ms:
                symbol.newest_ms = latest
            for ts, ticks in parts:
                period = symbol.periods.get(ts)
                if period is None or period.touched_chunk != number:
                    period = self._touch(key, symbol, ts, offset)
                period.fold.add(offset, run, passes, frame, ticks)
                ticks_folded += len(ticks)
        return ticks_folded

    def touched(self) -> Iterator[Period]:
        """The periods that the newest chunk touched, in order of first touch."""
        return iter(self._touched)

    def _fold_run(self, key: tuple[str, str], run: ForwardRun, now: float) -> int:
        symbol = self._symbols.get(key) or self._begin(key)
        symbol.arrived_at = now
        symbol.passes.enter_run(run.ends, run.earliest, run.latest)
        symbol.newest_ms = max(symbol.newest_ms, run.latest)
        for part in run.parts(self._width_ms):
            self._touch(key, symbol, part.ts, part.first_offset).fold.add_run(part, self._run, symbol.passes)
        return len(run)

    def _begin(self, key: tuple[str, str]) -> _Symbol:
        symbol = self._symbols[key] = _Symbol()
        return symbol

    def _touch(self, key: tuple[str, str], symbol: _Symbol, ts: int, offset: int) -> Period:
        period = symbol.periods.get(ts)
        if period is None:
            period = symbol.periods[ts] = Period(CandleFold(*key, ts, self._timeframe), offset)
            self._length += 1
        if period.touched_chunk != self._chunk:
            period.touched_at, period.touched_chunk = symbol.arrived_at, self._chunk
            self._touched.append(period)
        if period.dirty_from is None:
            period.dirty_from = offset
            self._dirty.add(period)
        return period

    def _align(self, first: int) -> None:
        if self.position < 0:
            self._run_first = self.position = first
        elif first < self._run_first:
            # Reading restarted further back: memory lacks the beginning, the log has all of it.
            self._symbols.clear()
            self._dirty.clear()
            self._length = self._ticks_held = 0
            self._run += 1
            self._run_first = self.position = first
        elif first > self.position:
            # Offsets are missing, through a transaction marker or an error in reading: claim nothing that was not read.
            self._run += 1
            self._run_first = self.position = first
            for symbol in self._symbols.values():
                symbol.passes.cut()

    def _close(self, wall_ms: int, now: float) -> None:
        grace_ms = self._grace_ms
        idle_since = now - grace_ms / 1000
        for symbol in self._symbols.values():
            # A tick stamped tomorrow must not close today's periods: the watermark is never ahead of the clock.
            newest_ms = symbol.newest_ms
            watermark_ms = newest_ms if newest_ms < wall_ms and symbol.arrived_at > idle_since else wall_ms
            closes_ms = watermark_ms - self._width_ms - grace_ms
            for ts, period in symbol.periods.items():
                if ts <= closes_ms and not period.closed:
                    period.closed = True
                    self._dirty.add(period)

    def emissions(self, *, wall_ms: int, now: float, closed_only: bool = False) -> list[Emission]:
        """Candles of the periods that changed or closed since the last call. Settle or return each of them.

        With `closed_only` those of open periods wait for a later call.
        """
        self._close(wall_ms, now)
        emissions = []
        due = [period for period in self._dirty if period.closed or not closed_only]
        for period in due:
            fold = period.fold
            candle = fold.candle(
                log=self._log, offsets=fold.ranges(self._partition), closed=period.closed, emitted=wall_ms
            )
            period.sending_from, period.dirty_from = period.dirty_from, None
            ticks_held = fold.ticks_held
            self._ticks_held += ticks_held - period.ticks_held
            period.ticks_held = ticks_held
            emissions.append(Emission(period, candle, period.closed))
        self._dirty.difference_update(due)
        return emissions

    def settle(self, emission: Emission) -> None:
        """Note that the broker has confirmed this candle."""
        emission.period.sending_from = None
        emission.period.final = emission.period.final or emission.says_closed

    def give_back(self, emission: Emission) -> None:
        """Queue the period for publication again: the broker did not confirm its candle."""
        period = emission.period
        if period.sending_from is not None:
            period.dirty_from, period.sending_from = period.sending_from, None
        self._dirty.add(period)

    def forget(self, *, wall_ms: int, now: float) -> int:
        """Drop periods that expect no more ticks; returns how many."""
        forgotten = 0
        empty = []
        polled_at_chunk, idle_since, untouched_since = (
            self._polled_at_chunk, now - FORGET_IDLE_SECONDS, now - FORGET_UNTOUCHED_SECONDS
        )  # fmt: skip
        # One loop, because it looks at every period each time candles were published.
        for key, symbol in self._symbols.items():
            newest_ms = symbol.newest_ms
            behind_ms = (newest_ms if newest_ms < wall_ms else wall_ms) - self._width_ms - FORGET_BEHIND_MS
            over = None
            for ts, period in symbol.periods.items():
                touched_at = period.touched_at
                if period.final:
                    is_over = touched_at <= idle_since or (ts <= behind_ms and period.touched_chunk < polled_at_chunk)
                else:
                    is_over = touched_at <= untouched_since
                if is_over and period.settled and period not in self._dirty:
                    over = over or []
                    over.append(ts)
            if over is not None:
                forgotten += len(over)
                for ts in over:
                    self._ticks_held -= symbol.periods.pop(ts).ticks_held
            # Passes matter within a stored range only, so a symbol without periods needs no memory.
            if not symbol.periods:
                empty.append(key)
        for key in empty:
            del self._symbols[key]
        self._length -= forgotten
        return forgotten

    @property
    def safe_offset(self) -> int:
        """Everything below may be committed: no open period began there and no candle of it is unpublished."""
        # One loop, because it looks at every period each time candles were published.
        safe = self.position
        for symbol in self._symbols.values():
            for period in symbol.periods.values():
                if not period.final:
                    # Folded again from its beginning after a crash.
                    held = period.first_offset
                elif period.sending_from is not None:
                    held = period.sending_from
                elif period.dirty_from is not None:
                    held = period.dirty_from
                else:
                    continue
                if held < safe:
                    safe = held
        return safe
