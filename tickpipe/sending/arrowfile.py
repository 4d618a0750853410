"""Reads the files of Apache Arrow, which are Parquet, Feather and streams of IPC, as lines of text.

That way their columns are read by the same rules as those of CSV.
"""

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tickpipe.sending.dialects import UnknownForm
from tickpipe.sending.textfile import DataFileError, arrow, closed_on_failure, told

#: How the files begin: Parquet, IPC with an index (Feather), and IPC as a stream.
_PARQUET, _INDEXED, _STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"

#: Rows that are in memory at once.
_ROWS: Final = 50_000

#: No file of ticks or bars has more columns; each is decoded for all of these rows at once.
_MOST_COLUMNS: Final = 1_000

#: Rows in memory at once are fewer where they are long (bytes).
_MOST_BYTES: Final = 64_000_000

#: A batch that is packed is unpacked as a whole; with its texts it then takes several times as much (bytes).
_MOST_UNPACKED_BYTES: Final = 128_000_000

#: Messages of IPC by `header_type`, and where in Arrow's tables (format/Message.fbs) stands what is looked for.
_DICTIONARY, _RECORDS = 2, 3
_HEADER_TYPE, _HEADER, _OF_DICTIONARY, _BUFFERS, _COMPRESSION = 1, 2, 1, 2, 3

#: Longer cells, which no tick or bar has, are cut off; rows of so many bytes are not decoded at all.
_LONGEST_CELL: Final = 1_000
_LONGEST_ROW_BYTES: Final = 100_000

#: How pandas calls an index without a name in Parquet and Feather; in CSV it writes none over the first column.
_INDEX: Final = "__index_level_0__"


class ArrowFile:
    """A file of Arrow opened for one pass over its lines: the names of the columns, then its rows, with tabs between.

    Columns that hold lists or other values that are no text, number or time are left out.
    """

    is_live = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.total_bytes: int | None = None
        self._read_rows, self._rows = 0, 0
        self._raw: Any = None
        self._open = ExitStack()
        self._schema: Any = None
        self._batches: Iterator[Any] = iter(())

    def __enter__(self) -> Self:
        """Open the file.

        Raises:
            UnknownForm: when it is damaged.
            MissingLibrary: when pyarrow is not installed.
        """
        lib = arrow()
        self.total_bytes = self.path.stat().st_size
        with closed_on_failure(self._open, self.path, (lib.ArrowException, OSError)):
            self._begin(lib)
        return self

    def __exit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._open.close()

    @property
    def read_bytes(self) -> int:
        """How far the reading is, in bytes of the file."""
        if self._rows:
            return (self.total_bytes or 0) * self._read_rows // self._rows
        return 0 if self._raw is None else self._raw.tell()

    def lines(self) -> Iterator[str]:
        """The lines.

        Raises:
            DataFileError: when the file is damaged.
            UnknownForm: when its rows are longer than any of ticks.
        """
        names = self._schema.names
        places = [at for at, kind in enumerate(self._schema.types) if _is_text(kind)]
        places.sort(key=lambda at: names[at] != _INDEX)
        yield "\t".join("" if names[at] == _INDEX else names[at].replace("\t", " ") for at in places) + "\n"
        try:
            for batch in self._batches:
                for cells in zip(*(_texts(batch.column(at)) for at in places), strict=True):
                    self._read_rows += 1
                    yield "\t".join(cells) + "\n"
        except (arrow().ArrowException, OSError) as exc:
            raise DataFileError(f"{self.path}: damaged after row {self._read_rows:,}: {told(exc)}") from exc

    def _begin(self, lib: Any) -> None:
        from pyarrow import ipc, parquet  # noqa: PLC0415  # optional

        with self.path.open("rb") as raw:
            start = raw.read(len(_INDEXED))
        if start.startswith(_PARQUET):
            raw = self._open.enter_context(self.path.open("rb"))
            schema = parquet.read_schema(raw)
            self._check_columns(schema)
            # Texts are left as numbers into a list of their values: one long value may stand in every row.
            texts = [field.name for field in schema if _is_plain_text(field.type)]
            file = self._open.enter_context(parquet.ParquetFile(raw, read_dictionary=texts))
            metadata = file.metadata
            rows = [
                self._checked_rows(group.num_rows, group.total_byte_size)
                for group in map(metadata.row_group, range(metadata.num_row_groups))
            ]
            self._schema, self._rows = file.schema_arrow, metadata.num_rows
            self._batches = file.iter_batches(min(rows, default=_ROWS))
            return
        # Batches are read where they lie in the file, however long they are, unless they are packed.
        self._raw = self._open.enter_context(lib.memory_map(str(self.path)))
        self._check_packed(ipc, start)
        if start == _INDEXED:
            file = self._open.enter_context(ipc.open_file(self._raw))
            batches: Iterator[Any] = map(file.get_batch, range(file.num_record_batches))
        else:
            batches = file = self._open.enter_context(ipc.open_stream(self._raw))
        self._schema = file.schema
        self._check_columns(self._schema)
        self._batches = (
            batch.slice(first, rows)
            for batch in batches
            for rows in (self._checked_rows(batch.num_rows, batch.nbytes),)
            for first in range(0, max(1, batch.num_rows), rows)
        )

    def _check_packed(self, ipc: Any, start: bytes) -> None:
        """Raises UnknownForm where a packed batch would fill the memory."""
        # With an index, the messages of a stream stand behind the first eight bytes.
        self._raw.seek(8 if start == _INDEXED else 0)
        try:
            for message in ipc.MessageReader.open_stream(self._raw):
                if (size := _unpacked_bytes(memoryview(message.metadata), message.body)) > _MOST_UNPACKED_BYTES:
                    raise UnknownForm(
                        f"{self.path}: unpacked, one of its batches takes {size / 1e6:,.0f} MB; write shorter ones, "
                        "such as feather.write_feather(…, chunksize=50_000), or write Parquet"
                    )
        except struct.error as exc:
            raise UnknownForm(f"{self.path}: damaged: {told(exc)}") from exc
        self._raw.seek(0)

    def _check_columns(self, schema: Any) -> None:
        if len(schema) > _MOST_COLUMNS:
            raise UnknownForm(f"{self.path}: it has {len(schema):,} columns, which no file of ticks has")

    def _checked_rows(self, rows: int, size_bytes: int) -> int:
        """How many rows may be decoded at once, of so many that have this size.

        Raises:
            UnknownForm: when they are longer than any of ticks.
        """
        if size_bytes > _LONGEST_ROW_BYTES * max(rows, 1):
            raise UnknownForm(
                f"{self.path}: its rows have {size_bytes // max(rows, 1):,} bytes, which none of ticks has"
            )
        return max(1, min(_ROWS, _MOST_BYTES * max(rows, 1) // max(size_bytes, 1)))


def _unpacked_bytes(metadata: memoryview, body: Any) -> int:
    """What the buffers of a packed batch say to take unpacked; pyarrow tells only when it has unpacked them.

    Raises:
        struct.error: when they lie outside the message.
    """

    def number(form: str, at: int) -> int:
        return int(struct.unpack_from(f"<{form}", metadata, at)[0])

    def field(table: int, index: int) -> int:
        """Where a field of a table stands; 0 where it has none."""
        fields = table - number("i", table)
        at = 4 + 2 * index
        offset = number("H", fields + at) if at < number("H", fields) else 0
        return table + offset if offset else 0

    message = number("I", 0)
    kind = number("B", at) if (at := field(message, _HEADER_TYPE)) else 0
    if kind not in (_DICTIONARY, _RECORDS):
        return 0
    records = (at := field(message, _HEADER)) + number("I", at)
    if kind == _DICTIONARY:
        records = (at := field(records, _OF_DICTIONARY)) + number("I", at)
    if not field(records, _COMPRESSION):
        return 0
    buffers = (at := field(records, _BUFFERS)) + number("I", at)
    places = (buffers + 4 + 16 * each for each in range(number("I", buffers)))
    # Each begins with its size before it was packed, or -1 where it was not.
    starts = (number("q", place) for place in places if number("q", place + 8) >= 8)
    return sum(max(0, int(struct.unpack_from("<q", body, start)[0])) for start in starts)


def is_arrow(path: Path) -> bool:
    """Whether a file on disk is one of Arrow, by its first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_INDEXED)).startswith((_PARQUET, _INDEXED, _STREAM))


def _is_plain_text(kind: Any) -> bool:
    types = arrow().types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind))


def _is_text(kind: Any) -> bool:
    """Whether values of a type can be written as text."""
    lib = arrow()
    if lib.types.is_nested(kind):
        return False
    try:
        _texts(lib.array([], type=kind))
    except lib.ArrowException:
        return False
    return True


def _texts(column: Any) -> list[str]:
    """The values of a column as texts, doubles and floats with the digits that they need; none is empty."""
    lib = arrow()
    from pyarrow import compute  # noqa: PLC0415  # optional

    kind = column.type
    if lib.types.is_dictionary(kind):
        values = _texts(column.dictionary)  # cut off, before each row has its own
        return ["" if at is None else values[at] for at in column.indices.to_pylist()]
    if lib.types.is_timestamp(kind):
        # A moment gets its offset. Ticks have milliseconds; what is finer is cut off.
        column = column.cast(lib.timestamp("ms", "UTC" if kind.tz else None), safe=False)
    texts = compute.utf8_slice_codeunits(column.cast(lib.string()), 0, _LONGEST_CELL).to_pylist()
    if lib.types.is_timestamp(kind) and kind.tz:
        return ["" if text is None else f"{text.removesuffix('Z')}+00:00" for text in texts]
    return ["" if text is None else text for text in texts]
