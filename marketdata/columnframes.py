"""Frames whose ticks are columns, as the archive has them. Pure."""

from collections.abc import Callable, Sequence
from typing import overload

from marketdata.tick import Columns, Frame, Ticks


class ColumnFrames(Sequence[Frame]):
    """Frames of one source, symbol and form whose ticks are columns; a frame is made when it is asked for."""

    __slots__ = ("_made", "_make", "_numbers", "starts", "ticks")

    def __init__(
        self,
        ticks: Columns,
        starts: Sequence[int],
        make: Callable[[int, Ticks], Frame],
        numbers: range | None = None,
        made: dict[int, Frame] | None = None,
    ) -> None:
        """`starts` are the indices of each frame's first tick, `make` makes the frame of a number from its ticks.

        `numbers` are those of the frames in this part of them, `made` those that all parts have made.
        """
        #: Of all frames, also where this is a part of them.
        self.ticks = ticks
        self.starts = starts
        self._make = make
        self._numbers = range(len(starts)) if numbers is None else numbers
        self._made: dict[int, Frame] = {} if made is None else made

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> "ColumnFrames": ...
    def __getitem__(self, index: int | slice) -> "Frame | ColumnFrames":
        if isinstance(index, slice):
            return ColumnFrames(self.ticks, self.starts, self._make, self._numbers[index], self._made)
        number = self._numbers[index]
        if (frame := self._made.get(number)) is None:
            end = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.ticks)
            frame = self._made[number] = self._make(number, self.ticks[self.starts[number] : end])
        return frame
