"""Folds candles from the columns of the archive's files, where their periods are plain forward flow.

No frame or tick is made. What is not found here is folded from frames, as everything in Kafka is.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import pyarrow as pa
from pyarrow.parquet import ParquetFile

from marketdata.offsets import Range, Ranges
from marketdata.refold import Proof, bridged
from marketdata.summed import SummedFold
from marketdata.timeframes import Timeframe
from runtime.archive.columns import completed, schema_of
from runtime.archive.files import ArchiveFiles
from runtime.archive.manifest import ArchivedFile, Series
from runtime.archive.sums import COLUMNS, MOST_SERIES, Rows

#: Rows computed at once: a row group, or the files of many series.
_BATCH_ROWS: Final = 131_072

#: Files in one batch, however few rows they have.
_BATCH_FILES: Final = min(MOST_SERIES, 1_000)

#: The most rows held of periods that may continue in the next row group; periods with more rows are left out.
_MOST_HELD: Final = 4 * _BATCH_ROWS


class DayFile(NamedTuple):
    """A file, and the day that it has ticks of."""

    date: str
    file: ArchivedFile

    @property
    def series(self) -> Series:
        """Its source and symbol."""
        return self.file.source, self.file.symbol

    def matters_to(self, other: "DayFile", first: int, last: int) -> bool:
        """Whether a period that the other file has at these offsets cannot be folded without this file.

        A frame over midnight is in both. What it has of the day before a period that it begins makes no time go back,
        and neither does what it has of the day after a period that it ends.
        """
        own = self.file
        if own.last < first or last < own.first:
            return False
        is_before = own.last == first and self.date < other.date
        is_after = own.first == last and self.date > other.date
        return not (is_before or is_after)


class _Piece(NamedTuple):
    """Rows of one file."""

    day: DayFile
    rows: pa.Table
    #: Whether more rows of the file follow, perhaps of the same frame.
    goes_on: bool


class ArchivedFolds:
    """Folds proofs of one timeframe, each of one range of the same partition."""

    def __init__(self, partition: int, timeframe: Timeframe, proofs: Iterable[Proof]) -> None:
        self._width_ms = timeframe.base_width_ms
        self._proofs: dict[tuple[Series, int, int, int], Proof] = {}
        ranges: dict[Series, list[Range]] = defaultdict(list)
        for proof in proofs:
            [(_, first, last)] = proof.ranges
            series = proof.source, proof.symbol
            self._proofs[series, proof.ts, first, last] = proof
            ranges[series].append((partition, first, last))
        #: The offsets to read of each source and symbol.
        self._ranges: Mapping[Series, Ranges] = {series: bridged(some) for series, some in ranges.items()}

    def has_part_in(self, file: ArchivedFile) -> bool:
        """Whether the file is needed."""
        ranges = self._ranges.get((file.source, file.symbol), ())
        return any(first <= file.last and last >= file.first for _, first, last in ranges)

    def read(self, files: ArchiveFiles, days: Iterable[DayFile]) -> Iterator[tuple[int, dict[Proof, SummedFold]]]:
        """The folds found in `days`, all of which are needed; in batches, with the number of records read.

        Raises:
            OSError, pa.ArrowException: when a file is damaged, or was merged meanwhile.
        """
        days = sorted(days, key=lambda day: (day.series, day.file.first))
        beside = _overlapping(days)
        batch: list[_Piece] = []
        length = 0
        for piece in (piece for day in days for piece in self._pieces(files, day)):
            length += len(piece.rows)
            if batch and batch[-1].day is piece.day:
                batch[-1] = piece._replace(rows=pa.concat_tables([batch[-1].rows, piece.rows]))
            else:
                batch.append(piece)
            if length >= _BATCH_ROWS or len(batch) == _BATCH_FILES:
                records, found, batch = self._folded(batch, beside)
                length = sum(len(piece.rows) for piece in batch)
                yield records, found
        if batch:
            records, found, _ = self._folded(batch, beside)
            yield records, found

    def _pieces(self, files: ArchiveFiles, day: DayFile) -> Iterator[_Piece]:
        parquet = ParquetFile(files.open(day.file.path), read_dictionary=["mode"])
        names = parquet.schema_arrow.names
        if names != schema_of(names).names:
            return
        column = names.index("offset")
        parts: list[tuple[int, Ranges]] = []
        for group in range(parquet.num_row_groups):
            about = parquet.metadata.row_group(group).column(column).statistics
            inside = tuple(one for one in self._ranges[day.series] if one[1] <= about.max and one[2] >= about.min)
            if inside:
                parts.append((group, inside))
        for number, (group, ranges) in enumerate(parts, start=1):
            rows = completed(parquet.read_row_group(group, columns=list(COLUMNS), use_threads=False), COLUMNS)
            if len(rows := _at_offsets(rows, ranges)):
                yield _Piece(day, rows, number < len(parts))

    def _folded(
        self, batch: Sequence[_Piece], beside: Mapping[str, Sequence[DayFile]]
    ) -> tuple[int, dict[Proof, SummedFold], list[_Piece]]:
        """The number of records in the batch, the folds found in them, and the rows that the next batch needs again."""
        rows = Rows([piece.rows for piece in batch], self._width_ms)
        end, rest = None, []
        if (newest := batch[-1]).goes_on:
            end, offset, last = rows.whole()
            own = newest.rows
            left = own.slice(bisect_left(own["offset"], offset, key=pa.Int64Scalar.as_py))
            if len(left) > _MOST_HELD:
                left = own.slice(bisect_left(own["offset"], last, key=pa.Int64Scalar.as_py))
            rest = [newest._replace(rows=left)]
        found: dict[Proof, SummedFold] = {}
        for period in rows.periods(end):
            day = batch[period.series].day
            if (proof := self._proofs.get((day.series, period.ts, period.first, period.last))) is None:
                continue
            if not any(other.matters_to(day, period.first, period.last) for other in beside.get(day.file.path, ())):
                found[proof] = SummedFold(proof, period.sums)
        return rows.records, found, rest


def _at_offsets(rows: pa.Table, ranges: Ranges) -> pa.Table:
    """The rows, which are in order of their offsets, that lie within these."""
    offsets = rows["offset"]
    lowest, highest = offsets[0].as_py(), offsets[-1].as_py()
    parts = []
    for _, first, last in ranges:
        begin = 0 if first <= lowest else bisect_left(offsets, first, key=pa.Int64Scalar.as_py)
        end = len(rows) if last >= highest else bisect_right(offsets, last, key=pa.Int64Scalar.as_py)
        parts.append(rows.slice(begin, end - begin))
    return pa.concat_tables(parts)


def _overlapping(days: Sequence[DayFile]) -> Mapping[str, list[DayFile]]:
    """By path of each file: the others of its source and symbol that share offsets with it. `days` are in order."""
    found: dict[str, list[DayFile]] = defaultdict(list)
    for number, day in enumerate(days):
        for other in map(days.__getitem__, range(number + 1, len(days))):
            if other.series != day.series or other.file.first > day.file.last:
                break
            found[day.file.path].append(other)
            found[other.file.path].append(day)
    return found
