"""Live candles from one reader to many streams, each at its own pace.

A worker that has lost a minute, because it restarted or because the minute was long over, folds the ticks that come
late alone: its candle is a part of the minute. So no candle is sent that lacks what the database holds, or that has
fewer ticks than what was sent before. Which of two candles stays is decided by `marketdata.rule`, as in the sink:

- The newest minutes of a feed are followed: a candle that contains the one before it is sent at once.
- The first candle of a minute waits until the database was asked what it holds.
- Of every other minute (long over, stamped ahead, folded in parts) the database's row is sent as soon as it contains
  the candle.

While the database is away, the newest minute goes on unconfirmed.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, KeysView, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from dashboard.stream import Feed, Subscription, Update
from marketdata.candle import Candle
from marketdata.rule import Verdict, outweighs, verdict
from marketdata.tick import MINUTE_MS

#: A feed and the start of one of its minutes.
Key = tuple[Feed, int]

#: Minutes of each feed that a new stream begins with: the database may be a moment behind.
_REMEMBERED_MINUTES: Final = 10
#: Minutes of all feeds together, 1 kB each: with more than 10,000 feeds each has fewer, but never fewer than its moving
#: ones. A stream that follows so many is told to read the database anyway.
MAX_REMEMBERED: Final = 100_000
#: Of these, the newest are sent as they move; clients fold them into the newest two bars of any timeframe.
_MOVING_MINUTES: Final = 2
#: Minutes whose last change is remembered for streams that resume.
_JOURNAL_MINUTES: Final = 5_000

#: The database is asked about a minute at once, then after pauses (seconds) that are a share of how long it has waited:
#: the sink takes some 10 ms, a fold of late ticks with the rest up to ten seconds.
_FIRST_PAUSE_SECONDS: Final = 0.03
_LONGEST_PAUSE_SECONDS: Final = 5.0
_PAUSE_SHARE: Final = 0.1
#: A minute that the database does not come to hold within this time is given up: clients read what there is.
_PATIENCE_SECONDS: Final = 600.0
#: Minutes that may wait for the database, and those of one question.
MAX_WAITING: Final = 20_000
_ASKED_AT_ONCE: Final = 500
#: Folds of one minute, none of which contains another, that are held at most.
_MAX_PARTS: Final = 32


@dataclass(slots=True)
class Waiting:
    """Candles of one minute about which the database is asked until it holds them."""

    since: float
    ask_at: float
    #: None of them contains another.
    candles: list[Candle] = field(default_factory=list)
    #: What the database held when it was asked before.
    row: Candle | None = None

    def add(self, candle: Candle) -> None:
        """Wait for this candle as well."""
        others = []
        for known in self.candles:
            joined = _joined(known, candle)
            if joined is None:
                others.append(known)
            else:
                candle = joined
        self.candles = [*others, candle][-_MAX_PARTS:]

    def postpone(self, now: float) -> None:
        """Ask again after a pause."""
        pause = max(_FIRST_PAUSE_SECONDS, (now - self.since) * _PAUSE_SHARE)
        self.ask_at = now + min(_LONGEST_PAUSE_SECONDS, pause)


class Hub:
    """The newest minutes of every feed, the minutes that wait for the database, and the streams that follow."""

    def __init__(
        self,
        on_resync: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._on_resync = on_resync
        self._clock = clock
        self._minutes: dict[Feed, dict[int, Candle]] = {}
        self._waiting: dict[Key, Waiting] = {}
        #: First minute of those that were too many to wait for.
        self._given_up: dict[Feed, int] = {}
        self._database_answers = True
        self._subscriptions: set[Subscription] = set()
        # Tells positions of this process from those of another, or from before a gap, which cannot be resumed.
        self._epoch = f"{time.time_ns():x}"
        self._sequence = 0
        self._journal: OrderedDict[Key, tuple[int, Update]] = OrderedDict()
        self._journal_begins = 0
        #: The log that the ticks are in now; candles of another lose against it where they have as many ticks.
        self.own_log = ""

    def __len__(self) -> int:
        return len(self._subscriptions)

    @property
    def position(self) -> str:
        """The end of what was sent so far; a stream that is resumed from here misses nothing."""
        return f"{self._epoch}-{self._sequence}"

    def newest(self) -> dict[Feed, Candle]:
        """The newest candle of each feed."""
        return {feed: minutes[max(minutes)] for feed, minutes in self._minutes.items()}

    def feeds(self) -> KeysView[Feed]:
        """The feeds that have a newest candle."""
        return self._minutes.keys()

    def newest_of(self, feed: Feed) -> Candle | None:
        """The newest candle of one feed."""
        minutes = self._minutes.get(feed)
        return minutes[max(minutes)] if minutes else None

    # --- streams ---

    def subscribe(
        self, symbols: frozenset[str] | None = None, source: str | None = None, since: str | None = None
    ) -> Subscription:
        """A subscription that begins with the newest minutes of its feeds.

        With `since`, the position of an earlier stream, it begins with everything that was sent after that instead, or
        with a resync where that is no longer known.
        """
        subscription = Subscription(lambda: self.position, lambda: len(self), symbols, source)
        self._subscriptions.add(subscription)
        if since is not None:
            missed = self._changes_after(since)
            if missed is not None:
                for update in missed:
                    self._offer(subscription, update)
                return subscription
            subscription.offer_resync()
        for minutes in self._minutes.values():
            for _, candle in sorted(minutes.items()):
                self._offer(subscription, Update(candle, stored=False))
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a stream that ended."""
        self._subscriptions.discard(subscription)

    def broadcast(self, status: bytes) -> None:
        """Hand the pipeline's status to every stream."""
        for subscription in self._subscriptions:
            subscription.offer_status(status)

    def restart(self) -> None:
        """Forget what was followed: records of the candles topic may have been missed."""
        self._minutes.clear()
        self._journal.clear()
        self._epoch = f"{time.time_ns():x}"
        self._sequence = self._journal_begins = 0
        for subscription in self._subscriptions:
            subscription.offer_resync()

    def close(self) -> None:
        """End every stream."""
        for subscription in self._subscriptions:
            subscription.end()

    # --- candles ---

    def publish(self, candle: Candle) -> int:
        """Take a candle from the topic; returns the number of ticks that it is known to add."""
        key = ((candle.source, candle.symbol), candle.ts)
        known = self._known(key)
        if known is None:
            is_new = key not in self._waiting and self._is_newest(key)
            self._wait_for(key, candle)
            if is_new and not self._database_answers:
                self._send_unconfirmed(key)
            return candle.volume if is_new else 0
        joined = _joined(known, candle)
        if joined is known:
            return 0
        if joined is None or not self._is_moving(key):
            self._wait_for(key, candle)
            return 0
        self._send(key, Update(joined, stored=False))
        return max(0, joined.volume - known.volume)

    # --- rows of the database ---

    def due(self) -> list[Key]:
        """Minutes to ask the database about now; the newest first."""
        now = self._clock()
        keys = [key for key, waiting in self._waiting.items() if waiting.ask_at <= now]
        return sorted(keys, key=lambda key: key[1], reverse=True)[:_ASKED_AT_ONCE]

    def settle(self, asked: Iterable[Key], rows: Mapping[Key, Candle]) -> None:
        """Take the rows that the database holds of the minutes in `asked`; a minute without one is not stored."""
        self._database_answers = True
        now = self._clock()
        for key in sorted(asked, key=lambda key: key[1]):
            if (waiting := self._waiting.get(key)) is None:
                continue
            self._take_row(key, waiting, rows.get(key))
            if not waiting.candles:
                del self._waiting[key]
            elif now - waiting.since > _PATIENCE_SECONDS:
                del self._waiting[key]
                self._send_stale(*key)
            else:
                waiting.postpone(now)
        self._send_given_up()

    def database_is_away(self, asked: Iterable[Key]) -> None:
        """Note that the database did not answer: the newest minutes go on unconfirmed, and are corrected afterwards."""
        self._database_answers = False
        now = self._clock()
        for key in asked:
            if (waiting := self._waiting.get(key)) is not None:
                waiting.postpone(now)
                if self._known(key) is None and self._is_newest(key):
                    self._send_unconfirmed(key)

    def _take_row(self, key: Key, waiting: Waiting, row: Candle | None) -> None:
        known, waited = self._known(key), waiting.candles
        is_other = row != waiting.row
        before, waiting.row = waiting.row, row
        row = _quoted_as(row, (*waited, *([known] if known is not None else [])))
        waiting.candles = [candle for candle in waited if row is None or not self._holds(row, candle)]
        if self._is_moving(key):
            # The widest candle that contains the row, stored or not.
            state = self._widest(row, (*waiting.candles, *([known] if known is not None else [])))
            is_news = state != known
        else:
            # Where the log cannot prove a fold of all candles, the row changes and holds none of them.
            state = row
            is_news = len(waiting.candles) < len(waited) or (before is not None and is_other)
        if state is None or not is_news:
            return
        if known is not None and not self._holds(state, known):
            # The fold of both has to come. Until then more ticks show more of the minute, as in the sink.
            waiting.add(known)
            if known.volume > state.volume:
                return
        self._send(key, Update(state, stored=state is row))

    def _widest(self, row: Candle | None, candles: Iterable[Candle]) -> Candle | None:
        state = row
        for candle in candles:
            joined = _joined(state, candle)
            if joined is not None:
                state = joined
            elif state is not None and state.log != candle.log and outweighs(candle, state, self.own_log):
                state = _in_place_of(state, candle)
        return state

    def _holds(self, row: Candle, candle: Candle) -> bool:
        """Whether the row lacks nothing that is in the candle."""
        if row.log != candle.log:
            return not outweighs(candle, row, self.own_log)
        return _joined(row, candle) is row

    def _known(self, key: Key) -> Candle | None:
        return self._minutes.get(key[0], {}).get(key[1])

    def _is_newest(self, key: Key) -> bool:
        minutes = self._minutes.get(key[0])
        return self._is_moving(key) and (not minutes or key[1] > max(minutes))

    def _is_moving(self, key: Key) -> bool:
        """Whether the minute is one of the newest of its feed, and not ahead of the clock."""
        feed, ts = key
        if ts > self._clock() * 1000 + MINUTE_MS:
            return False
        return sum(1 for minute in self._minutes.get(feed, ()) if minute > ts) < _MOVING_MINUTES

    def _wait_for(self, key: Key, candle: Candle) -> None:
        waiting = self._waiting.get(key)
        now = self._clock()
        if waiting is None:
            if len(self._waiting) >= MAX_WAITING:
                (feed, ts) = next(iter(self._waiting))
                del self._waiting[feed, ts]
                self._given_up[feed] = min(ts, self._given_up.get(feed, ts))
            waiting = self._waiting[key] = Waiting(since=now, ask_at=now)
        else:
            # It moves again: the long pauses are for minutes that nobody stores.
            waiting.ask_at = min(waiting.ask_at, now + _FIRST_PAUSE_SECONDS)
        waiting.add(candle)

    def _send_unconfirmed(self, key: Key) -> None:
        widest = max(self._waiting[key].candles, key=lambda candle: candle.volume)
        self._send(key, Update(widest, stored=False))

    # --- sending ---

    def _send(self, key: Key, update: Update) -> None:
        feed, ts = key
        if self._known(key) is not None or self._is_moving(key):
            minutes = self._minutes.setdefault(feed, {})
            minutes[ts] = update.candle
            most = max(_MOVING_MINUTES, min(_REMEMBERED_MINUTES, MAX_REMEMBERED // len(self._minutes)))
            while len(minutes) > most:
                del minutes[min(minutes)]
        self._sequence += 1
        self._journal.pop(key, None)
        self._journal[key] = (self._sequence, update)
        while len(self._journal) > _JOURNAL_MINUTES:
            _, (self._journal_begins, _) = self._journal.popitem(last=False)
        for subscription in self._subscriptions:
            self._offer(subscription, update)

    def _send_stale(self, feed: Feed, ts: int) -> None:
        self._sequence += 1
        # What has to be read again is not in the journal: a stream resumed from before it reads everything again.
        self._journal_begins = self._sequence
        for subscription in self._subscriptions:
            if subscription.wants(feed):
                subscription.offer_stale(feed, ts)

    def _send_given_up(self) -> None:
        # They are of a replay far ahead of the sink: when the rest of the feed is stored, so are they.
        if not self._given_up:
            return
        for feed in self._given_up.keys() - {feed for feed, _ in self._waiting}:
            self._send_stale(feed, self._given_up.pop(feed))

    def _offer(self, subscription: Subscription, update: Update) -> None:
        if subscription.wants((update.candle.source, update.candle.symbol)) and not subscription.offer(update):
            self._on_resync()

    def _changes_after(self, position: str) -> list[Update] | None:
        epoch, _, number = position.partition("-")
        if epoch != self._epoch or not (number.isascii() and number.isdecimal()):
            return None
        since = int(number)
        if not self._journal_begins <= since <= self._sequence:
            return None
        missed = []
        for sequence, update in reversed(self._journal.values()):
            if sequence <= since:
                break
            missed.append(update)
        return missed[::-1]


def _joined(known: Candle | None, candle: Candle) -> Candle | None:
    """The one of two candles of a minute that holds both; None where neither does, or where their logs differ."""
    match verdict(known, candle):
        case Verdict.INSERTED:
            return candle
        case Verdict.REPLACED if known is not None:
            return _in_place_of(known, candle)
        case Verdict.CLOSED if known is not None:
            return msgspec.structs.replace(known, closed=True)
        case Verdict.IGNORED:
            return known
        case _:
            return None


def _quoted_as(row: Candle | None, candles: Iterable[Candle]) -> Candle | None:
    """The row with bid and ask, which the table does not hold, from a candle of the same records."""
    for candle in candles:
        if row is not None and (row.log, row.offsets) == (candle.log, candle.offsets):
            return msgspec.structs.replace(row, bid=candle.bid, ask=candle.ask)
    return row


def _in_place_of(known: Candle, candle: Candle) -> Candle:
    """The candle that replaces a known one: what is closed stays closed."""
    return msgspec.structs.replace(candle, closed=True) if known.closed and not candle.closed else candle
