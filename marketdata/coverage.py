"""Which records touch each period: what a pass over the log says that the table should hold. Pure."""

from array import array

from marketdata.fold import split_by_period
from marketdata.offsets import Ranges, from_spans
from marketdata.refold import BRIDGE_RECORDS
from marketdata.runs import Chunk

#: Source, symbol and start of the period (UTC epoch milliseconds).
PeriodKey = tuple[str, str, int]


class Coverage:
    """The periods that one partition touches; feed it every frame in order, with its position in the log."""

    def __init__(self, width_ms: int) -> None:
        self._width_ms = width_ms
        self._touched: dict[PeriodKey, array[int]] = {}
        self._position = -1

    def __len__(self) -> int:
        return len(self._touched)

    def feed(self, chunk: Chunk) -> None:
        """Note which periods these frames touch."""
        touched = self._touched
        for position, frame in chunk:
            for ts, _ in split_by_period(frame, self._width_ms)[2]:
                key = (frame.source, frame.symbol, ts)
                if (positions := touched.get(key)) is None:
                    positions = touched[key] = array("q")
                positions.append(position)
            self._position = position

    def settled(self) -> dict[PeriodKey, Ranges]:
        """The periods that nothing touched for a while, and the records that did; they are forgotten here.

        So long that what touches them later is no part of the same range (`marketdata.refold.bridged`).
        """
        since = self._position - BRIDGE_RECORDS
        return self._taken([key for key, positions in self._touched.items() if positions[-1] < since])

    def rest(self) -> dict[PeriodKey, Ranges]:
        """All that is left, when the partition was read to its end."""
        return self._taken(list(self._touched))

    def _taken(self, keys: list[PeriodKey]) -> dict[PeriodKey, Ranges]:
        return {key: _ranges(self._touched.pop(key)) for key in keys}


def _ranges(positions: "array[int]") -> Ranges:
    spans: list[tuple[int, int]] = []
    for position in positions:
        if spans and spans[-1][1] == position - 1:
            spans[-1] = (spans[-1][0], position)
        else:
            spans.append((position, position))
    return from_spans(spans)
