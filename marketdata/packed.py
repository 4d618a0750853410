"""Keeps the ticks of a period in case they are sent again, in as few bytes as they need. Pure."""

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Final

import msgspec

from marketdata.tick import FIELDS, Columns, Tick, Ticks, period_of
from marketdata.wire import decode_frame

#: Ticks packed together. Smaller packs more often; with larger packs they leave the cache first.
PACK_TICKS = 16

_encoder: Final = msgspec.msgpack.Encoder()
_ticks: Final[msgspec.msgpack.Decoder[Ticks]] = msgspec.msgpack.Decoder(list[Tick] | Columns)

#: The fields of a tick that came alone, each as a double.
_ROW: Final = Struct(f"<{len(FIELDS)}d")


class PackedTicks:
    """Ticks of one period, in no order: packed, as rows of doubles, or as the records that hold them."""

    __slots__ = ("_length", "_loose", "_packed", "_records", "_rows", "_ts", "_width_ms")

    def __init__(self, ts: int, width_ms: int) -> None:
        """Of the period of `width_ms` that begins at `ts`."""
        self._ts = ts
        self._width_ms = width_ms
        self.clear()

    def clear(self) -> None:
        """Let all go."""
        # Hardly any period has more than one kind, so each list is made with the first of its kind.
        self._packed: list[bytes | Ticks] | tuple[()] = ()
        self._records: list[bytes] | tuple[()] = ()
        self._rows: list[bytes] | tuple[()] = ()
        self._loose: list[Tick] | tuple[()] = ()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Tick]:
        for block in self._packed:
            yield from _ticks.decode(block) if isinstance(block, bytes) else block
        for record in self._records:
            for tick in decode_frame(record).ticks:
                if period_of(tick.time_msc, self._width_ms) == self._ts:
                    yield tick
        for rows in self._rows:
            # Not strictly: whole numbers are doubles, too.
            yield from msgspec.convert(list(_ROW.iter_unpack(rows)), list[Tick], strict=False)
        yield from self._loose

    def add(self, ticks: Ticks) -> None:
        """Add these."""
        self._length += len(ticks)
        if isinstance(ticks, Columns) and len(ticks) >= PACK_TICKS:
            self._pack(ticks)
            return
        if self._loose:
            self._loose += ticks
        else:
            self._loose = list(ticks)
        if len(self._loose) >= PACK_TICKS:
            self._pack(self._loose)
            self._loose = ()

    def _pack(self, ticks: Ticks) -> None:
        if self._packed:
            self._packed.append(_packed(ticks))
        else:
            self._packed = [_packed(ticks)]

    def add_records(self, records: Sequence[bytes], count: int) -> None:
        """Add the `count` ticks of the period that these have: columns in a record are as small as packed ones."""
        self._length += count
        if self._records:
            self._records += records
        else:
            self._records = list(records)

    def add_rows(self, rows: bytes, first: int, count: int) -> None:
        """Add `count` ticks of these rows from the one of index `first` on: doubles, as small as when they are packed.

        Times and flags must be exact as doubles.
        """
        self._length += count
        own = rows[first * _ROW.size : (first + count) * _ROW.size]
        if self._rows:
            self._rows.append(own)
        else:
            self._rows = [own]


def _packed(ticks: Ticks) -> bytes | Ticks:
    try:
        return _encoder.encode(ticks)
    except OverflowError:
        # Only a foreign sender has flags of more than 64 bits.
        return ticks
