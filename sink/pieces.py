"""Long work of the processor in pieces, between which other tasks of the event loop have their turn.

Storing a batch takes half a dozen answers of the database. While the next batch is decoded and packed in one go, each
of them waits for the end of that, and the two processes take turns instead of working at the same time.
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

Item = TypeVar("Item")

#: Records or candles of a piece, which takes half a millisecond or so.
_PIECE: Final = 125


def in_pieces(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The same items in the same order; whoever works through them awaits something after each piece."""
    return (items[start : start + _PIECE] for start in range(0, len(items), _PIECE))
