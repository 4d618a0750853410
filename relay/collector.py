"""`tickpipe relay collect`: takes every tick of the chosen symbols from this PC's terminal into `ea.db`, without an EA.

A turn looks at the newest quotes, reads the symbols that have moved, and stores their ticks in one transaction with how
far each symbol is; so a crash at any moment neither loses nor doubles one. The forwarder sends them like an EA's.
"""

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Final

import structlog

from marketdata.contract.http import Sender
from marketdata.contract.times import Clock
from marketdata.tick import Tick
from relay.back_channel import Wishes
from relay.database import StoreUnavailable
from relay.feed import Check, Feed, Totals, minute_of
from relay.filling import Filler
from relay.item import NewRow, read_item
from relay.store import Store
from relay.terminal import Account, NoTicks, Terminal, TerminalAway
from runtime.posting import wait_for

log = structlog.get_logger(__name__)

#: Pause between two turns, and while the terminal is away, which grows up to the last (seconds).
_TURN_SECONDS: Final = 0.25
_AWAY_SECONDS: Final = (1.0, 30.0)

#: How often symbols are looked for, and read though their quote has not moved (seconds).
_SYMBOLS_SECONDS: Final = 30.0
_ANYHOW_SECONDS: Final = 10.0

#: When nobody looked for so long, the list may have been filled from behind (seconds).
_LONG_PAUSE_SECONDS: Final = 30.0

#: A symbol in trouble is tried again after 1, 2, 4 … seconds, at most the last.
_RETRY_SECONDS: Final = 600.0

#: Times that are read again in one turn.
_CHECKS_OF_TURN: Final = 50

#: The broker's clock is a multiple of that away from UTC (ms), and known by so many quotes within so long (seconds).
_OFFSET_STEP_MS: Final = 900_000
_QUOTES: Final = 3
_QUOTES_SECONDS: Final = (2.0, 30.0)

_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS collected (
        server TEXT NOT NULL, symbol TEXT NOT NULL, msc INTEGER NOT NULL, checked_1 INTEGER NOT NULL,
        checked_10 INTEGER NOT NULL, checked_60 INTEGER NOT NULL, utc_offset_s INTEGER,
        PRIMARY KEY (server, symbol)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS collected_minutes (
        server TEXT NOT NULL, symbol TEXT NOT NULL, minute INTEGER NOT NULL, ticks INTEGER NOT NULL,
        sum INTEGER NOT NULL, PRIMARY KEY (server, symbol, minute)) WITHOUT ROWID""",
)


@dataclass
class Collected:
    """What a collector has done since it began, and how it stands."""

    server: str = ""
    symbols: int = 0
    ticks: int = 0
    late: int = 0
    #: Why nothing is collected now; empty while all is well.
    trouble: str = ""
    #: Symbols whose ticks cannot be read, with the terminal's error.
    waiting: Mapping[str, str] = field(default_factory=dict)


class BrokerClock:
    """How far the broker's clock is ahead of UTC, by the quotes that arrive: the package does not say that clock.

    A quote counts when it has just moved: one that is merely the newest may be of Friday. Of those of half a minute the
    latest decides, for one that moved may still be an old one that came after a reconnection.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self.offset_seconds: int | None = None

    @property
    def is_sure(self) -> bool:
        """Whether the newest quote agrees: else the clock may have been changed just now."""
        return bool(self._seen) and self._seen[-1][1] == self.offset_seconds

    def note(self, quote_msc: int, utc_ms: int, now: float) -> None:
        """A quote has arrived."""
        steps = round((quote_msc - utc_ms) / _OFFSET_STEP_MS)
        self._seen.append((now, steps * _OFFSET_STEP_MS // 1000))
        while now - self._seen[0][0] > _QUOTES_SECONDS[1]:
            self._seen.popleft()
        latest = max(offset for _, offset in self._seen)
        times = [at for at, offset in self._seen if offset == latest]
        if len(times) >= _QUOTES and times[-1] - times[0] >= _QUOTES_SECONDS[0]:
            self.offset_seconds = latest


class Collector:
    """Collects until `stop` is set.

    Args:
        store: where ticks go.
        terminal: where they come from.
        wanted: wildcards of symbols; none is what the Market Watch shows.
        since_seconds: how long before its newest quote a symbol begins of which nothing was taken yet.
        offset: of the broker's clock from UTC (seconds); None goes by the quotes, and `server` leaves it to the server.
    """

    def __init__(
        self, store: Store, terminal: Terminal, *, wanted: Sequence[str] = (), since_seconds: float = 0.0,
        offset: int | str | None = None, monotonic: Callable[[], float] = time.monotonic,
        utc: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.collected = Collected()
        self._store, self._terminal, self._wanted = store, terminal, wanted
        self._since_ms, self._offset = round(since_seconds * 1000), offset
        self._monotonic, self._utc = monotonic, utc
        self._clock = BrokerClock()
        self._feeds: dict[str, Feed] = {}
        self._account = Account("", "")
        self._symbols_at = self._anyhow_at = self._looked_at = -1e9
        #: The newest quote of all symbols, and when it was seen.
        self._newest: tuple[int, float] = (0, 0.0)
        self._check_turn = 0
        #: Wildcards that match no symbol, each said once.
        self._unknown: set[str] = set()
        self._is_waiting_said = False
        self._filler: Filler | None = None
        store.run(lambda connection: [connection.execute(table) for table in _TABLES])

    def fill(self, wishes: Wishes) -> None:
        """Fill what the server wants as well."""
        self._filler = Filler(self._store, self._terminal, wishes, self._filled_rows, self._monotonic)

    def run(self, stop: threading.Event) -> None:
        """Collect."""
        pause = _AWAY_SECONDS[0]
        while not stop.is_set():
            try:
                self._terminal.connect()
                while not stop.is_set():
                    self.turn(stop)
                    pause = _AWAY_SECONDS[0]
                    wait_for(stop, _TURN_SECONDS)
            except (TerminalAway, StoreUnavailable) as exc:
                self._say_trouble(str(exc))
                wait_for(stop, pause)
                pause = min(_AWAY_SECONDS[1], 2 * pause)
            finally:
                self._terminal.close()

    def turn(self, stop: threading.Event | None = None) -> None:
        """Take what is new, and read again what is due.

        Raises:
            TerminalAway, StoreUnavailable: nothing of what was not stored is lost; the next turn goes on there.
        """
        now = self._monotonic()
        self._log_in()
        if now - self._looked_at > _LONG_PAUSE_SECONDS:
            for feed in self._feeds.values():
                feed.hold()
        self._looked_at = now
        if now - self._symbols_at >= _SYMBOLS_SECONDS:
            self._symbols_at = now
            self._choose(self._terminal.symbols(self._wanted))
        self._look(now)
        if self.collected.trouble:
            log.info("The terminal gives ticks again.", action="collect_recovered")
            self.collected.trouble = ""
        if self._offset is None and not self._clock.is_sure:
            if not self._is_waiting_said:
                self._is_waiting_said = True
                log.info("Waiting for quotes that move, to learn the broker's clock.", action="collect_waits")
            return
        ended, offset = stop or threading.Event(), self._offset_seconds()
        for feed in self._feeds.values():
            feed.go_by(offset)
        self._read(now, ended)
        self._check(now, ended)
        if self._filler is not None:
            if self._clock.is_sure and self._clock.offset_seconds is not None:
                self._filler.history.note(self._clock.offset_seconds, self._utc())
            self._filler.turn(self._account, self._feeds, self._offset)

    def _offset_seconds(self) -> int | None:
        """Of the broker's clock from UTC; None leaves it to the server."""
        offset = self._clock.offset_seconds if self._offset is None else self._offset
        return offset if isinstance(offset, int) else None

    def _log_in(self) -> None:
        account = self._terminal.account()
        if account == self._account:
            return
        log.info(f"Collecting from {account.server}.", action="collect_account", server=account.server)
        self._account, self._feeds, self._clock = account, {}, BrokerClock()
        self.collected.server = account.server
        self._symbols_at = -1e9

    def _say_trouble(self, text: str) -> None:
        if text != self.collected.trouble:
            log.warning(f"{text.rstrip('.')}; nothing is lost, it is tried again.", action="collect_away")
        self.collected.trouble = text
        for feed in self._feeds.values():
            feed.hold()

    def _choose(self, names: Iterable[str]) -> None:
        """Collect these; one that is gone goes on where it was when it is back."""
        names = list(names)
        for pattern in self._wanted:
            if pattern not in self._unknown and not any(fnmatchcase(name, pattern) for name in names):
                self._unknown.add(pattern)
                log.warning(f"The broker has no symbol {pattern}.", action="collect_unknown", symbol=pattern)
        for symbol in names:
            if symbol not in self._feeds and (feed := self._begin(symbol)) is not None:
                self._feeds[symbol] = feed
        self.collected.symbols = len(self._feeds)

    def _begin(self, symbol: str) -> Feed | None:
        """The feed as it was stored, else from the newest quote on; None before there is one."""
        connection, key = self._store.connection, [self._account.server, symbol]
        columns = (
            "SELECT msc, checked_1, checked_10, checked_60, utc_offset_s FROM collected WHERE server = ? AND symbol = ?"
        )
        if (row := connection.execute(columns, key).fetchone()) is not None:
            minutes = "SELECT minute, ticks, sum FROM collected_minutes WHERE server = ? AND symbol = ?"
            totals = {minute: Totals(ticks, total) for minute, ticks, total in connection.execute(minutes, key)}
            return Feed(symbol, row[0], list(row[1:4]), totals, row[4])
        try:
            self._terminal.facts(symbol)
            newest = self._terminal.newest_msc(symbol)
        except NoTicks:
            return None
        if not newest:
            return None
        feed = Feed.begin(symbol, newest - self._since_ms - 1)
        self._store.run(lambda connection: self._save(connection, feed, ()))
        return feed

    def _look(self, now: float) -> None:
        """Note which quotes have moved."""
        utc_ms = round(self._utc() * 1000)
        anyhow = now - self._anyhow_at >= _ANYHOW_SECONDS
        self._anyhow_at = now if anyhow else self._anyhow_at
        arrived = 0
        for feed in self._feeds.values():
            feed.has_more = feed.has_more or anyhow
            try:
                quote = self._terminal.newest_msc(feed.symbol)
            except NoTicks as exc:
                self._fail(feed, exc, now)
                continue
            if quote != feed.quote_msc:
                arrived = max(arrived, quote if feed.quote_msc else 0)
                feed.quote_msc, feed.has_more = quote, True
            if quote > self._newest[0]:
                self._newest = (quote, now)
        if arrived:
            self._clock.note(arrived, utc_ms, now)

    def _fail(self, feed: Feed, exc: NoTicks, now: float) -> None:
        if now < feed.retry_at:
            return
        if not feed.failures:
            log.warning(f"{feed.symbol}: the terminal gives no ticks ({exc}).", action="collect_no_ticks")
        feed.error = str(exc)
        feed.retry_at = now + min(_RETRY_SECONDS, 2.0**feed.failures)
        feed.failures = min(feed.failures + 1, 20)
        self._note_waiting()

    def _recover(self, feed: Feed) -> None:
        if feed.failures:
            feed.failures, feed.retry_at, feed.error = 0, 0.0, ""
            self._note_waiting()

    def _note_waiting(self) -> None:
        self.collected.waiting = {feed.symbol: feed.error for feed in self._feeds.values() if feed.error}

    def _read(self, now: float, stop: threading.Event) -> None:
        """Store the new ticks of all symbols, ready ones first; at most one that is in trouble has a try."""
        taken: list[tuple[Feed, list[Tick]]] = []
        has_tried = False
        for feed in sorted(self._feeds.values(), key=lambda feed: (bool(feed.failures), feed.retry_at)):
            if stop.is_set():
                return
            if not feed.has_more or (feed.failures and (has_tried or now < feed.retry_at)):
                continue
            has_tried = has_tried or bool(feed.failures)
            try:
                feed.facts = self._terminal.facts(feed.symbol)
                ticks = feed.read(self._terminal, now)
            except NoTicks as exc:
                self._fail(feed, exc, now)
                continue
            self._recover(feed)
            if ticks:
                taken.append((feed, ticks))
        if not taken:
            return
        rows = [row for feed, ticks in taken for row in self._rows(feed, ticks)]
        moved = [(feed, feed.copy(), ticks) for feed, ticks in taken]
        changed = [(after, after.advance(ticks)) for _, after, ticks in moved]

        def write(connection: sqlite3.Connection) -> None:
            self._store.add(connection, rows)
            for after, minutes in changed:
                self._save(connection, after, minutes)

        self._store.run(write)
        for feed, after, _ in moved:
            feed.msc, feed.minutes = after.msc, after.minutes
        self.collected.ticks += len(rows)

    def _check(self, now: float, stop: threading.Event) -> None:
        """Read again what is due, and send the minutes that have changed."""
        newest, seen_at = self._newest
        broker_now = newest + round((now - seen_at) * 1000)
        feeds = list(self._feeds.values())
        for number in range(min(_CHECKS_OF_TURN, len(feeds))):
            feed = feeds[(self._check_turn + number) % len(feeds)]
            check = feed.due(broker_now)
            if check is None or feed.failures or not feed.facts.mode or stop.is_set():
                continue
            try:
                changed = feed.changed(self._terminal, check)
                if changed is None:
                    continue
                before = {minute: feed.before(self._terminal, minute, ticks) for minute, ticks in changed.items()}
            except NoTicks as exc:
                self._fail(feed, exc, now)
                continue
            again = {minute: [*first, *changed[minute]] for minute, first in before.items() if first is not None}
            if len(again) == len(changed):
                self._send_again(feed, check, changed, again)
        self._check_turn += _CHECKS_OF_TURN

    def _send_again(
        self, feed: Feed, check: Check, changed: dict[int, list[Tick]], again: Mapping[int, list[Tick]]
    ) -> None:
        late = {minute: len(ticks) - feed.minutes.get(minute, Totals()).ticks for minute, ticks in changed.items()}
        after = feed.copy()
        after.done(check, changed)

        def write(connection: sqlite3.Connection) -> None:
            for minute, ticks in again.items():
                # A request of its own: the server takes what goes back for a resend, and counts what is new in it.
                self._store.add(connection, self._rows(feed, ticks, late[minute]))
            self._save(connection, after, changed)

        self._store.run(write)
        feed.checked, feed.minutes = after.checked, after.minutes
        if count := sum(late.values()):
            self.collected.late += count
            log.info(f"{feed.symbol}: {count} ticks came late.", action="collect_late", ticks=count)

    def _filled_rows(self, feed: Feed, ticks: Sequence[Tick], offset: int | None) -> list[NewRow]:
        return self._rows(replace(feed, offset=offset), ticks, is_fill=True)

    def _rows(self, feed: Feed, ticks: Sequence[Tick], late: int = 0, *, is_fill: bool = False) -> list[NewRow]:
        """Ticks as the EA posts them; of the last `late` it says that they came late."""
        sender = Sender(server=self._account.server, account=self._account.name)
        clock, (digits, point, mode) = Clock(None, None), feed.facts
        rows = []
        for left, tick in zip(range(len(ticks), 0, -1), ticks, strict=True):
            item: dict[str, Any] = {
                "time_msc": tick.time_msc, "symbol": feed.symbol, "bid": tick.bid, "ask": tick.ask, "last": tick.last,
                "volume_real": tick.volume, "flags": tick.flags, "digits": digits, "point": point, "mode": mode,
            }  # fmt: skip
            if left <= late:
                item["late"] = True
            known: dict[str, Any] = {
                "utc_offset_seconds": feed.offset,
                "source": None,
                "sender": sender,
                "is_fill": is_fill,
            }
            rows.append(read_item(item, clock, **known))
        return rows

    def _save(self, connection: sqlite3.Connection, feed: Feed, minutes: Iterable[int]) -> None:
        server = self._account.server
        values = [server, feed.symbol, feed.msc, *feed.checked, feed.offset]
        connection.execute("INSERT OR REPLACE INTO collected VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        connection.executemany(
            "INSERT OR REPLACE INTO collected_minutes VALUES (?, ?, ?, ?, ?)",
            [(server, feed.symbol, minute, *feed.minutes[minute]) for minute in minutes if minute in feed.minutes],
        )
        connection.execute(
            "DELETE FROM collected_minutes WHERE server = ? AND symbol = ? AND minute < ?",
            [server, feed.symbol, min(feed.minutes, default=minute_of(min(feed.checked)))],
        )
