"""DuckDB's views `ticks` and `ticks_raw`: the archive's files, read by DuckDB itself, and the records behind them."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.dataset as ds

from marketdata.offsets import place, position
from marketdata.refold import bridged
from marketdata.runs import Chunk
from marketdata.tick import ADDED, DAY_MS
from runtime.archive.columns import SCHEMA, TICK_COLUMNS
from runtime.archive.files import ArchiveFiles, LocalFiles
from runtime.archive.manifest import Catalogue, Manifest, Series, date_of, is_cut
from runtime.archive.reader import ArchiveReader
from runtime.archive.resends import Flow, Part, is_forward, resends_in, sharing
from runtime.archive.rows import TickRows, rows_since

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: The columns of `ticks`, of which the last three order those of one millisecond; and what `ticks_raw` has besides.
COLUMNS: Final = ("source", "symbol", "date", *TICK_COLUMNS, "partition", "offset", "index")
RAW_COLUMNS: Final = ("received", "request", "mode", "point", "coarse")

VIEWS: Final = ("ticks", "ticks_raw")

_SERIES: Final = [pa.field("source", pa.string()), pa.field("symbol", pa.string()), pa.field("date", pa.date32())]
_ROWS: Final = pa.schema([*SCHEMA, *_SERIES])

_HIVE_TYPES: Final = "{'source': VARCHAR, 'symbol': VARCHAR, 'date': DATE}"

#: A scan of files. Those from before a field was added lack its column: by names DuckDB looks into all of them,
#: and has nulls where one lacks it.
_SCAN: Final = "read_parquet(getvariable('{}'), hive_partitioning = true, hive_types = {})"
_SCAN_BY_NAME: Final = (
    "(SELECT * FROM read_parquet(getvariable('{}'), hive_partitioning = true, hive_types = {}, union_by_name = true)"
    " UNION ALL BY NAME SELECT * FROM no_rows)"
)

#: What the layout of Hive writes for no value.
_READ_AS_NULL: Final = ("NULL", "__HIVE_DEFAULT_PARTITION__")

_EPOCH: Final = date(1970, 1, 1)

_RESENDS: Final = pa.schema([("partition", pa.int32()), ("offset", pa.int64()), ("index", pa.int32())])


@dataclass
class Ticks:
    """What the views show: files, and records that are in no file yet, by partition and in order of their offsets."""

    catalogue: Catalogue | None
    tail: dict[int, Chunk]
    _parts: list[Part] = field(default_factory=list)
    #: By partition and date up to which offset the files have the day's ticks.
    _archived: dict[tuple[int, str], int] = field(default_factory=dict)
    #: By variable the paths of the files that a view reads.
    _paths: dict[str, list[str]] = field(default_factory=dict)

    def show(self, connection: "DuckDBPyConnection", views: Collection[str] = VIEWS) -> None:
        """Create these views: for each DuckDB looks into one of the files.

        Raises:
            ArchiveUnavailable, ArchiveDamaged: when the manifests cannot be read.
        """
        self._list_files()
        tail = self._tail_table()
        mixed, resends = self._resends()
        files = [part for part in self._parts if part.path is not None]
        forward = self._scans(connection, "forward", [one for one in files if (one.series, one.date) not in mixed])
        rest = self._scans(connection, "mixed", [one for one in files if (one.series, one.date) in mixed])
        # Without records that are in no file, the view is as fast as its files.
        unfiled = ["tail"] if len(tail) or not files else []
        if unfiled:
            connection.register("tail", tail)
        if rest or unfiled:
            connection.register("resends", resends)
        if "ticks_raw" in views:
            _create(connection, "ticks_raw", (*COLUMNS, *RAW_COLUMNS), [*forward, *rest, *unfiled], [])
        if "ticks" in views:
            _create(connection, "ticks", COLUMNS, forward, [*rest, *unfiled])
        for name, paths in self._paths.items():
            _set_paths(connection, name, paths)

    def _list_files(self) -> None:
        if self.catalogue is None:
            return
        for partition in self.catalogue.partitions():
            for day in self.catalogue.progress(partition).days:
                self._list_day(self.catalogue.manifest(day, partition))

    def _list_day(self, manifest: Manifest) -> None:
        self._archived[manifest.partition, manifest.date] = manifest.next
        self._parts += map(partial(Part.of, manifest.partition, manifest.date), manifest.files)

    def _tail_table(self) -> pa.Table:
        """The ticks that are in no file, which are parts as well."""
        tables = [_ROWS.empty_table()]
        for partition, chunk in self.tail.items():
            held = TickRows(partition)
            held.add(chunk)
            rows, parts = held.in_order()
            for part in parts:
                series, date = part.series, date_of(part.day)
                # A manifest is written before the progress, so that a day may be in files beyond it.
                new = rows_since(rows, part, self._archived_until(partition, date))
                if len(new):
                    self._add_tail(partition, series, date, new)
                    tables.append(_named(new, series, part.day))
        return pa.concat_tables(tables)

    def _archived_until(self, partition: int, day: str) -> int:
        if self.catalogue is not None and (partition, day) not in self._archived:
            self._list_day(self.catalogue.manifest(day, partition))
        return self._archived.get((partition, day), 0)

    def _add_tail(self, partition: int, series: Series, day: str, rows: pa.Table) -> None:
        flow = Flow()
        flow.feed(rows)
        span = (partition, rows["offset"][0].as_py(), rows["offset"][-1].as_py())
        self._parts.append(Part(series, day, span, flow.low, flow.high, flow.is_forward, None))

    def _resends(self) -> tuple[set[tuple[Series, str]], pa.Table]:
        """The days that have resends, or may have, and the places of these: only they are folded."""
        found: list[tuple[int, int, int]] = []
        days = _by_day(self._parts)
        mixed = {day for day, parts in days.items() if not is_forward(parts)} | sharing(self._parts)
        for series, day in mixed:
            day_ms = (date.fromisoformat(day) - _EPOCH).days * DAY_MS
            for at, index in resends_in(self._flow(series, days[series, day]), day_ms, day_ms + DAY_MS):
                found.append((*place(at), index))
        columns = [list(column) for column in zip(*found, strict=True)] or [[], [], []]
        return mixed, pa.table(columns, schema=_RESENDS)

    def _flow(self, series: Series, parts: Sequence[Part]) -> Chunk:
        """All frames of the source and symbol among the records of these parts, with their positions."""
        flow = []
        for partition, first, last in bridged(part.span for part in parts):
            if self.catalogue is not None:
                for chunk in ArchiveReader(self.catalogue).read(partition, first, last, series={series}):
                    flow += [(position(partition, offset), frame) for offset, frame in chunk]
            flow += [
                (position(partition, offset), frame)
                for offset, frame in self.tail.get(partition, ())
                if first <= offset <= last and (frame.source, frame.symbol) == series
            ]
        # A file may hold records beyond the progress, which are in the tail as well.
        flow.sort(key=lambda one: one[0])
        return [next(same) for _, same in groupby(flow, key=lambda one: one[0])]

    def _scans(self, connection: "DuckDBPyConnection", name: str, parts: Sequence[Part]) -> list[str]:
        """What these files are called in a FROM."""
        if self.catalogue is None:
            return []
        files = self.catalogue.files
        by_path: list[Part] = []
        by_name: list[Part] = []
        for part in parts:
            (by_path if _is_in_path(files, part) else by_name).append(part)
        scans = []
        if by_path:
            self._paths[name] = [files.full(one.path or "") for one in by_path]
            # Whoever creates a view looks for every file of it, and the query does so again.
            _set_paths(connection, name, self._paths[name][:1])
            if ADDED:
                connection.register("no_rows", _ROWS.empty_table())
            scans.append((_SCAN_BY_NAME if ADDED else _SCAN).format(name, _HIVE_TYPES))
        if by_name:
            connection.register(f"{name}_by_name", _dataset(files, by_name))
            scans.append(f"{name}_by_name")
        return scans


def _set_paths(connection: "DuckDBPyConnection", name: str, paths: Sequence[str]) -> None:
    # As one text: of a list DuckDB looks at each for what it might be in pandas, which takes 50 times as long.
    connection.execute(f"SET VARIABLE {name} = string_split($1, chr(0))", ["\0".join(paths)])


def _is_in_path(files: ArchiveFiles, part: Part) -> bool:
    """Whether DuckDB can open the file by its path and read source and symbol from there.

    It has no client of object stores, only one to download. A long name is cut, `[SP500]` would be a pattern, and a
    feed that is called `NULL` nothing.
    """
    path = files.full(part.path or "")
    return (
        isinstance(files, LocalFiles)
        and not any(is_cut(name) or name.upper() in _READ_AS_NULL for name in part.series)
        and not set("*?[") & set(path)
    )


def _dataset(files: ArchiveFiles, parts: Sequence[Part]) -> ds.FileSystemDataset:
    fragments = [
        ds.ParquetFileFormat().make_fragment(
            files.full(one.path or ""), files.filesystem,
            (ds.field("source") == one.series[0]) & (ds.field("symbol") == one.series[1])
            & (ds.field("date") == date.fromisoformat(one.date)),
        )
        for one in parts
    ]  # fmt: skip
    return ds.FileSystemDataset(fragments, _ROWS, ds.ParquetFileFormat(), files.filesystem)


def _create(
    connection: "DuckDBPyConnection", view: str, columns: Sequence[str], plain: Sequence[str], mixed: Sequence[str]
) -> None:
    """Create a view of what these are called in a FROM; the resends are taken from what is `mixed`."""
    selected = ", ".join(
        f'coalesce("{column}", {ADDED[column]}) AS "{column}"' if column in ADDED else f'"{column}"'
        for column in columns
    )
    without = 'ANTI JOIN resends USING ("partition", "offset", "index")'
    # All of it is this module's own text.
    parts = [f"SELECT {selected} FROM {source}" for source in plain]  # noqa: S608
    parts += [f"SELECT {selected} FROM {source} {without}" for source in mixed]  # noqa: S608
    connection.execute(f"CREATE OR REPLACE VIEW {view} AS {' UNION ALL '.join(parts)}")


def _named(rows: pa.Table, series: Series, day: int) -> pa.Table:
    values = (*series, date.fromisoformat(date_of(day)))
    for name, value in zip(_SERIES, values, strict=True):
        rows = rows.append_column(name, pa.repeat(pa.scalar(value, name.type), len(rows)))
    return rows


def _by_day(parts: Sequence[Part]) -> dict[tuple[Series, str], list[Part]]:
    found: dict[tuple[Series, str], list[Part]] = defaultdict(list)
    for part in parts:
        found[part.series, part.date].append(part)
    return found
