"""The answer of a query of `tickpipe sql`, in the forms that it is written in."""
# ruff: noqa: PLC0415  # heavy libraries are imported inside, so that --help is quick

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from marketdata.errors import TickpipeError
from tickpipe.console import Format, err, print_table, run, write_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

#: Rows of a table that is cut.
_HEAD_ROWS = 50

#: Rows that are taken from DuckDB at once.
_BATCH_ROWS = 10_000


class SqlFormat(StrEnum):
    """How the answer is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


class WrongQuery(TickpipeError):
    """DuckDB does not understand the query, or it does more than read."""

    is_wrong_use = True


class AnswerCut(TickpipeError):
    """A file of the archive was merged into another while the answer was written; ask again, or add --output FILE."""


class Answer:
    """What DuckDB answers, which computes it while it is read.

    Reading raises FileNotFoundError when a file was merged into another since the query began, and WrongQuery for what
    only its rows tell.
    """

    def __init__(self, connection: "DuckDBPyConnection", text: str) -> None:
        """Raises: as reading does."""
        import duckdb

        self._connection = connection
        try:
            reader = connection.execute(text).to_arrow_reader(_BATCH_ROWS)
        except duckdb.Error as exc:
            raise _explained(exc) from exc
        self._schema: pa.Schema = reader.schema
        self.names: list[str] = self._schema.names
        batches = self._read(reader)
        # What can fail has mostly failed before the first rows are there.
        self._batches = chain([first for first in [next(batches, None)] if first is not None], batches)

    def batches(self) -> "Iterator[pa.RecordBatch]":
        """The rows; can be had once."""
        return self._batches

    def rows(self, batches: "Iterable[pa.RecordBatch] | None" = None) -> Iterator[list[Any]]:
        """The rows, or those of some batches, with values that can be written as text."""
        for batch in self._batches if batches is None else batches:
            yield from map(list, zip(*map(self._values, batch.columns), strict=True))

    @property
    def schema(self) -> "pa.Schema":
        """Names and types."""
        import pyarrow as pa

        return pa.schema([
            pa.field(field.name, pa.string()) if _is_interval(field.type) else field for field in self._schema
        ])  # fmt: skip

    def _read(self, reader: Any) -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        try:
            for batch in reader:
                columns = [self._text_of(one) if _is_interval(one.type) else one for one in batch.columns]
                yield pa.record_batch(columns, self.schema)
        except (pa.ArrowException, OSError) as exc:
            raise _explained(exc) from exc

    def _values(self, column: "pa.Array") -> list[Any]:
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_binary(column.type):
            column = self._text_of(column)
        elif pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            return list(pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ").to_pylist())
        try:
            values = column.to_pylist()
        except OverflowError:
            # Infinity, and years that Python does not have.
            values = self._text_of(column).to_pylist()
        return list(map(_value, values))

    def _text_of(self, column: "pa.Array") -> "pa.Array":
        """The values as DuckDB writes them."""
        import pyarrow as pa

        with self._connection.cursor() as cursor:
            cursor.execute("SET TimeZone = 'UTC'")
            cursor.register("column_of_it", pa.table({"value": column}))
            found = cursor.execute("SELECT value::VARCHAR FROM column_of_it").to_arrow_reader(_BATCH_ROWS).read_all()
        return found.column(0).combine_chunks()


def write(answer: Answer, format_: SqlFormat, output: Path | None, *, all_rows: bool) -> None:
    """Write the answer into the file, or to standard output.

    Raises:
        FileNotFoundError, WrongQuery: as reading the answer does; then nothing was written.
        AnswerCut: instead of the former, when a part is written already.
    """
    if format_ is SqlFormat.TABLE:
        _write_table(answer, all_rows=all_rows)
    elif output is not None:
        from tickpipe.export.files import whole_file

        with whole_file(output.expanduser().absolute()) as stream:
            _write_to(stream, answer, format_)
    else:
        try:
            _write_to(sys.stdout.buffer, answer, format_)
        except FileNotFoundError as exc:
            raise AnswerCut from exc


def _write_table(answer: Answer, *, all_rows: bool) -> None:
    head: list[Sequence[Any]] = []
    count = 0
    for batch in answer.batches():
        count += len(batch)
        if all_rows or len(head) < _HEAD_ROWS:
            head += answer.rows([batch if all_rows else batch.slice(0, _HEAD_ROWS - len(head))])
    print_table(answer.names, head)
    if more := count - len(head):
        err.print(f"… and {more:,} more of {count:,}; --all shows them, the other formats have them.", markup=False)


def _write_to(stream: IO[bytes], answer: Answer, format_: SqlFormat) -> None:
    if format_ is SqlFormat.PARQUET:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetWriter(stream, answer.schema, compression="zstd") as writer:
                for batch in answer.batches():
                    writer.write_batch(batch)
        except pa.ArrowNotImplementedError as exc:
            raise WrongQuery(f"Parquet has no such type ({exc}); cast it to another") from exc
        return
    if stream is sys.stdout.buffer:
        run(write_rows(answer.names, answer.rows(), Format(format_.value)))
        return
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    with redirect_stdout(text):
        run(write_rows(answer.names, answer.rows(), Format(format_.value)))
    text.detach()


def _explained(exc: Exception) -> Exception:
    """The error as one of ours."""
    text = str(exc)
    if "No files found" in text or "No such file" in text:
        return FileNotFoundError(text)
    return WrongQuery(text)


def _is_interval(type_: "pa.DataType") -> bool:
    """Whether it is a length of time, or holds one: pyarrow makes a tuple of it, and Parquet has none."""
    import pyarrow as pa

    return pa.types.is_interval(type_) or any(
        _is_interval(type_.field(number).type) for number in range(type_.num_fields)
    )


def _value(value: Any) -> Any:
    """The value as the formats write it: sums of whole numbers, which DuckDB gives as decimals, are whole."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (str, int, float, bool, datetime, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return [_value(one) for one in value]
    return {name: _value(one) for name, one in value.items()} if isinstance(value, dict) else str(value)
