"""Opens a file of lines of text: plain, gzip, zip or Zstandard, in UTF-8 or UTF-16, or the standard input."""

import codecs
import gzip
import io
import os
import re
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast

from marketdata.contract.body import stray_character
from marketdata.errors import TickpipeError, missing_extra
from tickpipe.sending.columnnames import field_of
from tickpipe.sending.dialects import UnknownForm

#: A longer line is not one of ticks or bars; its rest is left out (characters). Two hundred are in memory at once.
_LONGEST_LINE: Final = 20_000

#: Of a text that is not read by lines, so much is read at once (characters).
_CHUNK: Final = 65_536

#: What a zip holds that is read, the likeliest first: beside its CSV, HistData packs a report as text.
_MEMBERS: Final = (".csv", ".jsonl", ".json", ".txt")

#: What unpacking raises beside OSError, which is also pyarrow's for damaged files.
_DAMAGES: Final = (
    EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile, NotImplementedError, UnicodeDecodeError, struct.error,
)  # fmt: skip

#: Longest part of a library's message that is quoted (characters).
_QUOTED: Final = 200

#: What macOS packs beside each file.
_RESOURCE_FORK: Final = "._"

#: Windows programs write files in Windows-1252 as well.
_STRAY_BYTES: Final = "tickpipe-stray"
codecs.register_error(_STRAY_BYTES, stray_character)

#: Files that are not read, by how they begin and where, and what to do about them.
_FOREIGN: Final = (
    (0, b"BZh", "it is packed by bzip2; unpack it first"),
    (0, b"\xfd7zXZ\0", "it is packed by xz; unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "it is packed by 7-Zip; unpack it first"),
    (0, b"Rar!\x1a\x07", "it is packed by RAR; unpack it first"),
    (257, b"ustar", "it is a tar archive; unpack it and name the folder"),
    (
        0,
        b"SQLite format 3\0",
        "it is a database of SQLite; `tickpipe relay export --db` sends that of an EA or a relay",
    ),
    (0, b"\xd0\xcf\x11\xe0", "it is a workbook of Excel; save it as CSV"),
    (4, b"(C)opyright", "it is MetaTrader 4's own file; export CSV from its History Center"),
    (4, "Copyright".encode("utf-16-le"), "it is MetaTrader 5's own file; export the bars or ticks from its Symbols"),
    (0, b"]\0\0", "it is packed by LZMA, as Dukascopy's bi5; let JForex or dukascopy-node write CSV"),
    (0, b"\x93NUMPY", "it is an array of numpy; write CSV or Parquet, as pandas does"),
    (0, b"\x89HDF", "it is HDF5; write CSV or Parquet, as pandas does"),
    *((0, bytes((0x80, protocol)), "it is a pickle of Python; write CSV or Parquet, as pandas does")
      for protocol in range(2, 6)),
    (0, b"%PDF", "it is a PDF; save the data as CSV"),
    *((0, sign, "it is a page or a report, not a table; save it as CSV")
      for sign in (b"<html", b"<HTML", b"<!DOCTYPE", b"<!doctype", b"<?xml")),
)  # fmt: skip

#: Files that are joined have one within.
BYTE_ORDER_MARK: Final = "\ufeff"

#: A file is known by so many bytes.
_START_BYTES: Final = 512

#: What a workbook of today has, which is a zip.
_WORKBOOK: Final = "xl/workbook.xml"

#: Encodings of Windows, DOS and Unix in which files may name columns, and how many such names make one certain.
_ENCODINGS: Final = (
    "cp1252", "cp1251", "cp866", "koi8_r", "cp1250", "cp932", "euc_jp", "gb18030", "big5", "cp949",
)  # fmt: skip
_CERTAIN_NAMES: Final = 2
_CELLS: Final = re.compile("[\t;|,\r\n]")

_GZIP, _ZIP, _ZSTANDARD = b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd"


class DataFileError(TickpipeError):
    """A file cannot be read on from some line; the message names the line and what is wrong with it."""


class MissingLibrary(TickpipeError):
    """Parquet, Arrow and Zstandard are read by pyarrow, which is not installed."""

    is_wrong_use = True


@contextmanager
def closed_on_failure(opened: ExitStack, path: Path, damages: tuple[type[Exception], ...]) -> Iterator[None]:
    """Close what was opened when the block fails.

    Raises:
        UnknownForm: in the place of one of `damages`.
    """
    try:
        yield
    except damages as exc:
        opened.close()
        raise UnknownForm(f"{path}: damaged: {told(exc)}") from exc
    except BaseException:
        opened.close()
        raise


class TextFile:
    """A file opened for one pass over its lines, `with TextFile(path) as file`; memory does not grow with it.

    `-` is the standard input, and `history.zip/EURUSD.csv` the file of that name in the zip.

    Args:
        encoding: of the text; None where the first bytes are to tell.
    """

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        self.path = path
        self._encoding = encoding
        #: Size on disk (bytes); None for the standard input.
        self.total_bytes: int | None = None
        #: Whether the lines come through a pipe or a terminal, which may pause and resume.
        self.is_live = False
        #: How many lines were read.
        self.line_number = 0
        self._open = ExitStack()
        self._raw: BinaryIO | None = None
        self._text: io.TextIOWrapper | None = None

    def __enter__(self) -> Self:
        """Open the file.

        Raises:
            UnknownForm: when it cannot hold text.
            MissingLibrary: when the library that unpacks it is not installed.
            OSError: when it cannot be opened.
        """
        with closed_on_failure(self._open, self.path, ()):
            if str(self.path) == "-":
                self._raw = self._standard_input()
            else:
                packed = on_disk(self.path)
                self._raw = self._open.enter_context(packed.open("rb"))
                self.total_bytes = packed.stat().st_size
        with closed_on_failure(self._open, self.path, (*_DAMAGES, OSError)):
            self._text = self._as_text(self._raw)
        return self

    def __exit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._open.close()

    @property
    def read_bytes(self) -> int:
        """How far the reading is in the file on disk, for a progress bar."""
        return self._raw.tell() if self._raw is not None and self.total_bytes is not None else 0

    def chunks(self) -> Iterator[str]:
        """The text in pieces, whatever its lines.

        Raises:
            DataFileError: when the file is damaged or cut off.
        """
        assert self._text is not None  # noqa: S101  # it is open
        line = 1
        try:
            while chunk := self._text.read(_CHUNK):
                line += chunk.count("\n")
                yield chunk
        except (*_DAMAGES, OSError) as exc:
            raise DataFileError(f"{self.path}: damaged or cut off in line {line:,}: {told(exc)}") from exc

    def lines(self, longest: int = _LONGEST_LINE) -> Iterator[str]:
        """The lines with their ends, of a line no more than `longest`; bytes that are no UTF-8 are of Windows-1252.

        Raises:
            DataFileError: when the file is damaged or cut off.
        """
        assert self._text is not None  # noqa: S101  # it is open
        read = self._text.readline
        try:
            while line := read(longest):
                self.line_number += 1
                if len(line) == longest:
                    while line[-1] not in "\r\n" and (rest := read(longest)):
                        line = line[:-1] + rest[-1]
                yield line
        except (*_DAMAGES, OSError) as exc:
            why = f"{self.path}: damaged or cut off after line {self.line_number:,}: {told(exc)}"
            raise DataFileError(why) from exc

    def _standard_input(self) -> BinaryIO:
        try:
            descriptor = sys.stdin.fileno()
        except io.UnsupportedOperation:  # something in memory was put in its place
            return sys.stdin.buffer
        self.is_live = not stat.S_ISREG(os.fstat(descriptor).st_mode)
        # A reader of its own: Python dies at exit when a thread still reads from sys.stdin.
        return open(descriptor, "rb", closefd=False)

    def _as_text(self, raw: BinaryIO) -> io.TextIOWrapper:
        stream = cast(io.BufferedReader, raw)
        magic = stream.peek(4)[:4]
        if magic.startswith(_GZIP):
            stream = cast(io.BufferedReader, gzip.GzipFile(fileobj=raw))
        elif magic == _ZSTANDARD:
            unpacked = arrow().CompressedInputStream(arrow().PythonFile(raw, mode="r"), "zstd")
            stream = io.BufferedReader(self._open.enter_context(unpacked))
        elif magic == _ZIP and raw.seekable():
            stream = self._of_zip(raw)
        if stream is not raw and stream.peek(4)[:4].startswith((_GZIP, _ZIP, _ZSTANDARD)):
            raise UnknownForm(f"{self.path}: what is packed in it is packed once more; unpack it first")
        start = stream.peek(_START_BYTES)
        for at, sign, why in _FOREIGN:
            if start.startswith(sign, at):
                raise UnknownForm(f"{self.path}: {why}")
        encoding = self._encoding or _encoding(start)
        text = io.TextIOWrapper(stream, encoding=encoding, errors=_STRAY_BYTES, newline="")
        if not self.is_live:
            # The file is closed by its own context; a wrapper that is collected first would close it with a warning.
            # From a pipe, a thread may be reading: it alone has the wrapper, and the descriptor stays open.
            self._open.callback(text.detach)
        return text

    def _of_zip(self, raw: BinaryIO) -> io.BufferedReader:
        archive = self._open.enter_context(zipfile.ZipFile(raw))
        packed = on_disk(self.path)
        files = members(packed, archive)
        name = self.path.relative_to(packed).as_posix() if self.path != packed else ""
        if not name:
            if len(files) != 1:
                count = len(archive.namelist())
                raise UnknownForm(f"{self.path}: it holds {count} files and not one of CSV; name one: {self.path}/FILE")
            name = files[0].relative_to(packed).as_posix()
        try:
            return io.BufferedReader(cast(io.RawIOBase, self._open.enter_context(archive.open(name))))
        except (RuntimeError, OSError) as exc:
            # With a password, or packed in a way that zipfile does not know.
            raise UnknownForm(f"{packed}: {name} in it cannot be unpacked: {exc}") from exc
        except KeyError as exc:
            raise UnknownForm(f"{packed}: there is no {name} in it") from exc


def told(exc: BaseException) -> str:
    """What a library says, in one line."""
    return " ".join("".join(filter(str.isprintable, str(exc).replace("\n", " "))).split())[:_QUOTED]


def on_disk(path: Path) -> Path:
    """The file on disk that a path names or lies within: `history.zip` of `history.zip/EURUSD.csv`."""
    return next((part for part in (path, *path.parents) if part.is_file()), path)


def unpacked(path: Path) -> list[Path]:
    """The files in a zip, as paths within it, in the order of their names; any other file is itself.

    Raises:
        UnknownForm: when the zip is damaged, or holds nothing that is read.
        OSError: when it cannot be opened.
    """
    with path.open("rb") as raw:
        if raw.read(len(_ZIP)) != _ZIP:
            return [path]
    try:
        with zipfile.ZipFile(path) as archive:
            files = members(path, archive)
            is_workbook = _WORKBOOK in archive.namelist()
    except (*_DAMAGES, OSError) as exc:
        raise UnknownForm(f"{path}: damaged: {told(exc)}") from exc
    if is_workbook:
        raise UnknownForm(f"{path}: it is a workbook of Excel; save it as CSV")
    if not files:
        raise UnknownForm(f"{path}: it holds no file that ends with {', '.join(_MEMBERS)}")
    return files


def _is_within(name: str) -> bool:
    """Whether a name in a zip stays in it: `/etc/a.csv` and `../a.csv` would be files beside it."""
    return not name.startswith("/") and ".." not in name.split("/")


def members(path: Path, archive: zipfile.ZipFile) -> list[Path]:
    """The files of the likeliest ending in a zip."""
    names = [name for name in archive.namelist() if not name.rpartition("/")[2].startswith(_RESOURCE_FORK)]
    for suffix in _MEMBERS:
        found = sorted(path / name for name in names if name.lower().endswith(suffix) and _is_within(name))
        if found:
            return found
    return []


def arrow() -> Any:
    """The library pyarrow; Arrow's files are read by `tickpipe.sending.arrowfile`.

    Raises:
        MissingLibrary: when it is not installed.
    """
    try:
        import pyarrow  # noqa: PLC0415  # optional, and slow to load
    except ImportError as exc:
        raise MissingLibrary(missing_extra("pyarrow, which reads Parquet, Arrow and Zstandard,", "arrow")) from exc
    return pyarrow


def _encoding(start: bytes) -> str:
    # MT5 exports as UTF-16-LE with a byte order mark, or as UTF-8; without the mark, a zero byte beside the first
    # letter shows it.
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if start[1:2] == b"\0":
        return "utf-16-le"
    if start[:1] == b"\0":
        return "utf-16-be"
    return _encoding_by_names(start) or "utf-8-sig"


def _encoding_by_names(start: bytes) -> str:
    """The encoding in which text that is no UTF-8 names columns in letters of its own; empty where none is certain."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        pass
    else:
        return ""
    likeliest = max(_ENCODINGS, key=lambda encoding: _named(start, encoding))
    return likeliest if _named(start, likeliest) >= _CERTAIN_NAMES else ""


def _named(start: bytes, encoding: str) -> int:
    cells = _CELLS.split(start.decode(encoding, "ignore"))
    return sum(not cell.isascii() and bool(field_of(cell)) for cell in cells)
