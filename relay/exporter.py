"""`tickpipe relay export`: one run that sends stored ticks, or M1 bars folded from them.

Bars are for servers that take no ticks; they are folded by the rules of the server's own fold.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Literal, NamedTuple

import msgspec
from tenacity import Retrying

from marketdata.contract.http import source_header
from marketdata.contract.tick import read_tick
from marketdata.errors import InvalidItem, TickpipeError
from marketdata.fold import CandleFold, split_by_period
from marketdata.resends import Passes
from marketdata.tick import Frame, Tick
from relay.forwarder import Forwarder, Waiting
from relay.lanes import Origin, Part
from relay.pending import Pages, Pending, count_pending
from relay.server import Server
from relay.store import Store
from runtime.posting import NoSuchEndpoint, Result, ServerRefused, new_retrying, send_split

Aggregate = Literal["auto", "none", "M1"]

BARS_PATH: Final = "/ingest"

#: How long a server may be away before the run ends (seconds).
_PATIENCE_SECONDS: Final = 300.0

#: `created_at` where the file has it, the ticks' own time elsewhere.
_SINCE: Final = """CASE WHEN typeof(created_at) = 'text' THEN replace(created_at, 'T', ' ') >= :text
 ELSE ts_ms >= :ms END"""


@dataclass(frozen=True)
class Choice:
    """Which rows a run sends."""

    #: Everything that an earlier run of the same address has not sent; otherwise the newest `limit` rows, or all.
    all_rows: bool = False
    limit: int | None = None
    since_minutes: int | None = None
    page: int = 1_000


@dataclass
class Report:
    """What a run has done."""

    sent: int = 0
    rejected: int = 0
    bars: int = 0
    #: Why bars were sent instead of ticks.
    why_bars: str = ""


class Selection(Pages):
    """The newest rows of a choice; no cursor is stored."""

    def __init__(self, store: Store, choice: Choice, **options: Any) -> None:
        where, values = "1", {"text": "", "ms": 0}
        if choice.since_minutes is not None:
            moment = datetime.now(UTC) - timedelta(minutes=choice.since_minutes)
            where = _SINCE
            values = {
                "text": moment.replace(tzinfo=None).isoformat(" ", "seconds"), "ms": int(moment.timestamp() * 1000)
            }  # fmt: skip
        newest = f"SELECT id FROM ticks WHERE {where} ORDER BY id DESC LIMIT :limit"  # noqa: S608  # a constant
        query = f"SELECT count(*), ifnull(min(id), 0), ifnull(max(id), -1) FROM ({newest})"  # noqa: S608  # as above
        limit = -1 if choice.limit is None else choice.limit
        count, first, last = store.connection.execute(query, {**values, "limit": limit}).fetchone()
        self.count = int(count)
        # What is stored during the run is not of this choice.
        super().__init__(
            store, next_id=first, where=f"id <= :last AND {where}", values={**values, "last": last}, **options
        )


class Export:
    """One run against one address."""

    def __init__(
        self, store: Store, server: Server, choice: Choice, *, endpoint: str, batch: int,
        on_progress: Callable[[int], None] = lambda sent: None,
        on_wait: Callable[[str, float], None] = lambda why, seconds: None,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:  # fmt: skip
        self.report = Report()
        self._store, self._server, self._choice = store, server, choice
        self._endpoint, self._batch = endpoint, batch
        self._on_progress, self._on_wait = on_progress, on_wait
        self._patience_seconds = patience_seconds

    @property
    def cursor(self) -> str:
        """The name of the cursor of runs with `all_rows`."""
        return f"export {self._server.url}{self._endpoint}"

    def count(self) -> int:
        """How many rows a run would send."""
        if self._choice.all_rows:
            return count_pending(self._store.connection, self.cursor)
        return self._selection().count

    def run(self, aggregate: Aggregate) -> Report:
        """Send the rows.

        Raises:
            ServerUnavailable: the server was away for too long; a run with `all_rows` goes on from there.
            ServerRefused, SettingsError: the key or the address is wrong.
        """
        if aggregate == "M1":
            self._send_bars()
            return self.report
        try:
            self._send_ticks()
        except NoSuchEndpoint:
            if aggregate == "none" or self.report.sent:
                raise
            self.report.why_bars = f"{self._server.url}{self._endpoint} does not exist (404)"
            self._send_bars()
        return self.report

    def _waiting(self) -> Waiting:
        return Pending(self._store, self.cursor, **self._paging) if self._choice.all_rows else self._selection()

    def _selection(self) -> Selection:
        return Selection(self._store, self._choice, **self._paging)

    @property
    def _paging(self) -> dict[str, Any]:
        return {
            "limit": self._batch, "page": max(self._choice.page, self._batch), "ticks_path": self._endpoint
        }  # fmt: skip

    def _send_ticks(self) -> None:
        forwarder = Forwarder(
            self._store, self._server, self._waiting(), patience_seconds=self._patience_seconds, on_wait=self._on_wait
        )
        while forwarder.step():
            self.report.sent = forwarder.totals.forwarded
            self.report.rejected = forwarder.totals.rejected
            self._on_progress(self.report.sent + self.report.rejected)
        self.report.rejected = forwarder.totals.rejected

    def _send_bars(self) -> None:
        fold, seen = BarFold(), 0
        retrying = new_retrying(
            patience_seconds=self._patience_seconds,
            on_wait=lambda exc, seconds: self._on_wait(str(exc), seconds),
        )
        # Bars are replaced, so every run folds all of its rows again; only whole minutes are right.
        waiting = Pages(self._store, **self._paging) if self._choice.all_rows else self._selection()
        while parts := waiting.next_request():
            for part in parts:
                seen += len(part)
                if not part[0].is_bar:
                    fold.add(part)
                else:
                    self._count_bars(retrying(self._server.send, [part]))
            self._on_progress(seen)
        self.report.rejected += fold.unreadable
        for origin, items in by_origin(fold.bars(without_first=not self._choice.all_rows), self._batch):
            post = partial(self._post_bars, retrying, origin)
            for _, result in send_split(items, post, _halves):
                if isinstance(result, TickpipeError):
                    raise ServerRefused(f"the server refuses a bar: {result}") from result
                self._count_bars(result)

    def _post_bars(self, retrying: Retrying, origin: Origin, bars: Sequence[dict[str, Any]]) -> Result:
        body: dict[str, object] = {"items": bars}
        if origin.utc_offset_seconds is not None:
            body["utc_offset_s"] = origin.utc_offset_seconds
        result: Result = retrying(
            self._server.post, BARS_PATH, msgspec.json.encode(body), source_header(origin.source), len(bars)
        )
        return result

    def _count_bars(self, result: Result) -> None:
        self.report.rejected += result.errors
        self.report.bars += result.sent - result.errors


def _halves(bars: Sequence[dict[str, Any]]) -> Sequence[Sequence[dict[str, Any]]]:
    middle = len(bars) // 2
    return (bars[:middle], bars[middle:]) if middle else (bars,)


class Bar(NamedTuple):
    """A bar, and the origin that says by whose clock its time is."""

    origin: Origin
    item: dict[str, Any]


class BarFold:
    """Folds the ticks of all lanes; each lane is one symbol of one sender."""

    def __init__(self) -> None:
        self._passes: dict[str, Passes] = {}
        self._folds: dict[tuple[str, int], tuple[Origin, CandleFold]] = {}
        self._number = 0
        #: How many rows could not be read as ticks.
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
        passes.enter(frame, earliest, latest)
        for minute, ticks in minutes:
            key = (lane, minute)
            if key not in self._folds:
                self._folds[key] = (origin, CandleFold(frame.source, frame.symbol, minute))
            self._folds[key][1].add(self._number, 0, passes, frame, ticks)

    def bars(self, *, without_first: bool) -> Iterator[Bar]:
        """The bars in order of lane and time; `without_first` leaves out the first minute, which may lack rows."""
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
