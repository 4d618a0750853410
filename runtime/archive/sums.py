"""The periods of many rows of the archive, computed column by column: their aggregates, and which records touch them.

Aggregates only of periods of plain forward flow: time does not go back, and no frame repeats the end of the one before
it. There every tick counts (`marketdata.resends`), so a period's candle is that of all its ticks.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from marketdata.summed import Sums
from marketdata.tick import DAY_MS, DEAL_FLAGS, FLAGS, MAX_TIME_MSC
from runtime.archive.columns import plain
from runtime.archive.forward import TOLD_APART_BY, not_forward

#: By how much the times of a series are shifted against those of the one before it: a single number then orders rows
#: by series and time. A whole number of days, so that periods begin where they did.
SERIES_MS: Final = (MAX_TIME_MSC // DAY_MS + 1) * DAY_MS

#: The most series whose shifted times fit into 64 bits.
MOST_SERIES: Final = (2**63 - 1) // SERIES_MS

#: Whole numbers below this add up exactly as doubles, in whatever order.
_EXACT: Final = 2.0**53

#: If more than one row in this many is not forward flow, looking for the periods that are costs more than it saves.
_PLAIN_ROWS: Final = 20

#: The columns that `Rows` reads.
COLUMNS: Final = (
    "time", "bid", "ask", "last", "volume", "flags", "offset", "received", "mode", "point",
)  # fmt: skip


#: The columns that `touched_periods` reads; readers need `index` for the order of the rows.
TOUCHED_COLUMNS: Final = ("time", "offset", "index")


class Period(NamedTuple):
    """A period of one series, whose ticks within these offsets are plain forward flow."""

    #: The place of its source and symbol in the list of those that were given.
    series: int
    ts: int
    first: int
    last: int
    sums: Sums


def _shifted_times(tables: Sequence[pa.Table]) -> pa.Array:
    """Series and time of each row as one number: the times of a table are shifted by its place (`SERIES_MS`)."""
    return pa.concat_arrays([
        pc.add(chunk.cast(pa.int64()), number * SERIES_MS)
        for number, table in enumerate(tables)
        for chunk in table["time"].chunks
    ])  # fmt: skip


def touched_periods(tables: Sequence[pa.Table], width_ms: int, begin: int) -> "Iterator[tuple[int, int, array[int]]]":
    """For each period that a table touches: the table's place, the period's start, and the positions that touch it.

    Each table has the rows of one series in order, from the partition whose offset 0 is at the position `begin`.
    Positions ascend. Where time goes back, a period comes again.
    """
    keys = pc.divide(_shifted_times(tables), width_ms)
    offsets = pa.concat_arrays([chunk for table in tables for chunk in table["offset"].chunks])
    # One row of each frame in a period.
    differs = pc.or_(pc.not_equal(keys[1:], keys[:-1]), pc.not_equal(offsets[1:], offsets[:-1]))
    firsts = pa.concat_arrays([pa.array([True]), differs])
    runs = pc.run_end_encode(keys.filter(firsts))
    touching = array("q", plain(pc.add(offsets.filter(firsts), begin), "q"))
    row = 0
    for key, end in zip(plain(runs.values, "q"), plain(runs.run_ends, "i"), strict=True):
        number, ts = divmod(key * width_ms, SERIES_MS)
        yield number, ts, touching[row:end]
        row = end


class Rows:
    """Rows of several series, one after the other; those of each are in the order of the log and whole frames."""

    def __init__(self, tables: Sequence[pa.Table], width_ms: int) -> None:
        """Each table has some rows of one series; `width_ms` is the length of a period, a divisor of a day."""
        self._width_ms = width_ms
        self._at = _shifted_times(tables)
        whole = pa.concat_tables(tables)
        self._column = {name: whole[name].combine_chunks() for name in COLUMNS[1:-2]}
        self._point = whole["point"].combine_chunks()
        self._by_last = _is_last(whole["mode"])
        runs = pc.run_end_encode(pc.divide(self._at, width_ms))
        self._keys: list[int] = plain(runs.values, "q")
        #: The row behind the last one of each period.
        self._ends: list[int] = plain(runs.run_ends, "i")
        self._first_rows = pa.array([0, *self._ends[:-1]], pa.int32())
        self._last_rows = pc.subtract(runs.run_ends, 1)
        self._firsts, self._lasts = (
            plain(self._column["offset"].take(rows), "q") for rows in (self._first_rows, self._last_rows)
        )

    @property
    def records(self) -> int:
        """Number of frames."""
        return len(pc.run_end_encode(self._column["offset"]))

    def whole(self) -> tuple[int, int, int]:
        """How many periods are complete when more rows of the last series follow.

        And the offset from which rows are needed for the others, and the last offset, whose frame may be cut.
        """
        end, last = len(self._keys) - 1, self._lasts[-1]
        first_key = self._keys[-1] - self._keys[-1] % (SERIES_MS // self._width_ms)
        while end and self._keys[end - 1] >= first_key and self._lasts[end - 1] == last:
            end -= 1
        return end, self._firsts[end], last

    def periods(self, end: int | None = None) -> Iterator[Period]:
        """The periods of plain forward flow, of all or of the first `end`."""
        doubtful = self._doubtful()
        if len(doubtful) == len(self._ends):
            return
        begins, ends = (plain(self._at.take(rows), "q") for rows in (self._first_rows, self._last_rows))
        received, bid, ask = (
            plain(self._column[name].take(self._last_rows), code)
            for name, code in (("received", "q"), ("bid", "d"), ("ask", "d"))
        )
        for number, (key, sums) in enumerate(zip(self._keys[:end], self._sums(), strict=False)):
            open_, high, low, close, volume, traded, is_whole, spread, point = sums
            if number in doubtful or not is_whole or traded >= _EXACT:
                continue
            series, ts = divmod(key * self._width_ms, SERIES_MS)
            since_ms = series * SERIES_MS
            yield Period(series, ts, self._firsts[number], self._lasts[number], Sums(
                open_, high, low, close, volume, traded, spread, point,
                begins[number] - since_ms, ends[number] - since_ms, received[number], bid[number], ask[number],
            ))  # fmt: skip

    def _sums(self) -> Iterator[tuple[Any, ...]]:
        """For each period open, high, low, close, volume, traded volume, whether that is whole, spread and point."""
        bid, ask, last, volume, flags = (self._column[name] for name in ("bid", "ask", "last", "volume", "flags"))
        is_deal = pc.or_(
            pc.not_equal(pc.bit_wise_and(flags, DEAL_FLAGS), 0), pc.equal(pc.bit_wise_and(flags, FLAGS), 0)
        )
        nothing = pa.scalar(None, pa.float64())
        deals = pc.if_else(is_deal, last, nothing)
        price = pc.if_else(self._by_last, deals, bid)
        spread = pc.subtract(ask, bid)
        has_both = pc.and_(pc.not_equal(bid, 0.0), pc.not_equal(ask, 0.0))
        traded = pc.if_else(pc.and_(is_deal, pc.greater(volume, 0.0)), volume, 0.0)
        numbers = pc.run_end_decode(
            pa.RunEndEncodedArray.from_arrays(pa.array(self._ends, pa.int32()), pa.arange(0, len(self._ends)))
        )
        columns = {
            "period": numbers,
            "price": pc.if_else(pc.not_equal(price, 0.0), price, nothing),
            "counted": pc.or_(pc.invert(self._by_last), is_deal),
            "traded": traded,
            "is_whole": pc.equal(pc.floor(traded), traded),
            "spread": pc.if_else(pc.and_(has_both, pc.is_finite(spread)), spread, nothing),
            "point": self._point,
        }
        wanted = [
            ("price", "first"), ("price", "max"), ("price", "min"), ("price", "last"), ("counted", "sum"),
            ("traded", "sum"), ("is_whole", "all"), ("spread", "min"), ("point", "min"),
        ]  # fmt: skip
        # In one thread the periods stay in order, and so do the ticks that are first and last.
        found = pa.table(columns).group_by("period", use_threads=False).aggregate(wanted)
        return zip(*(_values(found[f"{name}_{function}"]) for name, function in wanted), strict=True)

    def _doubtful(self) -> set[int]:
        """The periods in whose frames time goes back, or a frame may repeat the one before it."""
        everything = set(range(len(self._ends)))
        if not all(pc.all(pc.is_finite(self._column[name])).as_py() for name in TOLD_APART_BY):
            return everything
        rows = not_forward(self._at, self._column)
        if len(rows) * _PLAIN_ROWS > len(self._at):
            return everything
        frame_ends = pc.run_end_encode(self._column["offset"]).run_ends.to_pylist() if rows else []
        doubtful: set[int] = set()
        for row in rows:
            period, next_period = bisect_right(self._ends, row), bisect_right(self._ends, row + 1)
            frame = bisect_right(frame_ends, row)
            if row + 1 < frame_ends[frame]:
                # Within a frame, whose last tick is then not its latest.
                begin = frame_ends[frame - 1] if frame else 0
                doubtful.update(range(bisect_right(self._ends, begin), bisect_left(self._ends, frame_ends[frame]) + 1))
            elif period == next_period:
                doubtful.add(period)
        return doubtful


def _is_last(modes: pa.ChunkedArray) -> pa.Array:
    """Whether the chart of each row is drawn by last; `modes` are dictionaries, nearly always of one value."""
    found = []
    for chunk in modes.chunks:
        if chunk.dictionary.to_pylist() == ["bid"]:
            found.append(pa.repeat(pa.scalar(False), len(chunk)))
        else:
            found.append(pc.equal(chunk.dictionary, "last").take(chunk.indices))
    return pa.concat_arrays(found)


def _values(column: pa.ChunkedArray) -> list[Any]:
    if column.null_count or column.type != pa.float64():
        return list(column.to_pylist())
    return list(plain(column, "d"))
