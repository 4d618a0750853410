"""Which archived ticks are resends, by the fold's own rule: candles and readers of ticks count them once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Self, cast

import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import astuple

from marketdata.coverage import Coverage
from marketdata.fold import split_by_period
from marketdata.offsets import Range
from marketdata.refold import CountedTicks, Proof, Refold, TickRow, bridged
from marketdata.resends import Passes, repeats
from marketdata.runs import Chunk
from marketdata.tick import period_of
from marketdata.timeframes import M1
from runtime.archive.columns import WITH_SERIES, frames_in
from runtime.archive.forward import TOLD_APART_BY, not_forward
from runtime.archive.manifest import ArchivedFile, Series

_ONE_SERIES: Final = [("", "")]

#: Frames that are folded at once: forward flow among them goes in runs.
_FED_FRAMES: Final = 1_000


class Part(NamedTuple):
    """Ticks of one source, symbol and day: a file of the archive, or what is in the log alone."""

    series: Series
    date: str
    #: Its records.
    span: Range
    low: int
    high: int
    is_forward: bool
    #: None for ticks that are in the log alone.
    path: str | None

    @classmethod
    def of(cls, partition: int, date: str, file: ArchivedFile) -> Self:
        """The part that a file is."""
        span = (partition, file.first, file.last)
        return cls((file.source, file.symbol), date, span, file.low, file.high, file.forward, file.path)


def is_forward(parts: Sequence[Part]) -> bool:
    """Whether no tick of these parts of one day is a resend: time goes on within each and from one to the next."""
    high = -1
    for part in sorted(parts, key=lambda part: part.span):
        if not part.is_forward or part.low <= high:
            return False
        high = part.high
    return True


def sharing(parts: Sequence[Part]) -> set[tuple[Series, str]]:
    """The days that share records with another day, except the one record that ends the former and begins the latter.

    What such a record holds of one day does not tell whether time goes back.
    """
    found = set()
    before: dict[tuple[Series, int], Part] = {}
    for part in sorted(parts, key=lambda part: (part.span[:2], part.date)):
        partition, first, last = part.span
        other = before.setdefault((part.series, partition), part)
        if other.date != part.date and (first < other.span[2] or (first == other.span[2] and part.date < other.date)):
            found |= {(part.series, part.date), (part.series, other.date)}
        if last >= other.span[2]:
            before[part.series, partition] = part
    return found


class Flow:
    """Follows rows of one source and symbol in log order: whether they are plain forward flow."""

    def __init__(self) -> None:
        #: Times of the earliest and the latest tick (UTC epoch milliseconds).
        self.low, self.high = 1 << 62, -1
        #: Whether time never went back from one frame to the next: then every tick counts.
        self.is_forward = True
        self._before: pa.Table | None = None

    def feed(self, rows: pa.Table) -> None:
        """Follow the next rows, which hold whole frames."""
        if not len(rows):
            return
        times = rows["time"].combine_chunks().cast(pa.int64())
        low, high = pc.min_max(times).as_py().values()
        # Nearly always plain, which takes a tenth of the time.
        if self.is_forward and not (low > self.high and _is_plain(times, rows)):
            self.is_forward = self._is_one_pass(rows)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._before = rows

    def _is_one_pass(self, rows: pa.Table) -> bool:
        """What `Passes` says of the frames, of which only those are made that begin where the one before ended."""
        if self._before is not None:
            rows = pa.concat_tables([_last_frame(self._before), rows])
        first_rows = _run_starts(rows["offset"])
        found = pa.table({"frame": rows["offset"], "begin": rows["time"].cast(pa.int64())})
        if len(first_rows) == len(rows):
            found = found.append_column("end", found["begin"])
        else:
            bounds = found.group_by("frame", use_threads=False).aggregate([("begin", "min"), ("begin", "max")])
            found = bounds.sort_by("frame").rename_columns({"begin_min": "begin", "begin_max": "end"})
        begins, ends = found["begin"].slice(1), found["end"].slice(0, len(found) - 1)
        if pc.any(pc.less(begins, ends)).as_py():
            return False
        touching = pc.add(pc.indices_nonzero(pc.equal(begins, ends)), 1).cast(pa.int64())
        suspects = touching.filter(pc.invert(_differ_at_once(rows, first_rows, touching)))
        if not len(suspects):
            return True
        made = pa.chunked_array([suspects, pc.subtract(suspects, 1)])
        some = rows.filter(pc.is_in(rows["offset"], value_set=pc.unique(found["frame"].take(made))))
        frames = dict(frames_in(_numbered(some), _ONE_SERIES))
        offsets, boundaries = found["frame"].to_pylist(), found["begin"].to_pylist()
        return not any(
            repeats(frames[offsets[at - 1]], frames[offsets[at]], boundaries[at]) for at in suspects.to_pylist()
        )


def _run_starts(offsets: pa.ChunkedArray) -> pa.Array:
    """The first row of each frame."""
    ends = pc.run_end_encode(offsets.combine_chunks()).run_ends.cast(pa.int64())
    return pa.concat_arrays([pa.array([0], pa.int64()), ends.slice(0, len(ends) - 1)])


def _differ_at_once(rows: pa.Table, first_rows: pa.Array, frames: pa.Array) -> pa.Array:
    """Whether the first tick of each frame differs from the only one of the frame before, and so repeats nothing."""
    own, before = first_rows.take(frames), first_rows.take(pc.subtract(frames, 1))
    differ = pa.repeat(pa.scalar(False), len(frames))
    for name in ("time", *TOLD_APART_BY):
        differ = pc.or_(differ, pc.not_equal(rows[name].take(own), rows[name].take(before)))
    return pc.and_(differ, pc.equal(pc.subtract(own, before), 1)).combine_chunks()


def _is_plain(times: pa.Array, rows: pa.Table) -> bool:
    return not not_forward(times, {name: rows[name].combine_chunks() for name in ("offset", *TOLD_APART_BY)})


def _last_frame(rows: pa.Table) -> pa.Table:
    offsets = rows["offset"]
    begin = len(rows) - 1
    while begin > 0 and offsets[begin - 1] == offsets[begin]:
        begin -= 1
    return rows.slice(begin)


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
    refold = Refold(proofs.values(), CountedTicks)
    for begin in range(0, len(log), _FED_FRAMES):
        refold.feed(log[begin : begin + _FED_FRAMES])
    folds = refold.results()
    counted = {ts: Counter(cast(CountedTicks, folds[proof]).rows()) for ts, proof in proofs.items()}
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
