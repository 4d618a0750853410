"""Collects the ticks of frames as columns, and gives them as rows of the archive by source, symbol and day."""

from collections.abc import Iterable, Sequence
from itertools import chain, groupby
from operator import attrgetter
from struct import pack
from typing import Any, Final, NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import astuple

from marketdata.runs import Chunk
from marketdata.tick import DAY_MS, Columns, Frame, Tick, Ticks
from runtime.archive.columns import SCHEMA, TICK_CODES
from runtime.archive.manifest import Series

#: Of each frame: its offset, when it was received, what the times of its ticks count from, how many they are, and the
#: number of its form.
_FRAME_CODES: Final = {"offset": "q", "received": "q", "since_ms": "q", "length": "q", "form": "i"}

_TYPES: Final = {"q": pa.int64(), "i": pa.int32(), "d": pa.float64()}

_after_ms: Final = attrgetter("after_ms")


class SeriesDay(NamedTuple):
    """Rows of one source, symbol and day."""

    series: Series
    #: Since 1970.
    day: int
    #: The first of them, and how many they are.
    begin: int
    length: int


class _Numbers(dict[tuple[Any, ...], int]):
    """Numbers what it is asked for, from 0."""

    def __missing__(self, key: tuple[Any, ...]) -> int:
        return self.setdefault(key, len(self))


class TickRows:
    """The ticks of frames of one partition: 48 bytes each, and some 60 for each frame, until they are put in order.

    The frames are let go of as they come. `len` is the number of ticks.
    """

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._length = 0
        # Columns as Arrow has them. To pack values takes a third of the time of making an array of Arrow's from them,
        # and one long array is put in order several times as fast as many short ones.
        self._ticks = {name: bytearray() for name in TICK_CODES}
        self._frames = {name: bytearray() for name in _FRAME_CODES}
        self._requests: list[pa.Array] = []
        #: Numbers of source, symbol, mode, point and coarse: what nearly all frames of a symbol have in common.
        self._forms = _Numbers()

    def __len__(self) -> int:
        return self._length

    def add(self, chunk: Chunk) -> None:
        """Add the ticks of frames, which come in order of their offsets."""
        if not chunk:
            return
        offsets, frames = zip(*chunk, strict=True)
        facts = dict(zip(Frame.__struct_fields__, zip(*map(astuple, frames), strict=True), strict=True))
        ticks: Sequence[Ticks] = facts["ticks"]
        lengths = list(map(len, ticks))
        forms = zip(*(facts[name] for name in ("source", "symbol", "mode", "point", "coarse")), strict=True)
        columns = {
            "offset": offsets,
            "received": facts["received"],
            "since_ms": [0 if type(part) is list else cast(Columns, part).time_msc for part in ticks],
            "length": lengths,
            "form": list(map(self._forms.__getitem__, forms)),
        }
        for name, values in columns.items():
            self._frames[name] += _packed(_FRAME_CODES[name], values)
        self._requests.append(pa.array(facts["request"], pa.string()))
        for kind, group in groupby(ticks, type):
            if kind is list:
                self._add_ticks(chain.from_iterable(group))
            else:
                self._add_columns(cast(list[Columns], list(group)))
        self._length += sum(lengths)

    def _add_ticks(self, ticks: Iterable[Tick]) -> None:
        for (name, code), values in zip(TICK_CODES.items(), zip(*map(astuple, ticks), strict=True), strict=True):
            self._ticks[name] += _packed(code, values)

    def _add_columns(self, parts: Sequence[Columns]) -> None:
        self._ticks["time"] += _packed("q", list(chain.from_iterable(map(_after_ms, parts))))
        length = sum(map(len, parts))
        for name, code in list(TICK_CODES.items())[1:]:
            columns = [getattr(part, name) for part in parts]
            if not isinstance(columns[0], list) and columns.count(columns[0]) == len(columns):
                self._ticks[name] += _packed(code, columns[:1]) * length
            else:
                self._ticks[name] += _packed(code, list(chain.from_iterable(part.column(name) for part in parts)))

    def in_order(self) -> tuple[pa.Table, list[SeriesDay]]:
        """The rows by source, symbol and day, otherwise in the order in which they came, and where each of these is.

        Slices of ten thousand series at once would take 150 MB: cut one after the other.
        """
        if not self._length:
            return SCHEMA.empty_table(), []
        ticks = {name: _array(code, self._ticks[name]) for name, code in TICK_CODES.items()}
        frames = {name: _array(code, self._frames[name]) for name, code in _FRAME_CODES.items()}
        frames["request"] = pa.chunked_array(self._requests).combine_chunks()
        owner = index = None
        if self._length > len(frames["offset"]):
            owner = _repeated(frames["length"])
            begins = pc.subtract(pc.cumulative_sum(frames["length"]), frames["length"])
            index = pc.subtract(pa.arange(0, self._length), begins.take(owner)).cast(pa.int32())
            ticks["time"] = pc.add(ticks["time"], frames["since_ms"].take(owner))
        else:
            ticks["time"] = pc.add(ticks["time"], frames["since_ms"])
        series, series_of_form = self._series()
        key, days, first_day = _keys(ticks["time"], series_of_form.take(_taken(frames["form"], owner)))
        if pc.min(key) != pc.max(key):
            order = pc.sort_indices(key)  # stable; by counting, as the keys are dense
            key, ticks = key.take(order), {name: column.take(order) for name, column in ticks.items()}
            owner = order if owner is None else owner.take(order)
            index = None if index is None else index.take(order)
        columns = ticks | {"index": pa.repeat(pa.scalar(0, pa.int32()), self._length) if index is None else index}
        columns |= {name: _taken(frames[name], owner) for name in ("offset", "received", "request")}
        columns |= self._facts(_taken(frames["form"], owner))
        columns["time"], columns["received"] = (columns[name].cast(_MOMENT) for name in ("time", "received"))
        return pa.table([columns[name] for name in SCHEMA.names], SCHEMA), [
            SeriesDay(series[value // days], first_day + value % days, begin, length)
            for value, begin, length in _runs(key)
        ]

    def _series(self) -> tuple[list[Series], pa.Array]:
        """The sources and symbols in order of their numbers, and the number for each form."""
        numbers: dict[Series, int] = {}
        found = [numbers.setdefault((source, symbol), len(numbers)) for source, symbol, *_ in self._forms]
        return list(numbers), pa.array(found, pa.int64())

    def _facts(self, form: pa.Array) -> dict[str, pa.Array]:
        """What the rows of these forms have of them, and the partition."""
        columns = {"partition": pa.repeat(pa.scalar(self._partition, pa.int32()), self._length)}
        _, _, *facts = zip(*self._forms, strict=True)
        for name, values in zip(("mode", "point", "coarse"), facts, strict=True):
            type_ = SCHEMA.field(name).type
            if len(set(values)) == 1:
                columns[name] = pa.repeat(pa.scalar(values[0], type_), self._length)
            else:
                columns[name] = pa.array(values, type_).take(form)
        return columns


def rows_since(rows: pa.Table, part: SeriesDay, offset: int) -> pa.Table:
    """The rows of a series and day that have offsets from this one on; both as `TickRows.in_order` gave them."""
    own = rows.slice(part.begin, part.length)
    return own if own["offset"][0].as_py() >= offset else own.filter(pc.field("offset") >= offset)


_MOMENT: Final = SCHEMA.field("time").type


def _packed(code: str, values: Sequence[Any]) -> bytes:
    return pack(f"{len(values)}{code}", *values)


def _array(code: str, packed: bytearray) -> pa.Array:
    type_ = _TYPES[code]
    return pa.Array.from_buffers(type_, len(packed) * 8 // type_.bit_width, [None, pa.py_buffer(packed)])


def _taken(column: pa.Array, rows: pa.Array | None) -> pa.Array:
    return column if rows is None else column.take(rows)


def _repeated(lengths: pa.Array) -> pa.Array:
    """For each tick the number of its frame."""
    ends = pc.cumulative_sum(lengths).cast(pa.int32())
    return pc.run_end_decode(pa.RunEndEncodedArray.from_arrays(ends, pa.arange(0, len(lengths))))


def _keys(times: pa.Array, series: pa.Array) -> tuple[pa.Array, int, int]:
    """A number for each tick that orders them by series and day; how many days there are, and the first."""
    day = pc.divide(times, DAY_MS)
    first, last = pc.min_max(day).as_py().values()
    days = last - first + 1
    return pc.add(pc.multiply(series, days), pc.subtract(day, first)), days, first


def _runs(key: pa.Array) -> Iterable[tuple[int, int, int]]:
    """Each value, where it begins and how often it comes."""
    runs = pc.run_end_encode(key, run_end_type=pa.int64())
    begin = 0
    for value, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        yield value, begin, end - begin
        begin = end
