"""The fold: from the ticks that a set of log offsets holds to one candle. Pure; the whole project rests on it.

The rules, in short (docs/candles.md tells them to users):

- The price is the bid, or the last deal's price for a symbol charted by last (MT5: SYMBOL_CHART_MODE). A price that is
  not positive and finite is no price: the tick is counted, not folded. Nothing is rounded.
- Open is the price of the smallest (time_msc, arrival), close that of the greatest; arrival is the order in the log.
- A *pass* is a run of frames of one source and symbol in which time does not go back from one frame to the next. Within
  a pass every tick counts; the ticks of a minute are the element-wise maximum over its passes. So a resend, which goes
  back in time, adds only what is new in it, and forward flow loses nothing however coarse its times are. A resend
  that begins in the very millisecond where the frame before it ended is told by its content (docs/decisions/0002).
- Between two ranges of offsets a new pass begins, so that folding stored ranges again gives the same answer for ever.
"""

from collections import Counter
from itertools import takewhile
from math import inf

from marketdata.candle import Candle
from marketdata.offsets import Ranges
from marketdata.tick import MAX_TIME_MSC, MINUTE_MS, Frame, Tick, minute_of

#: Doubles are whole numbers of 2**-1074: counted in these units volumes add up exactly, in whatever order they come.
_VOLUME_SCALE = 1074

#: Later than every tick.
_NEVER = MAX_TIME_MSC + 1

#: No instrument trades more in a tick (lots, contracts or shares); what a foreign sender claims beyond is not added.
_MAX_VOLUME = 1e18


def split_by_minute(frame: Frame) -> tuple[int, int, list[tuple[int, list[Tick]]]]:
    """Times of the earliest and the latest tick, and the frame's ticks by the minute they belong to."""
    ticks = frame.ticks
    if len(ticks) == 1:
        time_msc = ticks[0].time_msc
        return time_msc, time_msc, [(time_msc - time_msc % MINUTE_MS, ticks)]
    times = [tick.time_msc for tick in ticks]
    earliest, latest = min(times), max(times)
    if earliest // MINUTE_MS == latest // MINUTE_MS:
        return earliest, latest, [(minute_of(earliest), ticks)]
    minutes: dict[int, list[Tick]] = {}
    for tick in ticks:
        minutes.setdefault(minute_of(tick.time_msc), []).append(tick)
    return earliest, latest, list(minutes.items())


class Passes:
    """Numbers the passes of one source and symbol; fed with every frame of it, in log order."""

    __slots__ = ("_before", "_high", "number")

    def __init__(self) -> None:
        #: Number of the pass that the newest frame belongs to.
        self.number = 0
        self._high = -1
        self._before: Frame | None = None

    def cut(self) -> None:
        """Begin a new pass with the next frame: the log was not read without a gap."""
        self._high = -1
        self._before = None
        self.number += 1

    def enter(self, frame: Frame, earliest: int, latest: int) -> int:
        """Number of the pass that this frame belongs to, given the times of its earliest and latest tick."""
        high = self._high
        if earliest < high or (earliest == high and self._before is not None and _repeats(self._before, frame, high)):
            self.number += 1
        self._high = latest
        self._before = frame
        return self.number


def _repeats(before: Frame, frame: Frame, boundary: int) -> bool:
    """Whether a frame that begins in the millisecond `boundary` where the one before it ended repeats that one.

    A lone tick whose answer was lost is sent again at the same millisecond, with newer ones behind it; a collector that
    asks for "everything from the last time on" repeats the last millisecond. Neither goes back in time.
    """
    if frame.request == before.request and frame.received == before.received and frame.ticks == before.ticks:
        return True  # one record, written twice
    if frame.coarse or before.coarse:
        return False  # equal ticks in one second are honest
    sent, again = before.ticks, frame.ticks
    if frame.mode == "last" and sent[0].time_msc != boundary:
        return False  # equal deals in one millisecond are honest, cut anywhere; only a whole frame tells a resend
    tail = list(takewhile(lambda tick: tick.time_msc == boundary, reversed(sent)))[::-1]
    head = list(takewhile(lambda tick: tick.time_msc == boundary, again))
    common = min(len(tail), len(head))
    return common > 0 and tail[:common] == head[:common]


class MinuteFold:
    """The fold of one source, symbol and minute, fed with the frames that touch the minute, in log order."""

    __slots__ = (
        "_best", "_close_at", "_current", "_first_pass", "_offsets", "_open_at", "_pass", "_pending", "_point", "_run",
        "_spread", "_volume_units",
        "close", "earliest", "high", "latest", "low", "open", "received", "source", "symbol", "ts", "volume",
    )  # fmt: skip

    def __init__(self, source: str, symbol: str, ts: int) -> None:
        self.source = source
        self.symbol = symbol
        self.ts = ts
        self.open = self.close = 0.0
        self.high, self.low = -inf, inf
        #: Ticks, with and without a price.
        self.volume = 0
        #: Times of the earliest and the latest tick (UTC epoch milliseconds).
        self.earliest, self.latest = _NEVER, -1
        self.received = 0
        # Times of the ticks that open and close show; ticks without a price move neither.
        self._open_at, self._close_at = _NEVER, -1
        self._volume_units = 0
        self._spread = inf
        self._point: float | None = None
        self._offsets: list[list[int]] = []
        self._run = -1
        # Ordinary flow is one pass, whose ticks are only kept; counting starts with a second pass.
        self._pass = -1
        self._first_pass: list[Tick] = []
        self._best: Counter[Tick] | None = None
        self._current: Counter[Tick] = Counter()
        # Added and counted, not yet in the prices and sums.
        self._pending: list[tuple[Frame, list[Tick]]] = []

    @property
    def first_offset(self) -> int:
        """Where the minute began in the log."""
        return self._offsets[0][0]

    @property
    def last_offset(self) -> int:
        """The newest record that touched the minute."""
        return self._offsets[-1][1]

    @property
    def offsets(self) -> Ranges:
        """The stretches of the log that were folded."""
        return tuple((first, last) for first, last in self._offsets)

    @property
    def ticks_kept(self) -> int:
        """How many ticks are held in memory in case the minute is sent again."""
        return len(self._first_pass) if self._best is None else len(self._best)

    def finish(self) -> None:
        """Let go of the ticks that are kept for resends: nothing more will be added."""
        self.settle()
        self._first_pass = []
        self._best = None
        self._current = Counter()

    def add(self, offset: int, run: int, pass_number: int, frame: Frame, ticks: list[Tick]) -> bool:
        """Fold `ticks`, the ones of this minute in `frame`, read at `offset`.

        `run` changes whenever the log was not read without a gap; a range never spans two runs. A record that was
        folded already is passed over. Returns whether the candle, or its proof, changed.
        """
        offsets = self._offsets
        if offsets and offset <= offsets[-1][1]:
            return False
        if run == self._run:
            offsets[-1][1] = offset
        else:
            self._run = run
            offsets.append([offset, offset])

        if self._best is None and self._pass in (pass_number, -1):
            self._pass = pass_number
            self._first_pass += ticks
        else:
            ticks = self._new_in_pass(pass_number, ticks)
        if ticks:
            self._pending.append((frame, ticks))
        return True

    def _new_in_pass(self, pass_number: int, ticks: list[Tick]) -> list[Tick]:
        if self._best is None:
            self._best = Counter(self._first_pass)
            self._first_pass = []
        if pass_number != self._pass:
            self._pass = pass_number
            self._current = Counter()
        best, current = self._best, self._current
        new = []
        for tick in ticks:
            current[tick] += 1
            if current[tick] > best[tick]:
                best[tick] = current[tick]
                new.append(tick)
        return new

    def settle(self) -> None:  # noqa: PLR0912 - one loop, because calls cost more than the work in it
        """Work what was added into the prices and sums; `candle` does it, and whoever reads the attributes must.

        Many small frames in one go take half the time of one by one.
        """
        if not self._pending:
            return
        high, low, spread = self.high, self.low, self._spread
        open_at, close_at, earliest, latest = self._open_at, self._close_at, self.earliest, self.latest
        for frame, ticks in self._pending:
            by_bid = frame.mode == "bid"
            for tick in ticks:
                time_msc, bid, ask = tick.time_msc, tick.bid, tick.ask
                price = bid if by_bid else tick.last
                if 0.0 < price < inf:
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
                if bid > 0.0 and 0.0 < ask < inf and ask - bid < spread:
                    spread = ask - bid
                if time_msc < earliest:
                    earliest = time_msc
                if time_msc >= latest:
                    latest = time_msc
                    self.received = frame.received
                if 0.0 < tick.volume < _MAX_VOLUME:
                    units, parts = tick.volume.as_integer_ratio()
                    self._volume_units += units << (_VOLUME_SCALE + 1 - parts.bit_length())
            self.volume += len(ticks)
            if frame.point is not None and (self._point is None or frame.point < self._point):
                self._point = frame.point
        self._pending = []
        self.high, self.low, self._spread = high, low, spread
        self._open_at, self._close_at, self.earliest, self.latest = open_at, close_at, earliest, latest

    @property
    def real_volume(self) -> float:
        """Sum of the ticks' volumes, exact before it becomes a double."""
        return self._volume_units / (1 << _VOLUME_SCALE)

    @property
    def spread(self) -> int | None:
        """Lowest ask − bid in points; null when no tick had both prices or no frame said what a point is."""
        if self._point is None or self._spread == inf:
            return None
        points = self._spread / self._point
        return round(points) if abs(points) < 2**31 - 1 else None

    def candle(self, *, log: str, partition: int, closed: bool, emitted: int) -> Candle | None:
        """The candle as it stands, or None while no tick of the minute had a usable price."""
        self.settle()
        if self._open_at == _NEVER:
            return None
        return Candle(
            source=self.source,
            symbol=self.symbol,
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
            partition=partition,
            offsets=self.offsets,
            closed=closed,
            received=self.received,
            emitted=emitted,
        )
