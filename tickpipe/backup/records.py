"""Records of a Kafka partition as bytes: blocks of msgpack, each behind its length (4 bytes, big-endian)."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Self

import msgspec

from tickpipe.backup.archive import ArchiveDamaged

#: A block is closed at so many records or bytes, whichever comes first.
_BLOCK_RECORDS: Final = 1_000
_BLOCK_BYTES: Final = 1 << 20


class LogRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One record as it was read."""

    offset: int
    #: UTC epoch milliseconds.
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    @classmethod
    def of(cls, record: Any) -> Self:
        """The same record of aiokafka."""
        return cls(record.offset, record.timestamp, record.key, record.value, tuple(map(tuple, record.headers)))


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[LogRecord])


class BlockWriter:
    """Packs records into blocks; `close` writes the last one."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.records = 0
        self._write = write
        self._block: list[LogRecord] = []
        self._bytes = 0

    def add(self, record: LogRecord) -> None:
        """Append a record."""
        self.records += 1
        self._block.append(record)
        self._bytes += len(record.value or b"")
        if len(self._block) == _BLOCK_RECORDS or self._bytes >= _BLOCK_BYTES:
            self.close()

    def close(self) -> None:
        """Write what waits."""
        if self._block:
            packed = _encoder.encode(self._block)
            self._write(len(packed).to_bytes(4, "big") + packed)
            self._block, self._bytes = [], 0


def read_records(pieces: Iterable[bytes]) -> Iterator[LogRecord]:
    """The records of a member that is handed over in pieces.

    Raises:
        ArchiveDamaged: when the bytes are no blocks.
    """
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) >= 4 and len(waiting) >= (end := 4 + int.from_bytes(waiting[:4], "big")):
            try:
                yield from _decoder.decode(bytes(waiting[4:end]))
            except msgspec.MsgspecError as exc:
                raise ArchiveDamaged(f"a block of records cannot be read: {exc}") from exc
            del waiting[:end]
    if waiting:
        raise ArchiveDamaged("the last block of records is cut off")
