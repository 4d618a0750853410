"""M1 bars from stored ticks, for servers that take no ticks: folded by the rules of the server's own fold."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from marketdata.contract.tick import read_tick
from marketdata.errors import InvalidItem
from marketdata.fold import CandleFold, Passes, split_by_period
from marketdata.tick import Frame, Tick
from relay.lanes import Origin, Part


class Bar(NamedTuple):
    """A bar and whose clock its time is of."""

    origin: Origin
    item: dict[str, Any]


class BarFold:
    """Folds the ticks of all lanes; each lane is one symbol of one sender."""

    def __init__(self) -> None:
        self._passes: dict[str, Passes] = {}
        self._folds: dict[tuple[str, int], tuple[Origin, CandleFold]] = {}
        self._number = 0
        #: Rows whose fields are no tick.
        self.unreadable = 0

    def add(self, part: Part) -> None:
        """Fold the ticks of one lane that would go into one request."""
        frame = self._frame(part)
        if frame is None:
            return
        self._number += 1
        lane, origin = part[0].lane, part[0].origin
        passes = self._passes.setdefault(lane, Passes())
        earliest, latest, minutes = split_by_period(frame)
        number = passes.enter(frame, earliest, latest)
        for minute, ticks in minutes:
            key = (lane, minute)
            if key not in self._folds:
                self._folds[key] = (origin, CandleFold(frame.source, frame.symbol, minute))
            self._folds[key][1].add(self._number, 0, number, frame, ticks)

    def bars(self, *, without_first: bool) -> Iterator[Bar]:
        """The bars in order of lane and time; `without_first` leaves out the first minute, of which rows may lack."""
        begun: set[str] = set()
        for (lane, minute), (origin, fold) in sorted(self._folds.items(), key=lambda item: item[0]):
            if without_first and lane not in begun:
                begun.add(lane)
                continue
            candle = fold.candle(log="", offsets=(), closed=True, emitted=0)
            if candle is not None:
                item = {
                    "ts": minute, "symbol": candle.symbol, "timeframe": "M1", "open": candle.open, "high": candle.high,
                    "low": candle.low, "close": candle.close, "volume": candle.volume,
                    "real_volume": candle.real_volume, "spread": candle.spread, "kind": "bar",
                }  # fmt: skip
                yield Bar(origin, item)

    def _frame(self, part: Part) -> Frame | None:
        ticks: list[Tick] = []
        point: float | None = None
        is_last = False
        for row in part:
            try:
                read = read_tick(msgspec.json.decode(row.item))
            except (InvalidItem, msgspec.MsgspecError, ValueError, RecursionError):
                self.unreadable += 1
                continue
            ticks.append(read.at(row.ts_ms))
            point = point or read.point
            is_last = is_last or read.mode == "last"
        if not ticks:
            return None
        number = self._number + 1
        return Frame(
            v=1, source=part[0].origin.source or "default", symbol=part[0].symbol, mode="last" if is_last else "bid",
            point=point, request=str(number), received=number, ticks=ticks, coarse=any(row.coarse for row in part),
        )  # fmt: skip


def by_origin(bars: Iterable[Bar], size: int) -> Iterator[tuple[Origin, list[dict[str, Any]]]]:
    """Bars in groups that may share a request: one origin, at most `size`."""
    groups: dict[Origin, list[dict[str, Any]]] = {}
    for origin, item in bars:
        group = groups.setdefault(origin, [])
        group.append(item)
        if len(group) == size:
            yield origin, groups.pop(origin)
    yield from groups.items()
