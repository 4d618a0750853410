"""Finds the periods that a log touches, and the records that touch them. Pure."""

from array import array
from collections.abc import Iterable
from typing import NamedTuple

from marketdata.fold import split_by_period
from marketdata.offsets import Ranges, of_positions
from marketdata.refold import BRIDGE_RECORDS
from marketdata.runs import Chunk

#: Source, symbol and start of the period (UTC epoch milliseconds).
PeriodKey = tuple[str, str, int]


class Touched(NamedTuple):
    """What a batch of records touches: those after the batch before, up to the position `reached`."""

    reached: int
    #: Periods, and the positions that touch them, ascending; a period may come again and continue where it ended.
    periods: "Iterable[tuple[PeriodKey, array[int]]]"


class Coverage:
    """The periods that one partition touches; feed it every frame in order, with its position in the log."""

    def __init__(self, width_ms: int) -> None:
        #: Length of a period (milliseconds).
        self.width_ms = width_ms
        self._touched: dict[PeriodKey, array[int]] = {}
        self._position = -1

    def __len__(self) -> int:
        return len(self._touched)

    def feed(self, chunk: Chunk) -> None:
        """Note which periods these frames touch."""
        touched = self._touched
        for position, frame in chunk:
            for ts, _ in split_by_period(frame, self.width_ms)[2]:
                key = (frame.source, frame.symbol, ts)
                if (positions := touched.get(key)) is None:
                    positions = touched[key] = array("q")
                positions.append(position)
            self._position = position

    def note(self, touched: Touched) -> None:
        """Note the same for records whose frames are not at hand."""
        for key, positions in touched.periods:
            noted = self._touched.setdefault(key, array("q"))
            noted.extend(positions[1:] if noted and noted[-1] == positions[0] else positions)
        self._position = touched.reached

    def settled(self) -> dict[PeriodKey, Ranges]:
        """Return and forget the periods that nothing has touched for a while, with the offsets that touched them.

        A later touch is too far away to be part of the same range (`bridged`).
        """
        since = self._position - BRIDGE_RECORDS
        return self._taken([key for key, positions in self._touched.items() if positions[-1] < since])

    @property
    def settled_until(self) -> int:
        """The position of the first record of any remaining period, or the one after the last record that was fed."""
        return min((positions[0] for positions in self._touched.values()), default=self._position + 1)

    def rest(self) -> dict[PeriodKey, Ranges]:
        """The remaining periods, once the partition was read to its end."""
        return self._taken(list(self._touched))

    def _taken(self, keys: list[PeriodKey]) -> dict[PeriodKey, Ranges]:
        return {key: of_positions(self._touched.pop(key)) for key in keys}
