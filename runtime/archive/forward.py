"""Finds by columns, without making a frame, where rows of the archive are not plain forward flow."""

from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

#: Two ticks that differ in one of these columns are certainly not the same one; some bits of flags say nothing. Ticks
#: that differ in another field alone are compared by `marketdata.resends`.
TOLD_APART_BY: Final = ("bid", "ask", "last", "volume")


def not_forward(times: pa.Array, rows: Mapping[str, pa.Array]) -> list[int]:
    """The rows whose next one is earlier, or may be where a frame repeats the one before it.

    A frame that begins in the millisecond in which the one before it ended repeats it only when its first tick is the
    first that the other one has of that millisecond (`marketdata.resends.repeats`). `rows` has the offset and the
    columns of `TOLD_APART_BY`.
    """
    before, after = times[:-1], times[1:]
    if pc.all(pc.greater(after, before)).as_py() is not False:
        return []
    offsets = rows["offset"]
    in_frame, at_once = pc.equal(offsets[1:], offsets[:-1]), pc.equal(after, before)
    touching = pc.indices_nonzero(pc.and_(at_once, pc.invert(in_frame)))
    # Ticks of one frame and millisecond, by their number and the first row of each.
    begins = pa.concat_arrays([pa.array([True]), pc.invert(pc.and_(in_frame, at_once))])
    numbers = pc.subtract(pc.cumulative_sum(begins.cast(pa.int32())), 1)
    first, again = pc.indices_nonzero(begins).take(numbers.take(touching)), pc.add(touching, 1)
    differs = pa.repeat(pa.scalar(False), len(touching))
    for name in TOLD_APART_BY:
        differs = pc.or_(differs, pc.not_equal(rows[name].take(first), rows[name].take(again)))
    back = pc.indices_nonzero(pc.less(after, before))
    return list(back.to_pylist() + touching.filter(pc.invert(differs)).to_pylist())
