"""The fold: turns the ticks that a set of log offsets holds into one candle. Pure; the whole project rests on it.

The rules in short (docs/candles.md explains them to users):

- The price is the bid, or the deal's price for a symbol charted by last (MT5: SYMBOL_CHART_MODE). A price that is 0 or
  not finite is no price: the tick is counted, not folded. A negative price is one. Nothing is rounded.
- MetaTrader repeats the last deal's price and volume in every quote. A tick is a deal by its flags (MT5: LAST, VOLUME,
  BUY, SELL), or when its sender gives none; only a deal has a last price and a volume.
- The volume is the number of ticks, by bid of all of them, by last of the deals: what MetaTrader counts in its bars.
- Open is the price of the smallest (time_msc, arrival), close that of the greatest; arrival is the order in the log.
- A resend adds only what is new in it, and forward flow loses nothing however coarse its times are;
  marketdata/resends.py tells the two apart.
- Between two ranges of offsets a new pass begins, so that refolding stored ranges always gives the same answer.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf
from operator import attrgetter

from marketdata.aggregates import bounds, volume_of, volume_units
from marketdata.candle import Candle
from marketdata.offsets import Ranges, Span
from marketdata.packed import PackedTicks
from marketdata.parts import PeriodPart
from marketdata.resends import CoarseFrames, Passes, Piece
from marketdata.tick import MAX_PRICE, MAX_TIME_MSC, MINUTE_MS, Columns, Frame, Tick, Ticks, is_deal, period_of, same
from marketdata.timeframes import M1, Timeframe

#: Later than every tick.
_NEVER = MAX_TIME_MSC + 1

#: So many frames are worked in together. With many more they would fill memory, and have left the processor's cache.
_MAX_PENDING = 16

_last, _volume, _flags = map(attrgetter, ("last", "volume", "flags"))


def split_by_period(frame: Frame, width_ms: int = MINUTE_MS) -> tuple[int, int, list[tuple[int, list[Tick]]]]:
    """The times of the earliest and the latest tick, and the frame's ticks grouped by period."""
    ticks = frame.ticks if type(frame.ticks) is list else list(frame.ticks)
    if len(ticks) == 1:
        time_msc = ticks[0].time_msc
        return time_msc, time_msc, [(time_msc - time_msc % width_ms, ticks)]
    times = [tick.time_msc for tick in ticks]
    earliest, latest = min(times), max(times)
    if earliest // width_ms == latest // width_ms:
        return earliest, latest, [(period_of(earliest, width_ms), ticks)]
    periods: dict[int, list[Tick]] = {}
    for tick in ticks:
        periods.setdefault(period_of(tick.time_msc, width_ms), []).append(tick)
    return earliest, latest, list(periods.items())


class CandleFold:
    """The fold of one source, symbol and period, fed with the frames that touch the period, in log order.

    Offsets may be those of one partition, or positions in the whole log: anything that numbers the records in order.
    """

    __slots__ = (
        "_best", "_close_at", "_coarse", "_counts_deals", "_current", "_earlier", "_first_offset", "_held",
        "_open_at", "_pass", "_pending", "_point", "_quote", "_run", "_spread", "_volume", "_volume_units", "close",
        "earliest", "high", "last_offset", "latest", "low", "open", "received", "source", "symbol", "timeframe", "ts",
    )  # fmt: skip

    def __init__(self, source: str, symbol: str, ts: int, timeframe: Timeframe = M1) -> None:
        self.source = source
        self.symbol = symbol
        self.ts = ts
        self.timeframe = timeframe
        self.open = self.close = 0.0
        self.high, self.low = -inf, inf
        #: Times of the earliest and the latest tick (UTC epoch milliseconds).
        self.earliest, self.latest = _NEVER, -1
        self.received = 0
        # Bid and ask of the latest tick.
        self._quote = (0.0, 0.0)
        # Times of the ticks that open and close show; ticks without a price move neither.
        self._open_at, self._close_at = _NEVER, -1
        self._volume = 0
        self._volume_units = 0
        # Whether a frame of a symbol charted by last has counted.
        self._counts_deals = False
        self._spread = inf
        self._point: float | None = None
        # Where the newest range begins, and the ranges before it, of which there is hardly ever one.
        self._first_offset = -1
        #: The newest record that touched the period.
        self.last_offset = -1
        self._earlier: tuple[Span, ...] = ()
        self._run = -1
        # Ordinary flow is a single pass, whose ticks are merely held; counting starts with a second pass.
        self._pass = -1
        self._held = PackedTicks(ts, timeframe.base_width_ms)
        self._best: Counter[Tick] | None = None
        # Made with a second pass: making it takes longer than the rest of this.
        self._current: Counter[Tick] | None = None
        # From the first frame of whole-second times on.
        self._coarse: CoarseFrames | None = None
        # Added and counted, not yet in the prices and sums; nor held, as long as ticks are held.
        self._pending: list[tuple[Frame, list[Tick]]] | tuple[()] = ()

    @property
    def spans(self) -> tuple[Span, ...]:
        """The first and last offset of each part of the log that was read without a gap."""
        return (*self._earlier, (self._first_offset, self.last_offset)) if self.last_offset >= 0 else ()

    def ranges(self, partition: int) -> Ranges:
        """The spans as a proof, when the offsets are those of one partition."""
        if not self._earlier and self.last_offset >= 0:
            return ((partition, self._first_offset, self.last_offset),)
        return tuple([(partition, first, last) for first, last in self.spans])

    @property
    def ticks_held(self) -> int:
        """Number of ticks held in memory in case the period is resent."""
        if self._best is not None:
            return len(self._best)
        held = len(self._held)
        return held + sum([len(ticks) for _, ticks in self._pending]) if self._pending else held

    def finish(self) -> None:
        """Release the ticks held in case of a resend: nothing more will be added."""
        self.settle()
        if self._coarse is not None:
            self._volume, self._volume_units = self.volume, self._units()
            self._coarse = None
        self._held.clear()
        self._best = self._current = None

    def add(self, offset: int, run: int, passes: Passes, frame: Frame, ticks: list[Tick]) -> bool:
        """Fold `ticks`, those of this period in `frame`, read at `offset`; `passes` has entered `frame` last.

        `run` changes whenever the log was not read without a gap; a range never spans two runs. A record that was
        folded already is skipped. Returns whether the candle, or its proof, changed.
        """
        if offset <= self.last_offset:
            return False
        if run != self._run:
            self._begin_range(run, offset)
        self.last_offset = offset

        number = passes.number
        if self._best is None and self._pass in (number, -1):
            self._pass = number
            if frame.coarse:
                self._coarse_frames().forward(number, [bounds(frame)], frame)
        elif frame.coarse:
            ticks = self._new_in_coarse(passes, frame, ticks)
        else:
            ticks = self._new_in_pass(number, ticks)
        if ticks:
            if self._pending:
                self._pending.append((frame, ticks))
            else:
                self._pending = [(frame, ticks)]
            if len(self._pending) >= _MAX_PENDING:
                self.settle()
        return True

    def add_run(self, part: PeriodPart, run: int, passes: Passes, *, is_last: bool = False) -> None:
        """Fold what is of this period in a run of frames, as `add` would one by one; none was folded before.

        With `is_last` nothing more will be added, so its ticks are not held.
        """
        number = passes.number
        if self._best is not None or self._pass not in (number, -1):
            for offset, frame in zip(part.offsets, part.frames, strict=True):
                width_ms = self.timeframe.base_width_ms
                own = [tick for tick in frame.ticks if period_of(tick.time_msc, width_ms) == self.ts]
                self.add(offset, run, passes, frame, own)
            return
        if run != self._run:
            self._begin_range(run, part.first_offset)
        self.last_offset = part.last_offset
        self._pass = number
        if part.form.coarse:
            touched = {(frame.ticks[0].time_msc, frame.ticks[-1].time_msc): None for frame in part.frames}
            self._coarse_frames().forward(number, list(touched), part.frames[-1])
        self.settle()
        if not is_last:
            part.keep(self._held)
        # At once, while the ticks are in the processor's cache.
        if not self._settle_run(part):
            self._settle_frames([(part.frames[-1], part.ticks)])

    def _begin_range(self, run: int, offset: int) -> None:
        self._run = run
        self._earlier = self.spans
        self._first_offset = offset

    def _counted(self) -> Counter[Tick]:
        """How often each tick counts, including those held so far."""
        if self._best is None:
            self.settle()
            self._best = Counter(map(same, self._held))
            self._held.clear()
        return self._best

    def _coarse_frames(self) -> CoarseFrames:
        if self._coarse is None:
            self.settle()
            self._coarse = CoarseFrames(self.ts, self.ts + self.timeframe.base_width_ms, self._pass, self.latest)
        return self._coarse

    def _new_in_coarse(self, passes: Passes, frame: Frame, ticks: list[Tick]) -> list[Tick]:
        is_opener = passes.opener is frame
        piece = Piece(passes.number, is_opener, frame, passes.turned, *bounds(frame), ticks, list(map(same, ticks)))
        return self._coarse_frames().later(piece, self._counted())

    def _new_in_pass(self, pass_number: int, ticks: list[Tick]) -> list[Tick]:
        best = self._best if self._best is not None else self._counted()
        current = self._current
        if current is None or pass_number != self._pass:
            self._pass = pass_number
            current = self._current = Counter()
        new = []
        for tick in ticks:
            key = same(tick)
            current[key] += 1
            if current[key] > best[key]:
                best[key] = current[key]
                new.append(tick)
        return new

    def settle(self) -> None:
        """Update prices and sums with the added ticks; `candle` does so, and callers that read the attributes must.

        Many small frames at once take half the time of one by one.
        """
        if self._pending:
            pending, self._pending = self._pending, ()
            if self._best is None:
                self._held.add([tick for _, ticks in pending for tick in ticks])
            self._settle_frames(pending)

    def _settle_frames(self, pending: Iterable[tuple[Frame, Ticks]]) -> None:
        # One loop, because function calls would cost more than the work.
        high, low, spread = self.high, self.low, self._spread
        open_at, close_at, earliest, latest = self._open_at, self._close_at, self.earliest, self.latest
        quote = self._quote
        for frame, ticks in pending:
            by_bid = frame.mode == "bid"
            for tick in ticks:
                time_msc, bid, ask = tick.time_msc, tick.bid, tick.ask
                price = bid if by_bid else tick.last if is_deal(tick.flags) else 0.0
                if price and -inf < price < inf:
                    if price > high:
                        high = price
                    if price < low:
                        low = price
                    if time_msc >= close_at:
                        close_at = time_msc
                        self.close = price
                    if time_msc < open_at:
                        open_at = time_msc
                        self.open = price
                if bid and ask and -inf < ask - bid < spread:
                    spread = ask - bid
                if time_msc < earliest:
                    earliest = time_msc
                if time_msc >= latest:
                    latest = time_msc
                    quote = (bid, ask)
                    self.received = frame.received
            self.count(frame, ticks)
        self.high, self.low, self._spread, self._quote = high, low, spread, quote
        self._open_at, self._close_at, self.earliest, self.latest = open_at, close_at, earliest, latest

    def _settle_run(self, part: PeriodPart) -> bool:
        """Update them with a run as a whole; False when not every price is positive and finite."""
        if (outline := part.outline) is None:
            return False
        first_price, high, low, last_price, spread, bid, ask, first, last = outline
        if high > self.high:
            self.high = high
        if low < self.low:
            self.low = low
        if spread < self._spread:
            self._spread = spread
        if last >= self._close_at:
            self._close_at, self.close = last, last_price
        if first < self._open_at:
            self._open_at, self.open = first, first_price
        if first < self.earliest:
            self.earliest = first
        if last >= self.latest:
            self.latest, self.received = last, part.received
            self._quote = (bid, ask)
        self._count_run(part)
        return True

    def _count_run(self, part: PeriodPart) -> None:
        # Ticks are put together only where there is something to look for in them.
        form = part.form
        if form.mode != "bid" or part.has_volume:
            self.count(form, part.ticks)
        else:
            self._volume += len(part)
            self._note_point(form)

    def count(self, frame: Frame, ticks: Ticks) -> None:
        """Add the ticks to the sums; each tick that counts comes here once, in order of arrival, except `copies`."""
        if frame.mode == "bid":
            self._volume += len(ticks)
        else:
            self._counts_deals = True
            self._volume += sum(map(is_deal, map(_flags, ticks)))
        if ticks.volume if isinstance(ticks, Columns) else any(map(_volume, ticks)):
            self._volume_units += volume_units(ticks)
        self._note_point(frame)

    def _note_point(self, frame: Frame) -> None:
        if frame.point is not None and (self._point is None or frame.point < self._point):
            self._point = frame.point

    def _units(self) -> int:
        return self._volume_units if self._coarse is None else self._volume_units + volume_units(self.copies)

    @property
    def copies(self) -> Sequence[Tick]:
        """Ticks of whole-second times that count although an equal one did: see `CoarseFrames.copies`."""
        return self._coarse.copies if self._coarse is not None else ()

    @property
    def volume(self) -> int:
        """Number of ticks, with and without a price; of a symbol charted by last, of deals."""
        if self._coarse is None:
            return self._volume
        copies = self.copies
        return self._volume + (sum(map(is_deal, map(_flags, copies))) if self._counts_deals else len(copies))

    @property
    def real_volume(self) -> float:
        """Sum of the ticks' volumes, exact before it becomes a double."""
        return volume_of(self._units()) if self._volume_units or self._coarse is not None else 0.0

    @property
    def spread(self) -> int | None:
        """Lowest ask − bid in points; null when no tick had both prices or no frame said what a point is."""
        if self._point is None or self._spread == inf:
            return None
        points = self._spread / self._point
        return round(points) if abs(points) < 2**31 - 1 else None

    def candle(self, *, log: str, offsets: Ranges, closed: bool, emitted: int) -> Candle | None:
        """The current candle, or None while no tick of the period had a usable price.

        `offsets` are its proof: the ranges of `log` of which every record was read.
        """
        if self._pending:
            self.settle()
        if self._open_at == _NEVER:
            return None
        bid, ask = self._quote
        return Candle(
            source=self.source,
            symbol=self.symbol,
            timeframe=self.timeframe.name,
            ts=self.ts,
            open=self.open,
            high=self.high,
            low=self.low,
            close=self.close,
            volume=self.volume,
            real_volume=self.real_volume,
            spread=self.spread,
            first_tick=self.earliest,
            last_tick=self.latest,
            log=log,
            offsets=offsets,
            closed=closed,
            received=self.received,
            emitted=emitted,
            bid=_quoted(bid),
            ask=_quoted(ask),
        )


def _quoted(price: float) -> float | None:
    """The price of a quote, or None where it is 0 or not finite."""
    return price if price and -MAX_PRICE <= price <= MAX_PRICE else None
