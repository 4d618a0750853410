"""Frames as Arrow's columns, one row for each tick, and back: the frames come out equal to those that went in."""

from array import array
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetWriter

from marketdata.columnframes import ColumnFrames
from marketdata.refold import TickRow, columns_of
from marketdata.tick import ADDED, FIELD_CODES, Columns, Frame, RecordColumns, Tick, Ticks, values_of

_MOMENT: Final = pa.timestamp("ms", tz="UTC")

#: The columns that are the tick itself, and the types of their values as `array` and `struct` name them.
TICK_CODES: Final = {name.removesuffix("_msc"): code for name, code in FIELD_CODES.items()}
TICK_COLUMNS: Final = tuple(TICK_CODES)

_TYPES: Final = {"q": pa.int64(), "d": pa.float64()}

#: The columns of a file. Source, symbol and date are in its path, where readers of Hive's layout find them.
SCHEMA: Final = pa.schema(
    [
        pa.field("time", _MOMENT, nullable=False),
        *(pa.field(name, _TYPES[code], nullable=False) for name, code in list(TICK_CODES.items())[1:]),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("received", _MOMENT, nullable=False),
        pa.field("request", pa.string(), nullable=False),
        pa.field("mode", pa.string(), nullable=False),
        pa.field("point", pa.float64()),
        pa.field("coarse", pa.bool_(), nullable=False),
    ]
)

#: The same of several sources and symbols, which a number tells apart.
WITH_SERIES: Final = SCHEMA.append(pa.field("series", pa.int32(), nullable=False))

#: Where neighbours differ little: delta encoding. All others have few values a day: dictionaries.
_DELTA: Final = ("time", "offset", "index", "received")

#: Rows that are compressed together, those of a day of most symbols. A reader of a few minutes reads one or two of
#: these, and whoever counts reads the description of every one: half as many rows take it a fifth longer.
ROW_GROUP_TICKS: Final = 131_072


def _array(values: Any, length: int, type_: pa.DataType) -> pa.Array:
    """A column of `Columns`, which is one value where all ticks have the same."""
    return pa.array(values, type_) if isinstance(values, list) else pa.repeat(pa.scalar(values, type_), length)


def new_writer(sink: Any) -> ParquetWriter:
    """A writer of files as the archive has them."""
    return ParquetWriter(
        sink,
        SCHEMA,
        compression="zstd",
        compression_level=3,
        use_dictionary=[name for name in SCHEMA.names if name not in _DELTA],
        column_encoding=dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
        write_statistics=["offset", "time"],
        store_schema=True,
    )


def schema_of(names: Collection[str]) -> pa.Schema:
    """The columns of a file of the archive that has these: it may be from before a field of a tick was added."""
    return pa.schema([column for column in SCHEMA if column.name in names or column.name not in ADDED])


def completed(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """What was read of these columns; those that the file is too old to have are of the value that says nothing."""
    missing = [name for name in columns if name in ADDED and name not in table.column_names]
    for name in missing:
        column = SCHEMA.field(name)
        table = table.append_column(column, pa.repeat(pa.scalar(ADDED[name], column.type), len(table)))
    return table.select(columns) if missing else table


def write_ticks(sink: Any, tables: Iterable[pa.Table]) -> None:
    """Write the rows of the tables, one after the other, as one file."""
    with new_writer(sink) as writer:
        held: list[pa.Table] = []
        rows = 0
        for table in tables:
            held.append(table)
            rows += len(table)
            if rows >= ROW_GROUP_TICKS:
                writer.write_table(pa.concat_tables(held), row_group_size=ROW_GROUP_TICKS)
                held, rows = [], 0
        if held:
            writer.write_table(pa.concat_tables(held), row_group_size=ROW_GROUP_TICKS)


def frames_in(table: pa.Table, series: Sequence[tuple[str, str]]) -> list[tuple[int, Frame]]:
    """The frames of rows that are in order of offset and index, with their offsets.

    The column `series` holds for each row the place of its source and symbol in `series`.
    """
    if not len(table):
        return []
    offsets = plain(table["offset"], "q")
    ticks = list(map(Tick, *values_in(table)))
    begins = [0, *(row for row, (one, next_) in enumerate(pairwise(offsets), start=1) if one != next_)]
    first_rows = table if len(begins) == len(table) else table.take(pa.array(begins, pa.int64()))
    facts = zip(
        begins, [*begins[1:], len(ticks)],
        plain(first_rows["series"], "i"), plain(first_rows["received"], "q"),
        *(_values(first_rows[name]) for name in ("request", "mode", "point", "coarse")),
        strict=True,
    )  # fmt: skip
    frames = []
    for begin, end, number, received, request, mode, point, coarse in facts:
        source, symbol = series[number]
        frame = Frame(
            v=1, source=source, symbol=symbol, mode=mode, point=point, request=request, received=received,
            ticks=ticks[begin:end], coarse=coarse,
        )  # fmt: skip
        frames.append((offsets[begin], frame))
    return frames


def flow_in(rows: pa.RecordBatch, series: tuple[str, str]) -> tuple[list[int], Sequence[Frame]]:
    """The offsets and frames of rows of one source and symbol in order of offset and index, of which there is one.

    The frames are columns, unless they differ in form.
    """
    runs = pc.run_end_encode(rows["offset"])
    offsets, ends = plain(runs.values, "q"), plain(runs.run_ends, "i")
    starts: Sequence[int] = range(len(rows)) if len(offsets) == len(rows) else [0, *ends[:-1]]
    firsts = rows if len(offsets) == len(rows) else rows.take(pa.array(starts, pa.int64()))
    if any(len(firsts[name].unique()) > 1 for name in ("mode", "point", "coarse")):
        numbers = pa.repeat(pa.scalar(0, pa.int32()), len(rows))
        found = frames_in(pa.table([*rows.columns, numbers], WITH_SERIES), [series])
        return offsets, [frame for _, frame in found]
    mode, point, coarse = (firsts[name][0].as_py() for name in ("mode", "point", "coarse"))
    received, request = plain(firsts["received"], "q"), firsts["request"]

    def made(number: int, ticks: Ticks) -> Frame:
        return Frame(
            v=2, source=series[0], symbol=series[1], mode=mode, point=point, request=request[number].as_py(),
            received=received[number], ticks=cast(RecordColumns, ticks), coarse=coarse,
        )  # fmt: skip

    times = rows["time"].cast(pa.int64())
    since_ms = times[0].as_py()
    bid, ask = plain(rows["bid"], "d"), plain(rows["ask"], "d")
    others = {name: _one_or_all(rows[name], code) for name, code in list(TICK_CODES.items())[3:]}
    ticks = Columns(since_ms, plain(pc.subtract(times, since_ms), "q"), bid, ask, **others)
    return offsets, ColumnFrames(ticks, starts, made)


def values_in(table: pa.Table) -> list[list[Any]]:
    """The values of each field of the ticks of a table."""
    return [plain(table[name], code) for name, code in TICK_CODES.items()]


def rows_in(table: pa.Table) -> list[TickRow]:
    """The ticks of a table as rows."""
    return list(zip(*values_in(table), strict=True))


class ArrowTicks:
    """Ticks as Arrow columns, named as `columns_of` does."""

    def __init__(self, *, raw: bool) -> None:
        """`raw` is for the ticks of every record."""
        with_number = SCHEMA.append(pa.field("time_msc", pa.int64()))
        self.schema = pa.schema([(name, with_number.field(name).type) for name in columns_of(raw=raw)])

    def of(
        self, ticks: Sequence[Tick] | Columns, records: Sequence[TickRow] = (), table: pa.Table | None = None
    ) -> Any:
        """The ticks, or rows, or what the archive has of ticks, as a `pyarrow.RecordBatch` or `pyarrow.Table`."""
        if table is not None:
            table = table.append_column("time_msc", table["time"].cast(pa.int64()))
            return table.select(self.schema.names).cast(self.schema)
        if records:
            return self._batch(list(zip(*records, strict=True)))
        if isinstance(ticks, Columns):
            times = pc.add(pa.array(ticks.after_ms, pa.int64()), ticks.time_msc)
            others = [_array(getattr(ticks, name), len(ticks), SCHEMA.field(name).type) for name in TICK_COLUMNS[1:]]
            return pa.record_batch([times.cast(_MOMENT), times, *others], self.schema)
        return self._batch(values_of(ticks))

    def _batch(self, columns: Sequence[Sequence[Any]]) -> pa.RecordBatch:
        # The first column is the time once more, as a timestamp.
        values = zip((columns[0], *columns), self.schema, strict=True)
        return pa.record_batch([pa.array(column, field.type) for column, field in values], self.schema)


def plain(column: pa.ChunkedArray | pa.Array, code: str) -> Any:
    """The numbers of a column without nulls as a list.

    Ten times as fast as `to_pylist`, which makes an object of Arrow's for each value.
    """
    found = array(code)
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        width = found.itemsize
        data = memoryview(chunk.buffers()[1])
        found.frombytes(data[chunk.offset * width : (chunk.offset + len(chunk)) * width])
    return found.tolist()


def _one_or_all(column: pa.Array, code: str) -> Any:
    """The value that all have, to the bit: 0.0 is not -0.0; or the list of them."""
    bits = column.view(pa.int64())
    return column[0].as_py() if pc.all(pc.equal(bits, bits[0])).as_py() else plain(column, code)


def _values(column: pa.ChunkedArray) -> list[Any]:
    # Nearly always the same for all.
    first = column[0]
    if pc.all(pc.equal(column, first)).as_py() and column.null_count == 0:
        return [first.as_py()] * len(column)
    return list(column.to_pylist())
