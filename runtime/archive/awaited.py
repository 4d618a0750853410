"""Reads the archive from an event loop: in another thread, and in parts that do not hold other work up."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

from marketdata.coverage import Touched
from marketdata.offsets import position
from marketdata.refold import Proof
from marketdata.runs import Chunk, Flows
from marketdata.summed import SummedFold

if TYPE_CHECKING:
    from runtime.archive.manifest import Series
    from runtime.archive.reader import ArchiveReader

T = TypeVar("T")

#: Ticks that are handed out at once, for the same reason as `marketdata.pieces.in_pieces`.
_PIECE_TICKS: Final = 1_000


async def flows(
    archive: "ArchiveReader", partition: int, first: int, last: int, series: "Collection[Series]"
) -> AsyncIterator[tuple[int, tuple[int, Flows]]]:
    """What `ArchiveReader.flows` gives, with positions and the one up to which all are read; and how many records."""
    begin = position(partition, 0)
    async for some in _in_thread(archive.flows(partition, first, last, series=series)):
        for part in some:
            positions = [begin + offset for offset in part.offsets]
            yield len(positions), (begin + part.reached, {part.series: (positions, part.frames)})


async def chunks(
    archive: "ArchiveReader", partition: int, first: int, last: int, series: "Collection[Series] | None"
) -> AsyncIterator[tuple[int, Chunk]]:
    """What `ArchiveReader.read` gives, with positions; and how many records."""
    begin = position(partition, 0)
    async for chunk in _in_thread(archive.read(partition, first, last, series=series)):
        ticks = sum(len(frame.ticks) for _, frame in chunk)
        step = max(1, _PIECE_TICKS * len(chunk) // ticks)
        for start in range(0, len(chunk), step):
            part = chunk[start : start + step]
            yield len(part), [(begin + offset, frame) for offset, frame in part]


def touched(
    archive: "ArchiveReader", partition: int, first: int, last: int, width_ms: int
) -> AsyncIterator[tuple[int, Touched]]:
    """What `ArchiveReader.touched` gives."""
    return _in_thread(archive.touched(partition, first, last, width_ms))


def folds(archive: "ArchiveReader", proofs: Iterable[Proof]) -> AsyncIterator[tuple[int, dict[Proof, SummedFold]]]:
    """What `ArchiveReader.folds` gives."""
    return _in_thread(archive.folds(proofs))


async def _in_thread(parts: Iterator[T]) -> AsyncIterator[T]:
    while (part := await asyncio.to_thread(next, parts, None)) is not None:
        yield part
