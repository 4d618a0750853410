"""The archive's files, in a folder of this machine or a bucket of an object store. Writes are whole or absent."""

import contextlib
import fcntl
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from pyarrow import PythonFile
from pyarrow.fs import FileSelector, FileSystem, LocalFileSystem

from marketdata.errors import ArchiveUnavailable, SettingsError

#: A file that is being written; readers that take every `*.parquet` do not see it.
_UNFINISHED: Final = ".unfinished"

_LOCK_FILE: Final = "archiver.lock"


class Digest:
    """A stream for Arrow to write to that passes everything on, and knows the size and SHA-256 of what was written."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._sha256 = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Write all of the data."""
        view = memoryview(data)
        self._sha256.update(view)
        self._raw.write(view)
        self.size += view.nbytes
        return view.nbytes

    def flush(self) -> None:
        """Nothing: what counts is the end of the file."""

    def tell(self) -> int:
        """How many bytes were written."""
        return self.size

    def close(self) -> None:
        """Nothing: whoever opened the file closes it."""

    @property
    def sha256(self) -> str:
        """In hexadecimal digits."""
        return self._sha256.hexdigest()


class ArchiveFiles(ABC):
    """The files of one archive, by paths relative to it with `/` between the parts.

    Methods raise `ArchiveUnavailable` when the folder or the bucket does not answer or refuses.
    """

    def __init__(self, filesystem: FileSystem, root: str) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")

    def full(self, path: str) -> str:
        """The path within the file system."""
        return f"{self._root}/{path}"

    @property
    def filesystem(self) -> FileSystem:
        """Arrow's, in which `full` paths are."""
        return self._filesystem

    def read(self, path: str) -> bytes | None:
        """What the file holds; None when there is none."""
        try:
            with self._filesystem.open_input_stream(self.full(path)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise _unavailable(self.full(path), exc) from exc

    def open(self, path: str) -> Any:
        """The file for random access.

        Raises:
            FileNotFoundError: when there is none, for instance because it was merged into another.
        """
        try:
            return self._filesystem.open_input_file(self.full(path))
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise _unavailable(self.full(path), exc) from exc

    def names(self, folder: str) -> list[str]:
        """The names in a folder, in order; none when there is no such folder."""
        try:
            found = self._filesystem.get_file_info(FileSelector(self.full(folder), allow_not_found=True))
        except OSError as exc:
            raise _unavailable(self.full(folder), exc) from exc
        return sorted(info.base_name for info in found if not info.base_name.endswith(_UNFINISHED))

    def replace(self, path: str, content: bytes) -> None:
        """Put this in the place of what the file holds, at once: readers see the one or the other."""
        with self.create(path) as stream:
            stream.write(content)

    def delete(self, path: str) -> None:
        """Delete the file, if it is there, and what a crash left of one that was being written."""
        try:
            self._filesystem.delete_file(self.full(path))
        except FileNotFoundError:
            return
        except OSError as exc:
            raise _unavailable(self.full(path), exc) from exc

    @abstractmethod
    def create(self, path: str) -> contextlib.AbstractContextManager[Digest]:
        """A stream whose content is the file, durably, once the block is left; after an error there is none."""

    @abstractmethod
    def lock(self) -> contextlib.AbstractContextManager[bool]:
        """Whether this is the only archiver, which the lock ensures until the block is left."""


class LocalFiles(ArchiveFiles):
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        super().__init__(LocalFileSystem(use_mmap=True), str(root))
        self._folder = root

    def delete(self, path: str) -> None:
        """See `ArchiveFiles.delete`."""
        super().delete(path + _UNFINISHED)
        super().delete(path)

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[Digest]:
        """See `ArchiveFiles.create`; the file and its name are on the disk when the block is left."""
        target = self._folder / path
        unfinished = target.with_name(target.name + _UNFINISHED)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as raw:
                yield Digest(raw)
                _sync(raw)
            unfinished.replace(target)
            _sync_folder(target.parent)
        except Exception as exc:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            if isinstance(exc, OSError):
                raise _unavailable(str(target), exc) from exc
            raise

    @contextlib.contextmanager
    def lock(self) -> Iterator[bool]:
        """See `ArchiveFiles.lock`; the system releases it however the process ends."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise _unavailable(str(self._folder / _LOCK_FILE), exc) from exc
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)


class ObjectFiles(ArchiveFiles):
    """A bucket: an object appears whole when its upload ends. There are no locks; manifests alone fence archivers."""

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[Digest]:
        """See `ArchiveFiles.create`. After an error nothing is uploaded: it begins when all is written."""
        whole = bytearray()
        yield Digest(_Appending(whole))
        try:
            with self._filesystem.open_output_stream(self.full(path)) as stream:
                stream.write(whole)
        except OSError as exc:
            raise _unavailable(self.full(path), exc) from exc

    @contextlib.contextmanager
    def lock(self) -> Iterator[bool]:
        """See `ArchiveFiles.lock`: always true."""
        yield True


class _Appending:
    def __init__(self, whole: bytearray) -> None:
        self._whole = whole

    def write(self, data: memoryview) -> None:
        self._whole += data


def open_files(location: str) -> ArchiveFiles:
    """The files at a location: a path, or a URL such as `s3://bucket/prefix?region=eu-central-1`.

    Raises:
        SettingsError: when it is neither.
    """
    if "://" not in location:
        return LocalFiles(Path(location).expanduser().absolute())
    try:
        filesystem, root = FileSystem.from_uri(location)
    except (ValueError, OSError) as exc:
        raise SettingsError(f"TICKPIPE_ARCHIVE: {location} is neither a folder nor a URL of a bucket: {exc}") from exc
    return LocalFiles(Path(root)) if isinstance(filesystem, LocalFileSystem) else ObjectFiles(filesystem, root)


def arrow_sink(stream: Digest) -> PythonFile:
    """The stream as Arrow's writers want it."""
    return PythonFile(stream, mode="w")


def _sync(raw: BinaryIO) -> None:
    raw.flush()
    os.fsync(raw.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(path: str, exc: OSError) -> ArchiveUnavailable:
    return ArchiveUnavailable(f"the archive cannot be read or written at {path}: {exc}")
