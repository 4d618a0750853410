"""Which archived ticks are resends, by the fold's own rule: candles count them once, and so do whoever reads ticks."""

from collections import Counter
from collections.abc import Iterator
from typing import Final, cast

import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import astuple

from marketdata.fold import split_by_period
from marketdata.refold import Coverage, Proof, Refold, TickFold, TickRow, bridged
from marketdata.resends import Passes
from marketdata.runs import Chunk
from marketdata.tick import period_of
from marketdata.timeframes import M1
from runtime.archive.columns import WITH_SERIES, frames_in

_ONE_SERIES: Final = [("", "")]

#: Frames that are folded at once: forward flow among them goes in runs.
_FED_FRAMES: Final = 1_000


class Flow:
    """Follows rows of one source and symbol in log order, as long as they are plain forward flow."""

    def __init__(self) -> None:
        self._passes = Passes()
        #: Times of the earliest and the latest tick (UTC epoch milliseconds).
        self.low, self.high = 1 << 62, -1

    @property
    def is_forward(self) -> bool:
        """Whether time never went back from one frame to the next: then every tick counts."""
        return self._passes.number == 0

    def feed(self, rows: pa.Table) -> None:
        """Follow the next rows, which hold whole frames."""
        if not len(rows):
            return
        times = rows["time"].cast(pa.int64())
        low, high = pc.min_max(times).as_py().values()
        self.low, self.high = min(self.low, low), max(self.high, high)
        if not self.is_forward:
            return
        if _is_ascending(times, rows["offset"]):
            first, last = (frames_in(_numbered(part), _ONE_SERIES)[0][1] for part in _first_and_last_frame(rows))
            self._passes.enter_run(first, last, low, high)
            return
        for _, frame in frames_in(_numbered(rows), _ONE_SERIES):
            earliest, latest, _ = split_by_period(frame)
            self._passes.enter(frame, earliest, latest)


def _is_ascending(times: pa.ChunkedArray, offsets: pa.ChunkedArray) -> bool:
    """Whether each tick is later than the one before it, or in the same frame and not earlier."""
    before, after = times.slice(0, len(times) - 1), times.slice(1)
    if pc.all(pc.greater(after, before)).as_py() is not False:
        return True
    one_frame = pc.equal(offsets.slice(1), offsets.slice(0, len(offsets) - 1))
    return bool(pc.all(pc.or_(pc.greater(after, before), pc.and_(pc.equal(after, before), one_frame))).as_py())


def _first_and_last_frame(rows: pa.Table) -> Iterator[pa.Table]:
    offsets = rows["offset"]
    first, last = offsets[0], offsets[-1]
    end = begin = 0
    while end < len(rows) and offsets[end] == first:
        end += 1
    yield rows.slice(0, end)
    begin = len(rows) - 1
    while begin > 0 and offsets[begin - 1] == last:
        begin -= 1
    yield rows.slice(begin)


def _numbered(rows: pa.Table) -> pa.Table:
    if "series" in rows.column_names:
        rows = rows.drop_columns(["series"])
    return rows.append_column(WITH_SERIES.field("series"), pa.repeat(pa.scalar(0, pa.int32()), len(rows)))


#: The position of a record in the log, and the place of a tick in it.
Place = tuple[int, int]


def resends_in(log: Chunk, first_ms: int, end_ms: int) -> Iterator[Place]:
    """The resends among the ticks from `first_ms` to before `end_ms` (UTC epoch milliseconds, whole minutes).

    `log` has the frames of one source and symbol with their positions, in order: all that touch these minutes, and
    those between them wherever a refold bridges the gap (`marketdata.refold.bridged`).
    """
    doubtful = {ts for ts in _doubtful_minutes(log) if first_ms <= ts < end_ms}
    coverage = Coverage(M1.base_width_ms)
    coverage.feed(log)
    proofs = {
        ts: Proof(source, symbol, ts, bridged(ranges))
        for (source, symbol, ts), ranges in coverage.rest().items()
        if ts in doubtful
    }
    refold = Refold(proofs.values(), TickFold)
    for begin in range(0, len(log), _FED_FRAMES):
        refold.feed(log[begin : begin + _FED_FRAMES])
    folds = refold.results()
    counted = {ts: Counter(cast(TickFold, folds[proof]).rows()) for ts, proof in proofs.items()}
    for position, frame in log:
        for index, tick in enumerate(frame.ticks):
            if (left := counted.get(period_of(tick.time_msc))) is None:
                continue
            row: TickRow = astuple(tick)
            if left[row]:
                # Equal ticks are alike, so the first of them stand for those that count.
                left[row] -= 1
            else:
                yield position, index


def _doubtful_minutes(log: Chunk) -> Iterator[int]:
    """The minutes in which time goes back, or a frame repeats the one before it: in all others every tick counts."""
    passes, high, before_latest = Passes(), -1, -1
    for _, frame in log:
        earliest, latest, periods = split_by_period(frame)
        number = passes.number
        passes.enter(frame, earliest, latest)
        if passes.number > number or earliest < high or (earliest == high != before_latest):
            yield from (ts for ts, _ in periods)
        high, before_latest = max(high, latest), latest
