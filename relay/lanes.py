"""Decides which rows go into the next request. Pure; the server's fold is right only because of these rules.

One request becomes one frame for each symbol, and the fold recognises a resend by a frame in which time goes back or
which begins with what the frame before ended with (docs/candles.md). Merging an EA's requests must hide neither, so:

- Rows of one symbol go in the order in which they were stored, and what one request brought stays in one request.
- Two requests are merged only when the second begins later than the first ended, so a resend stays a frame of its own.
- Requests of whole seconds are never merged: whether one that goes back is a resend the fold tells by where each of
  them began and ended. Archives of older programs are the exception; they hold one row of a second, so nothing in them
  is equal, and one request for each of millions of rows would take days.
- Where a symbol may be charted by last, a request of one single millisecond does not end a merged one: equal deals in a
  millisecond are ordinary there, and the fold takes them for a resend only when the frame before has no other time.
- Only a single request that is larger than a batch is cut, and then between two timestamps.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from marketdata.contract.tick import middle_change


class Origin(NamedTuple):
    """What holds for a whole request to the server."""

    path: str
    #: X-Source of the sender, when it named one.
    source: str | None
    utc_offset_seconds: int | None
    #: The broker's server, when the sender named one: the source where the key may speak for any.
    server: str | None = None
    #: The account, when the sender named one.
    account: str | None = None
    #: Ticks that the server lacked and asked for.
    is_fill: bool = False

    @property
    def sender(self) -> str:
        """The name under which the server knows the source, where the key may speak for any."""
        return self.source or self.server or ""


class Row(NamedTuple):
    """A stored row, ready to be sent."""

    id: int
    #: Rows of one lane keep their order: a symbol, or a symbol's bars.
    lane: str
    origin: Origin
    symbol: str
    ts_ms: int
    #: Rows that came in one request have one `created_at`, unlike that of the next request.
    request: str | None
    #: Whether the time is known to the second only.
    coarse: bool
    #: The item as JSON.
    item: bytes
    #: A bar that the broker computed, not a tick.
    is_bar: bool = False
    #: A tick of a symbol that may be charted by last, where equal ticks in one millisecond are ordinary.
    has_deals: bool = False
    #: An older program stored it: of a symbol and a time it has one row.
    is_archived: bool = False


#: The rows of one lane that go into one request.
Part = list[Row]


class Lanes:
    """Rows that were read from the database and not sent, by lane."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[Row]] = {}
        #: How many rows wait.
        self.waiting = 0

    def add(self, rows: Iterable[Row]) -> None:
        """Append rows, in order of id."""
        for row in rows:
            lane = self._lanes.get(row.lane)
            if lane is None:
                lane = self._lanes[row.lane] = deque()
            lane.append(row)
            self.waiting += 1

    def heads(self) -> dict[str, tuple[int, int]]:
        """For each lane in which rows wait: the id of the first, and how many."""
        return {name: (lane[0].id, len(lane)) for name, lane in self._lanes.items()}

    def take(self, limit: int, *, at_end: bool) -> list[Part]:
        """The next request: about `limit` rows at most, and the lane of the oldest row among them; they wait no longer.

        `at_end` says that the database holds nothing behind the rows here. Before, a lane's last request may go on in
        the next page, and waits for it; then the answer may be empty.
        """
        parts: list[Part] = []
        room = limit
        origin: Origin | None = None
        for name, lane in sorted(self._lanes.items(), key=lambda item: item[1][0].id):
            if room <= 0:
                break
            if origin is not None and lane[0].origin != origin:
                continue
            count = _sendable(lane, room, at_end=at_end, may_cut=not parts)
            if count:
                part = [lane.popleft() for _ in range(count)]
                origin = part[0].origin
                parts.append(part)
                room -= count
                if not lane:
                    del self._lanes[name]
        self.waiting -= sum(map(len, parts))
        return parts


def _sendable(lane: deque[Row], room: int, *, at_end: bool, may_cut: bool) -> int:
    """How many rows from the front of a lane may go into one request."""
    taken, high, before_last = 0, -1, 0
    block: list[Row] = []
    last: list[Row] = []
    rows = iter(lane)
    row = next(rows, None)
    while row is not None:
        block = [row]
        for row in rows:
            if row.request != block[0].request or row.origin != block[0].origin:
                break
            block.append(row)
        else:
            row = None
        if last and not _joins(last[-1], high, block):
            break
        complete = row is not None or at_end
        if not complete or taken + len(block) > room:
            if taken == 0 and may_cut and len(block) > room:
                return _cut(block, room)
            break
        before_last, taken = taken, taken + len(block)
        last = block
        high = max(high, *(each.ts_ms for each in block))
    return before_last if before_last and _hides_its_resend(last) else taken


def _joins(before: Row, high: int, block: Sequence[Row]) -> bool:
    """Whether a request may go into the frame of those before it, whose latest time is `high`."""
    if before.origin != block[0].origin:
        return False
    if any(row.coarse and not row.is_archived for row in (before, *block)):
        return False
    return min(row.ts_ms for row in block) > high


def _hides_its_resend(last: Sequence[Row]) -> bool:
    """Whether the fold would count this request twice if it ended a merged one and came again."""
    return any(row.has_deals for row in last) and len({row.ts_ms for row in last}) == 1


def _cut(block: Sequence[Row], room: int) -> int:
    """Where a request larger than a batch is cut: at the last change of time within the room, else at the room."""
    for end in range(room, 0, -1):
        if block[end].ts_ms != block[end - 1].ts_ms:
            return end
    return room


def halves(parts: Sequence[Part]) -> Sequence[Sequence[Part]]:
    """Two requests instead of one that is too large; of equal times only those of a single timestamp are parted.

    A request of a single row stays as it is.
    """
    if len(parts) > 1:
        middle = len(parts) // 2
        return parts[:middle], parts[middle:]
    part = parts[0]
    if len(part) == 1:
        return (parts,)
    end = middle_change([row.ts_ms for row in part])
    return [part[:end]], [part[end:]]
