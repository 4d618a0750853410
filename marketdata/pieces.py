"""A poll in pieces that stay in the processor's cache from their decoding until they are folded. Pure."""

from collections.abc import Iterator, Sequence

from marketdata.runs import Record

#: Many more bytes than this, once decoded, do not stay in the processor's cache until they are folded.
_PIECE_BYTES = 192 * 1024

#: With many symbols a piece is larger, so that it has a run of most of them: some sixteen single ticks. Beyond the most
#: it takes longer than other work may wait, and what it decodes to takes tens of megabytes.
_SYMBOL_BYTES = 3 * 1024
_MAX_PIECE_BYTES = 4 * 1024 * 1024


def in_pieces(records: Sequence[Record], symbols: int = 1) -> Iterator[Sequence[Record]]:
    """A poll in pieces to decode and fold one after the other; `symbols` are those that tick.

    Bytes bound a piece, not records: one of 200 ticks takes up to twice as long for each byte as one of one.
    """
    total_bytes = sum(len(record.value) for record in records if record.value is not None)
    piece_bytes = min(max(_PIECE_BYTES, symbols * _SYMBOL_BYTES), _MAX_PIECE_BYTES)
    step = max(1, piece_bytes * len(records) // max(1, total_bytes))
    return (records[begin : begin + step] for begin in range(0, len(records), step))
