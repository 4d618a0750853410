"""The files that candles and ticks are written to.

Candles are partitioned as DuckDB, pandas, polars and Spark expect it, as Parquet or CSV. Ticks are CSV, JSON,
Parquet, or the CSV of MetaTrader 5.
"""

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, Self
from urllib.parse import quote

import msgspec

from marketdata.errors import TickpipeError, missing_extra
from marketdata.offsets import Ranges, from_spans
from marketdata.refold import TickRow, columns_of, shown
from runtime.foreign import cell
from tickpipe.console import plain

if TYPE_CHECKING:
    from marketdata.tick import Tick
    from sink.ticks import TickBatch

#: Rows of one row group: the unit that readers load, and what is held in memory.
_GROUP_ROWS: Final = 100_000

#: Describes an export. Readers of partitioned files skip names that begin with an underscore.
MANIFEST: Final = "_export.json"

Row = tuple[Any, ...]


class ExportExists(TickpipeError):
    """The directory holds files already; name another one, or let --replace put the new export in its place."""

    is_wrong_use = True


class ParquetMissing(TickpipeError):
    """Parquet needs pyarrow, which is not installed; --format csv does not."""


class CandleFile(Protocol):
    """A file of candles that is open for writing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def write(self, row: Row) -> None:
        """Append a row of `sink.queries`."""


class CsvFile:
    """CSV with a header: times as ISO-8601 UTC, an empty cell is no value, offsets as PostgreSQL writes them."""

    suffix = "csv"

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._file: IO[str] = path.open("x", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(columns)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, row: Row) -> None:
        """Append a row."""
        self._writer.writerow([str(one).lower() if isinstance(one, bool) else cell(plain(one)) for one in row])


class ParquetFile:
    """Parquet in row groups of 100,000; offsets as a list of `{partition, first, last}`, both ends included."""

    suffix = "parquet"

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Raises ParquetMissing without pyarrow."""
        try:
            import pyarrow as pa  # noqa: PLC0415 - an optional extra, and slow to load
            import pyarrow.parquet as pq  # noqa: PLC0415
        except ImportError as exc:
            raise ParquetMissing(f"{missing_extra('pyarrow', 'arrow')}; or use --format csv") from exc
        moment = pa.timestamp("us", tz="UTC")
        types = {
            "source": pa.string(), "timeframe": pa.string(), "ts": moment, "open": pa.float64(), "high": pa.float64(),
            "low": pa.float64(), "close": pa.float64(), "volume": pa.int64(), "real_volume": pa.float64(),
            "spread": pa.int32(), "closed": pa.bool_(), "origin": pa.string(), "first_tick": moment,
            "last_tick": moment, "log": pa.string(),
            "offsets": pa.list_(
                pa.struct([("partition", pa.int32()), ("first", pa.int64()), ("last", pa.int64())])
            ),
            "received_at": moment,
            "folded_at": moment, "stored_at": moment,
        }  # fmt: skip
        self._pa = pa
        self._schema = pa.schema([(name, types[name]) for name in columns])
        self._offsets_at = columns.index("offsets") if "offsets" in columns else None
        # `pq` would overwrite the file of a symbol whose name differs in upper and lower case only.
        self._sink = path.open("xb")
        self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd")
        self._rows: list[Row] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._sink, self._writer:
            if exc_type is None:
                self._flush()

    def write(self, row: Row) -> None:
        """Append a row."""
        self._rows.append(row)
        if len(self._rows) == _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns: list[Sequence[Any]] = list(zip(*self._rows, strict=True))
        if self._offsets_at is not None:
            columns[self._offsets_at] = [ranges_of(text) for text in columns[self._offsets_at]]
        arrays = [self._pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(self._pa.table(arrays, schema=self._schema))
        self._rows = []


def ranges_of(multirange: str | None) -> Ranges | None:
    """The ranges that PostgreSQL writes as `{[0,7),[9,10)}`, in positions of the log."""
    if multirange is None:
        return None
    spans = []
    for bounds in multirange[2:-2].split("),["):
        first, _, end = bounds.partition(",")
        spans.append((int(first), int(end) - 1))
    return from_spans(spans)


def partition_path(root: Path, symbol: str, year: int | None, name: str) -> Path:
    """`symbol=EURUSD/year=2019/NAME`, with its folders made."""
    return partition_folder(root, symbol=symbol, **({} if year is None else {"year": str(year)})) / name


def partition_folder(root: Path, **keys: str) -> Path:
    """`symbol=EURUSD/year=2019` and the like, made; values are percent-encoded as readers expect."""
    folder = root.joinpath(*(f"{key}={quote(value, safe='')}" for key, value in keys.items()))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def whole_directory(target: Path, *, replace: bool) -> Iterator[Path]:
    """A directory beside `target` to write into; it becomes `target` when the block succeeds and is deleted otherwise.

    Raises:
        ExportExists: when `target` holds anything, unless that is an export and is to be replaced.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        if not replace:
            raise ExportExists(f"{target} is not empty; name a new directory, or pass --replace")
        if not (target / MANIFEST).is_file():
            raise ExportExists(f"{target} holds something else than an export (no {MANIFEST}); name a new directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    partial.chmod(0o755)
    try:
        yield partial
        _put_in_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, target: Path) -> None:
    if not target.exists():
        partial.rename(target)
        return
    aside = partial.with_name(partial.name.replace(".partial-", ".replaced-"))
    target.rename(aside)
    try:
        partial.rename(target)
    except BaseException:
        with suppress(OSError):
            aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def write_manifest(root: Path, content: dict[str, Any]) -> None:
    """Say beside the files what they are."""
    path = root / MANIFEST
    path.write_text(json.dumps(content, indent=2, default=plain) + "\n", encoding="utf-8")


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: MT5: TICK_FLAG_BID, TICK_FLAG_ASK, TICK_FLAG_LAST, TICK_FLAG_VOLUME, of the values of a row in their order.
_FLAG_OF_VALUE: Final = (2, 4, 8, 16)

#: The flags that MetaTrader documents; its own files have no others.
_DOCUMENTED_FLAGS: Final = 2 | 4 | 8 | 16 | 32 | 64

_MT5_HEADER: Final = "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\r\n"


class TickWriter(Protocol):
    """Writes ticks to a stream of bytes."""

    def write(self, batch: "TickBatch") -> None:
        """Append ticks."""

    def finish(self) -> None:
        """Write what belongs behind the last row."""


class CsvTicks:
    """CSV with a header."""

    def __init__(self, stream: IO[bytes], *, raw: bool) -> None:
        from sink.ticks import csv_of_ticks  # noqa: PLC0415 - loads the clients of Kafka and PostgreSQL

        self._stream = stream
        self._lines = partial(csv_of_ticks, raw=raw)
        self._stream.write((",".join(columns_of(raw=raw)) + "\n").encode())

    def write(self, batch: "TickBatch") -> None:
        """Append ticks."""
        self._stream.write(self._lines(batch))

    def finish(self) -> None:
        """Nothing follows."""


class JsonTicks:
    """A JSON array with one object on each line."""

    def __init__(self, stream: IO[bytes], *, raw: bool) -> None:
        self._stream = stream
        self._tick = msgspec.defstruct("Tick", columns_of(raw=raw))
        self._separator = b"[\n"

    def write(self, batch: "TickBatch") -> None:
        """Append ticks."""
        encode = msgspec.json.encode
        for row in batch.rows:
            self._stream.write(self._separator + encode(self._tick(*shown(row))))
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
            raise ParquetMissing(f"{missing_extra('pyarrow', 'arrow')}; or use --format csv") from exc
        from runtime.archive.columns import ArrowTicks  # noqa: PLC0415

        self._pa = pa
        self._arrow = ArrowTicks(raw=raw)
        self._writer = pq.ParquetWriter(stream, self._arrow.schema, compression="zstd")
        # Those of many minutes become columns at once; out of the archive they are columns already.
        self._ticks: list[Tick] = []
        self._records: list[TickRow] = []
        self._columns: list[Any] = []
        self._rows = 0

    def write(self, batch: "TickBatch") -> None:
        """Append ticks."""
        if batch.table is not None:
            self._convert()
            self._columns += self._arrow.of((), table=batch.table).to_batches()
        self._ticks += batch.ticks
        self._records += batch.records
        self._rows += len(batch)
        if self._rows >= _GROUP_ROWS:
            self._flush()

    def finish(self) -> None:
        """Write the last group and the description of the file."""
        self._flush()
        self._writer.close()

    def _convert(self) -> None:
        if self._ticks or self._records:
            self._columns.append(self._arrow.of(self._ticks, self._records))
            self._ticks, self._records = [], []

    def _flush(self) -> None:
        self._convert()
        if self._columns:
            table = self._pa.Table.from_batches(self._columns)
            self._writer.write_table(table, row_group_size=len(table))
            self._columns, self._rows = [], 0


class Mt5Ticks:
    """The CSV that MetaTrader 5 exports and imports for custom symbols: a cell is empty where nothing changed."""

    def __init__(self, stream: IO[bytes], *, digits: int | None) -> None:
        self._stream = stream
        self._digits = digits
        self._before: Sequence[float] = (0.0, 0.0, 0.0, 0.0)
        self._stream.write(_MT5_HEADER.encode())

    def write(self, batch: "TickBatch") -> None:
        """Append ticks; times are UTC."""
        lines = []
        for time_msc, bid, ask, last, volume, flags, *_ in batch.rows:
            values = (bid, ask, last, volume)
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
