"""The forms in which ticks are written: CSV, JSON, Parquet, and the CSV of MetaTrader 5."""

import csv
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final, Protocol

import msgspec

from marketdata.ticks import TickRow, columns_of, shown
from tickpipe.export.files import ParquetMissing

#: Rows of one row group of Parquet: the unit that readers load, and what is held in memory.
_GROUP_ROWS: Final = 100_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: MT5: TICK_FLAG_BID, TICK_FLAG_ASK, TICK_FLAG_LAST, TICK_FLAG_VOLUME, of the values of a row in their order.
_FLAG_OF_VALUE: Final = (2, 4, 8, 16)

#: The flags that MetaTrader documents; its own files have no others.
_DOCUMENTED_FLAGS: Final = 2 | 4 | 8 | 16 | 32 | 64

_MT5_HEADER: Final = "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\r\n"


class TickWriter(Protocol):
    """Writes ticks to a stream of bytes."""

    def write(self, rows: Sequence[TickRow]) -> None:
        """Append rows of `sink.ticks`."""

    def finish(self) -> None:
        """Write what belongs behind the last row."""


class CsvTicks:
    """CSV with a header."""

    def __init__(self, stream: IO[bytes], *, raw: bool) -> None:
        self._stream = stream
        self._stream.write((",".join(columns_of(raw=raw)) + "\n").encode())

    def write(self, rows: Sequence[TickRow]) -> None:
        """Append rows; a double has every digit (shortest round trip)."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(map(shown, rows))
        self._stream.write(text.getvalue().encode())

    def finish(self) -> None:
        """Nothing follows."""


class JsonTicks:
    """A JSON array with one object on each line."""

    def __init__(self, stream: IO[bytes], *, raw: bool) -> None:
        self._stream = stream
        self._columns = columns_of(raw=raw)
        self._separator = b"[\n"

    def write(self, rows: Sequence[TickRow]) -> None:
        """Append rows."""
        encode = msgspec.json.encode
        for row in rows:
            self._stream.write(self._separator + encode(dict(zip(self._columns, shown(row), strict=True))))
            self._separator = b",\n"

    def finish(self) -> None:
        """Close the array."""
        self._stream.write(b"[]\n" if self._separator == b"[\n" else b"\n]\n")


class ParquetTicks:
    """Parquet in row groups of 100,000; times are timestamps in UTC."""

    def __init__(self, stream: IO[bytes], *, raw: bool) -> None:
        """Raises ParquetMissing without pyarrow."""
        try:
            import pyarrow as pa  # noqa: PLC0415 - an optional extra, and slow to load
            import pyarrow.parquet as pq  # noqa: PLC0415
        except ImportError as exc:
            raise ParquetMissing(ParquetMissing.__doc__) from exc
        moment = pa.timestamp("ms", tz="UTC")
        types = {
            "time": moment, "time_msc": pa.int64(), "bid": pa.float64(), "ask": pa.float64(), "last": pa.float64(),
            "volume": pa.float64(), "flags": pa.int64(), "partition": pa.int32(), "offset": pa.int64(),
            "index": pa.int32(), "received": moment, "request": pa.string(),
        }  # fmt: skip
        self._pa = pa
        self._schema = pa.schema([(name, types[name]) for name in columns_of(raw=raw)])
        self._writer = pq.ParquetWriter(stream, self._schema, compression="zstd")
        self._rows: list[TickRow] = []

    def write(self, rows: Sequence[TickRow]) -> None:
        """Append rows."""
        self._rows += rows
        if len(self._rows) >= _GROUP_ROWS:
            self._flush()

    def finish(self) -> None:
        """Write the last group and the description of the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            columns: list[Sequence[Any]] = list(zip(*self._rows, strict=True))
            # The first column is the time once more, as a timestamp.
            values = zip((columns[0], *columns), self._schema, strict=True)
            arrays = [self._pa.array(column, field.type) for column, field in values]
            self._writer.write_table(self._pa.table(arrays, schema=self._schema))
            self._rows = []


class Mt5Ticks:
    """The CSV that MetaTrader 5 exports and imports for custom symbols: a cell is empty where nothing changed."""

    def __init__(self, stream: IO[bytes], *, digits: int | None) -> None:
        self._stream = stream
        self._digits = digits
        self._before: Sequence[float] = (0.0, 0.0, 0.0, 0.0)
        self._stream.write(_MT5_HEADER.encode())

    def write(self, rows: Sequence[TickRow]) -> None:
        """Append rows; times are UTC."""
        lines = []
        for time_msc, *values, flags in rows:
            moment = _EPOCH + timedelta(milliseconds=time_msc)
            cells = [moment.strftime("%Y.%m.%d"), f"{moment:%H:%M:%S}.{time_msc % 1000:03d}"]
            for index, (value, before, flag) in enumerate(zip(values, self._before, _FLAG_OF_VALUE, strict=True)):
                changed = value != before or (flags & flag and value)
                cells.append(_text_of(value, self._digits if index < 3 else 0) if changed else "")
            self._before = values
            lines.append("\t".join([*cells, str(flags & _DOCUMENTED_FLAGS)]) + "\r\n")
        self._stream.write("".join(lines).encode())

    def finish(self) -> None:
        """Nothing follows."""


def _text_of(value: float, digits: int | None) -> str:
    """The value with so many decimals, or with all that it has; never with an exponent."""
    if digits is not None and float(text := f"{value:.{digits}f}") == value:
        return text
    return f"{Decimal(repr(value)):f}"


def writer_for(name: str, stream: IO[bytes], *, raw: bool, digits: int | None) -> TickWriter:
    """The writer of `csv`, `json`, `parquet` or `mt5`; `digits` are the decimals of the prices, where they are known.

    Raises:
        ParquetMissing: for Parquet without pyarrow.
    """
    if name == "mt5":
        return Mt5Ticks(stream, digits=digits)
    if name == "parquet":
        return ParquetTicks(stream, raw=raw)
    return JsonTicks(stream, raw=raw) if name == "json" else CsvTicks(stream, raw=raw)


@contextmanager
def whole_file(target: Path) -> Iterator[IO[bytes]]:
    """A file beside `target` to write into; it becomes `target` when the block succeeds and is deleted otherwise."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.partial-", dir=target.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
        partial.chmod(0o644)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
