"""The periods that rows of the archive touch, and the records that do, of `MOST_SERIES` at once."""

from array import array
from collections.abc import Iterator, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from runtime.archive.columns import plain
from runtime.archive.sums import SERIES_MS

#: What is read of a file for that, with the order of the rows.
COLUMNS: Final = ("time", "offset", "index")


def periods_of(tables: Sequence[pa.Table], width_ms: int, begin: int) -> "Iterator[tuple[int, int, array[int]]]":
    """The place of a table, and the start of a period that it touches with the positions that do, ascending.

    Each table has the rows of one series in order, from the partition whose offset 0 is at the position `begin`. Where
    time goes back, a period comes again.
    """
    parts = [
        pc.add(chunk.cast(pa.int64()), number * SERIES_MS)
        for number, table in enumerate(tables)
        for chunk in table["time"].chunks
    ]
    keys = pc.divide(pa.concat_arrays(parts), width_ms)
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
