"""Reads a Parquet file as lines of text, so that its columns are read by the same rules as those of CSV."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tickpipe.sending.dialects import UnknownForm
from tickpipe.sending.textfile import DataFileError, arrow

_MAGIC: Final = b"PAR1"

#: Rows that are in memory at once.
_ROWS: Final = 50_000


class ParquetFile:
    """A Parquet file opened for one pass over its lines: the names of the columns, then its rows, with tabs between."""

    is_live = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.total_bytes: int | None = None
        self._read_rows, self._rows = 0, 1
        self._open = ExitStack()
        self._file: Any = None

    def __enter__(self) -> Self:
        """Open the file.

        Raises:
            UnknownForm: when it is damaged.
            MissingLibrary: when pyarrow is not installed.
        """
        arrow_error = arrow().ArrowInvalid
        from pyarrow import parquet  # noqa: PLC0415  # optional

        try:
            self._file = self._open.enter_context(parquet.ParquetFile(self.path))
        except arrow_error as exc:
            raise UnknownForm(f"{self.path}: damaged: {exc}") from exc
        self.total_bytes = self.path.stat().st_size
        self._rows = self._file.metadata.num_rows
        return self

    def __exit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._open.close()

    @property
    def read_bytes(self) -> int:
        """How far the reading is, in bytes of the file."""
        return (self.total_bytes or 0) * self._read_rows // max(1, self._rows)

    def lines(self) -> Iterator[str]:
        """The lines.

        Raises:
            DataFileError: when the file is damaged.
        """
        yield "\t".join(name.replace("\t", " ") for name in self._file.schema_arrow.names) + "\n"
        try:
            for batch in self._file.iter_batches(_ROWS):
                for cells in zip(*(_texts(column) for column in batch.columns), strict=True):
                    self._read_rows += 1
                    yield "\t".join(cells) + "\n"
        except (arrow().ArrowException, OSError) as exc:
            raise DataFileError(f"{self.path}: damaged after row {self._read_rows:,}: {exc}") from exc


def is_parquet(path: Path) -> bool:
    """Whether a file on disk is Parquet, by its first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _texts(column: Any) -> list[str]:
    """The values of a column as texts, doubles and floats with the digits that they need; none is empty."""
    lib = arrow()
    kind = column.type
    if lib.types.is_dictionary(kind):
        column = column.dictionary_decode()
    if lib.types.is_timestamp(kind):
        # A moment gets its offset. Ticks have milliseconds; what is finer is cut off.
        column = column.cast(lib.timestamp("ms", "UTC" if kind.tz else None), safe=False)
    texts = column.cast(lib.string()).to_pylist()
    if lib.types.is_timestamp(kind) and kind.tz:
        return ["" if text is None else f"{text.removesuffix('Z')}+00:00" for text in texts]
    return ["" if text is None else text for text in texts]
