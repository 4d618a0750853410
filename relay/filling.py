"""Sends what the server lacks: the ranges that it names are read from the terminal's history, behind live ticks.

The server names times in UTC, the terminal has the broker's clock. Which offset that had is known of the time in which
it was seen, and before that back to the last day on which clocks are usually changed.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import structlog

from marketdata.contract.http import Wanted
from marketdata.tick import Tick
from relay.back_channel import Wishes, add_reports
from relay.feed import Feed, Totals, minute_of
from relay.item import Facts, NewRow
from relay.store import Store
from relay.terminal import Account, NoTicks, Terminal

log = structlog.get_logger(__name__)

#: A reading counts when another one, so much later, gave the same (seconds).
_AGREE_SECONDS: Final = 2.0

#: After so many readings without a whole answer, 1, 2, 4 … seconds apart, the server is told.
_TRIES: Final = 5

#: A bar that counts more ticks than its minute has is given in to after so many: the broker may count otherwise.
_SHORT_TRIES: Final = 10

#: A range that was reported is not read again for so long; one of a symbol that is not collected is left to others
#: (seconds).
_REPORTED_SECONDS: Final = 3_600.0
_OTHERS_SECONDS: Final = 600.0

#: Ticks of one request, and of one turn: live ticks go between.
_PIECE: Final = 5_000

#: The hour that a clock shows twice is no further from the change.
_NEAR_CHANGE: Final = timedelta(hours=6)

#: Stores rows: the feed, its ticks, and the offset that is said with them (seconds).
RowsOf = Callable[[Feed, Sequence[Tick], int | None], list[NewRow]]


@dataclass
class _Span:
    """A time in which the broker's clock was seen with one offset (UTC, seconds)."""

    offset: int
    first: float
    last: float


class ClockHistory:
    """Which offset from UTC the broker's clock had (seconds)."""

    def __init__(self) -> None:
        self._spans: list[_Span] = []

    def note(self, offset: int, utc: float) -> None:
        """It has this offset now."""
        if self._spans and self._spans[-1].offset == offset:
            self._spans[-1].last = max(self._spans[-1].last, utc)
        else:
            self._spans.append(_Span(offset, utc, utc))

    def offset_over(self, from_seconds: float, to_seconds: float) -> int | None:
        """The offset all the time from one moment to another (UTC); None where it is not known, or its clock showed a
        part of that time twice.
        """
        for number, span in enumerate(self._spans):
            if to_seconds > span.last:
                continue
            if from_seconds < span.first and (number or _may_have_changed(from_seconds, span.first)):
                return None
            local = from_seconds + span.offset, to_seconds + span.offset
            return None if self._was_shown_twice(*local) else span.offset
        return None

    def _was_shown_twice(self, first: float, last: float) -> bool:
        return any(
            after.offset < before.offset and first <= after.first + before.offset and last >= before.last + after.offset
            for before, after in zip(self._spans, self._spans[1:], strict=False)
        )


def _may_have_changed(from_seconds: float, to_seconds: float) -> bool:
    day = datetime.fromtimestamp(from_seconds, UTC) - _NEAR_CHANGE
    end = datetime.fromtimestamp(to_seconds, UTC)
    while day.date() <= end.date():
        if _is_change_day(day):
            return True
        day += timedelta(days=1)
    return False


def _is_change_day(day: datetime) -> bool:
    """Whether Europe, North America or Australia change their clocks on that day."""
    if day.isoweekday() != 7:
        return False
    if day.month == 3:
        return day.day >= 25 or 8 <= day.day <= 14
    if day.month == 10:
        return day.day >= 25 or day.day <= 7
    return day.month in (4, 11) and day.day <= 7


@dataclass
class _Progress:
    """How far a range is."""

    since: float
    #: What the first reading gave.
    totals: Totals | None = None
    failures: int = 0
    not_before: float = 0.0
    reported_at: float | None = None


@dataclass
class _Sending:
    """A range that was read whole, of which a piece a turn is stored."""

    wanted: Wanted
    account: Account
    pieces: deque[Sequence[Tick]]
    offset: int | None
    #: What is reported in the end.
    outcome: Mapping[str, int | str]


@dataclass
class Filler:
    """Fills what `wishes` has for the account's source, one reading or one request of ticks a turn."""

    store: Store
    terminal: Terminal
    wishes: Wishes
    rows_of: RowsOf
    monotonic: Callable[[], float] = time.monotonic
    history: ClockHistory = field(default_factory=ClockHistory)
    filled: int = 0
    _known: dict[Wanted, _Progress] = field(default_factory=dict)
    _sending: _Sending | None = None

    def turn(self, account: Account, feeds: Mapping[str, Feed], fixed: int | str | None) -> None:
        """Read one range, or send a piece of it.

        `fixed` is the offset that the user set, `server`, or None (see Collector).

        Raises:
            StoreUnavailable: the range is read again.
        """
        self.wishes.note_sender(account.server)
        if self._sending is not None:
            self._send_piece(self._sending, account, feeds)
            return
        now = self.monotonic()
        ranges = self.wishes.of(account.server)
        self._known = {
            wanted: progress
            for wanted, progress in self._known.items()
            if wanted in ranges or now - (progress.reported_at or now) < _REPORTED_SECONDS
        }
        for wanted in ranges:
            progress = self._known.setdefault(wanted, _Progress(now))
            if progress.reported_at is not None and now - progress.reported_at >= _REPORTED_SECONDS:
                progress = self._known[wanted] = _Progress(now)
            if progress.reported_at is None and progress.not_before <= now and self._try(wanted, account, feeds, fixed):
                return

    def _try(self, wanted: Wanted, account: Account, feeds: Mapping[str, Feed], fixed: int | str | None) -> bool:
        """Whether that was all for this turn."""
        progress, now = self._known[wanted], self.monotonic()
        feed = feeds.get(wanted.symbol)
        if feed is None:
            if now - progress.since >= _OTHERS_SECONDS:
                self._fail(wanted, account, "this program does not collect the symbol")
            return False
        seen = self.history.offset_over(wanted.from_ms / 1000, wanted.to_ms / 1000)
        offset = fixed if isinstance(fixed, int) else seen
        if offset is None:
            self._fail(wanted, account, "the broker's clock may have been another one then, or showed that time twice")
            return True
        end_msc = wanted.to_ms + offset * 1000
        if feed.failures or feed.is_holding or not feed.facts.mode or (feed.has_more and feed.msc < end_msc - 1):
            return False
        return self._read(wanted, account, feed, offset, None if fixed == "server" else offset)

    def _read(self, wanted: Wanted, account: Account, feed: Feed, offset: int, said: int | None) -> bool:
        progress, now = self._known[wanted], self.monotonic()
        from_msc, end_msc = wanted.from_ms + offset * 1000, wanted.to_ms + offset * 1000
        try:
            ticks = self.terminal.ticks_between(wanted.symbol, from_msc, end_msc)
        except NoTicks as exc:
            progress.totals = None
            if self._is_last_try(progress, _TRIES):
                self._fail(wanted, account, str(exc))
            return True
        # What is behind the cursor comes by itself.
        fresh = [tick for tick in ticks if tick.time_msc <= feed.msc]
        totals = Totals().plus(ticks)
        if progress.totals != totals or (fresh and fresh[0].time_msc == feed.msc):
            # The newest millisecond alone would not go back, by which the server knows what it has.
            progress.totals, progress.not_before = totals, now + _AGREE_SECONDS
            return True
        why, tries = self._doubt(wanted.symbol, ticks, from_msc, end_msc)
        if tries and not self._is_last_try(progress, tries):
            return True
        if why and not ticks:
            self._fail(wanted, account, why)
            return True
        outcome: dict[str, int | str] = {"error": why} if why else {"ticks": len(ticks)}
        self._sending = _Sending(wanted, account, deque(_pieces(fresh)), said, outcome)
        self._send_piece(self._sending, account, {feed.symbol: feed})
        return True

    def _is_last_try(self, progress: _Progress, tries: int) -> bool:
        progress.failures += 1
        progress.not_before = self.monotonic() + 2.0 ** (progress.failures - 1)
        return progress.failures >= tries

    def _doubt(self, symbol: str, ticks: Sequence[Tick], from_msc: int, end_msc: int) -> tuple[str, int]:
        """Why ticks may not be all, by the terminal's bars, and how many readings that is worth; 0 when they are.

        A terminal that is loading its history may give fewer ticks, or none, and no error. Without a reason the broker
        may count its ticks otherwise.
        """
        try:
            bars = self.terminal.bars_between(symbol, from_msc, end_msc)
        except NoTicks:
            return ("", 0) if ticks else ("the terminal has no ticks of it, and its bars cannot be read", _TRIES)
        counts = Counter(minute_of(tick.time_msc) for tick in ticks)
        if any(not counts[minute] for minute in bars):
            return "the terminal has bars of it, but not all the ticks", _TRIES
        return "", _SHORT_TRIES if any(counts[minute] < volume for minute, volume in bars.items()) else 0

    def _send_piece(self, sending: _Sending, account: Account, feeds: Mapping[str, Feed]) -> None:
        feed = feeds.get(sending.wanted.symbol)
        if account != sending.account or feed is None or sending.wanted not in self._known:
            self._sending = None  # it is read again where it is still wanted
            return
        if sending.pieces:
            rows = self.rows_of(feed, sending.pieces[0], sending.offset)
            self.store.run(lambda connection: self.store.add(connection, rows))
            self.filled += len(sending.pieces.popleft())
        if not sending.pieces:
            self._report(sending.wanted, account, sending.outcome)
            self._sending = None

    def _fail(self, wanted: Wanted, account: Account, error: str) -> None:
        begin = datetime.fromtimestamp(wanted.from_ms / 1000, UTC)
        log.warning(
            f"{wanted.symbol}: the server lacks ticks from {begin:%Y-%m-%d %H:%M} UTC, which cannot be sent: {error}.",
            action="fill_failed", symbol=wanted.symbol,
        )  # fmt: skip
        self._report(wanted, account, {"error": error[:200]})

    def _report(self, wanted: Wanted, account: Account, outcome: Mapping[str, int | str]) -> None:
        report = {"symbol": wanted.symbol, "from": wanted.from_ms, "to": wanted.to_ms, **outcome}
        body = msgspec.json.encode({"fills": [report]})
        facts = Facts(server=account.server, account=account.name)
        self.store.run(lambda connection: add_reports(connection, body, facts))
        self._known[wanted].reported_at = self.monotonic()


def _pieces(ticks: Sequence[Tick]) -> Iterator[Sequence[Tick]]:
    """Requests of whole milliseconds."""
    begin = 0
    while begin < len(ticks):
        end = min(begin + _PIECE, len(ticks))
        while end < len(ticks) and ticks[end].time_msc == ticks[end - 1].time_msc:
            end += 1
        yield ticks[begin:end]
        begin = end
