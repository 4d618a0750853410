"""Frames whose records begin with the same bytes, which are decoded once. Pure.

Every single tick of a symbol repeats source, symbol, chart mode and point: more than half of its record. What differs
begins with the request. So records are told apart by the bytes before it, and only the rest of each is decoded.
"""

from collections.abc import Sequence
from typing import Annotated, Final, overload

import msgspec
from msgspec import Meta, Struct

from marketdata.errors import InvalidFrame
from marketdata.parts import FlowFrames
from marketdata.tick import Frame, RecordColumns, Tick, Ticks, TimeMsc
from marketdata.wire import decode_all, decode_frame

#: Before it is what all records of a symbol have in common. In a name its quotes would have backslashes.
SEAM: Final = b'"request":'

#: Completes any beginning to a record.
_PROBE: Final = SEAM + b'"","received":0,"ticks":[[0,0,0,0,0,0]]}'


class _Rest(Struct, gc=False, forbid_unknown_fields=True, kw_only=True):
    """The fields of `Frame` that are not in its head; a record with any other is decoded as a whole."""

    request: str
    received: TimeMsc
    ticks: Annotated[list[Tick], Meta(min_length=1)] | RecordColumns
    coarse: bool = False


_rests: Final = msgspec.json.Decoder(list[_Rest])


class Head:
    """What all records with one beginning say."""

    __slots__ = ("frame", "key", "length")

    def __init__(self, frame: Frame, length: int) -> None:
        #: Source and symbol.
        self.key = (frame.source, frame.symbol)
        #: A frame that begins so, with other ticks.
        self.frame = frame
        #: Bytes of the beginning.
        self.length = length

    @classmethod
    def of(cls, beginning: bytes) -> "Head | None":
        """The head of records that begin so; None when only whole records tell what they say."""
        try:
            frame = decode_frame(beginning + _PROBE)
        except InvalidFrame:
            return None
        return None if frame.coarse else cls(frame, len(beginning))

    def frames(self, values: Sequence[bytes]) -> "HeadFrames | None":
        """The frames of records with this head; None when one of them is no frame, or has an unknown field."""
        length = self.length
        rests = decode_all(_rests, [value[length:] for value in values], b"{")
        return None if rests is None else HeadFrames(self.frame, rests)


#: Beginnings that are remembered, more than any broker has symbols. A sender could vary them without end.
_MAX_HEADS: Final = 50_000


class Heads:
    """Remembers heads by the bytes that records begin with."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head | None] = {}

    def of(self, beginning: bytes) -> Head | None:
        """As `Head.of`."""
        if beginning not in self._heads:
            if len(self._heads) > _MAX_HEADS:
                self._heads.clear()
            self._heads[beginning] = Head.of(beginning)
        return self._heads[beginning]


class HeadFrames(FlowFrames):
    """Frames of one head; each is made when it is asked for."""

    __slots__ = ("_head", "_made", "_rests")

    def __init__(self, head: Frame, rests: list[_Rest]) -> None:
        self._head = head
        self._rests = rests
        self._made: dict[int, Frame] = {}

    @property
    def ticks(self) -> list[Ticks]:
        """The ticks of each frame."""
        return [rest.ticks for rest in self._rests]

    @property
    def are_alike(self) -> bool:
        """Whether all have whole-second times, or none."""
        return len({rest.coarse for rest in self._rests}) < 2

    def received(self, index: int) -> int:
        """When the producer took the request of a frame (UTC epoch milliseconds)."""
        return self._rests[index].received

    def __len__(self) -> int:
        return len(self._rests)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> "Frame | list[Frame]":
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self._rests)))]
        at = index if index >= 0 else index + len(self._rests)
        # A pass knows the frame that opened it by identity.
        if (frame := self._made.get(at)) is None:
            head, rest = self._head, self._rests[at]
            frame = self._made[at] = Frame(
                v=head.v, source=head.source, symbol=head.symbol, mode=head.mode, point=head.point,
                request=rest.request, received=rest.received, ticks=rest.ticks, coarse=rest.coarse,
            )  # fmt: skip
        return frame
