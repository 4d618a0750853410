"""Sends pending rows to the server, one request at a time, each until it is confirmed.

A backlog goes first, in order: it drains at tens of thousands of ticks a second while an EA brings hundreds, so live
ticks wait seconds, and no tick overtakes another of its symbol, which the fold would take for a resend.

Rows that the server confirmed long ago are deleted, but not from an archive that was there before the relay.
"""

import math
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

import structlog

from marketdata.errors import TickpipeError
from relay.back_channel import Reports
from relay.damage import is_damaged
from relay.database import StoreUnavailable, is_created_here
from relay.lanes import Part, Row, halves
from relay.pending import FORWARD
from relay.server import Server
from relay.store import Store
from runtime.posting import (
    BodyRefused,
    BodyTooLarge,
    Result,
    ServerRefused,
    ServerUnavailable,
    SourceRefused,
    new_retrying,
    send_split,
    wait_for,
)

log = structlog.get_logger(__name__)

#: Rows of a request: of the EA's 250 bytes each this is 1.2 MB, a quarter of what the producer takes.
BATCH: Final = 5_000

#: After so many answered requests one twice as large is tried, where one was too large before.
_REQUESTS_BEFORE_LARGER: Final = 200

#: Pause between two looks at the database, where another process may have stored rows (seconds).
_LOOK_SECONDS: Final = 1.0

#: That the server is away is logged at most this often (seconds).
_REPEAT_SECONDS: Final = 60.0

#: How long confirmed rows stay in a file that the relay created (seconds).
_DEFAULT_SECONDS: Final = 7 * 86_400.0

#: How often old rows are deleted (seconds).
_EVERY_SECONDS: Final = 60.0

#: Rows deleted in one transaction: the EA waits for no more than that; and at a time, for new ticks wait meanwhile.
_STEP_ROWS: Final = 2_000
_TURN_ROWS: Final = 10_000


class Retention:
    """How long the rows of a store stay after the server has confirmed them.

    Args:
        store: the rows.
        seconds: running time of the relay after the confirmation, or infinity. None leaves it to the file: seven days
            in one that the relay created, for ever in one that was there before.
    """

    def __init__(self, store: Store, seconds: float | None = None) -> None:
        self._store = store
        self._is_archive = seconds is None and not is_created_here(store.connection)
        default = math.inf if self._is_archive else _DEFAULT_SECONDS
        self.seconds = default if seconds is None else seconds
        self._deleted_at = -math.inf
        #: Rows of the deletion in progress.
        self._deleted = 0

    def plan(self) -> str:
        """What will be deleted and when, for the log of a start."""
        if self._is_archive:
            return "No row is deleted: the file was there before the relay. --keep 7d asks for it."
        if math.isinf(self.seconds):
            return "No row is deleted (--keep forever)."
        plan = f"Rows are deleted {_spoken(self.seconds)} after the server has confirmed them"
        connection = self._store.connection
        first_at, before_id = connection.execute(
            "SELECT min(confirmed_at), max(next_id) FROM confirmed WHERE name = ?", [FORWARD]
        ).fetchone()
        if before_id is None:
            return f"{plan}; of those in the file none is confirmed yet."
        # By their ids, for to count them reads the whole file, while EAs wait for the relay to start.
        (first_id,) = connection.execute("SELECT ifnull(min(id), ?) FROM ticks", [before_id]).fetchone()
        rows = max(0, before_id - first_id)
        first = max(0.0, first_at + self.seconds - self._store.ran_seconds())
        return f"{plan}: up to {rows:,} of those in the file, the first of them in {_spoken(first)}."

    def delete_due(self) -> int:
        """Delete some of what is due, once a minute and as long as there is more; how many rows."""
        if math.isinf(self.seconds) or time.monotonic() - self._deleted_at < _EVERY_SECONDS:
            return 0
        self._deleted_at = time.monotonic()
        try:
            deleted = delete_old(self._store, self.seconds)
        except StoreUnavailable:
            return 0  # the store has reported it; the next minute is as good
        except sqlite3.DatabaseError as exc:
            if not is_damaged(exc):
                raise
            self.seconds = math.inf
            log.warning("Old rows lie on a damaged page of the file, so none is deleted.", action="store_undeletable")
            return 0
        self._deleted += deleted
        if deleted >= _TURN_ROWS:
            self._deleted_at = -math.inf
        elif self._deleted:
            log.info(
                f"{self._deleted:,} confirmed rows were old and are deleted.",
                action="store_deleted",
                rows=self._deleted,
            )
            self._deleted = 0
        return deleted


def delete_old(store: Store, retention_seconds: float, name: str = FORWARD) -> int:
    """Delete rows confirmed more than `retention_seconds` of running time ago, the oldest `_TURN_ROWS`; how many."""
    before_id = store.connection.execute(
        "SELECT max(next_id) FROM confirmed WHERE name = ? AND confirmed_at < ?",
        [name, store.ran_seconds() - retention_seconds],
    ).fetchone()[0]
    if before_id is None:
        return 0
    deleted = 0
    while deleted < _TURN_ROWS:
        count = store.delete_before(before_id, _STEP_ROWS)
        deleted += count
        if count < _STEP_ROWS:
            _forget(store, name, before_id)
            break
    return deleted


def _forget(store: Store, name: str, before_id: int) -> None:
    """What is known of rows that are gone."""
    statement = "DELETE FROM confirmed WHERE name = ? AND next_id < ?"
    store.run(lambda connection: connection.execute(statement, [name, before_id]))


def _spoken(seconds: float) -> str:
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            count = f"{seconds / size:.3g}"
            return f"{count} {unit}{'' if count == '1' else 's'}"
    return f"{seconds:.0f} seconds"


@dataclass
class Totals:
    """What a forwarder has done since it began."""

    forwarded: int = 0
    rejected: int = 0
    requests: int = 0
    retries: int = 0
    deleted: int = 0
    #: Why nothing is forwarded now, in a sentence and as a word; empty while all is well.
    trouble: str = ""
    cause: str = ""
    #: The newest error, also one that is over: when (UTC), and what it was.
    last_error: tuple[datetime, str] | None = None

    def fail(self, trouble: str, cause: str) -> None:
        """Note why nothing is forwarded from now on."""
        self.trouble, self.cause = trouble, cause
        self.last_error = datetime.now(UTC), trouble


class Waiting(Protocol):
    """Where the rows come from: the database behind a cursor (relay/pending.py), or a selection."""

    limit: int
    #: Every row with an id below this is confirmed.
    confirmed_before: int

    def next_request(self) -> list[Part]:
        """The next request; empty when nothing waits."""

    def confirm(self) -> None:
        """Note that everything handed out so far is confirmed."""

    def reject(self, rejected: Sequence[tuple[Row, str]]) -> None:
        """Store rows that the server will never take."""


class Forwarder:
    """One sender of pending rows; `run` for as long as wanted, or `step` by step."""

    def __init__(
        self,
        store: Store,
        server: Server,
        pending: Waiting,
        *,
        stop: threading.Event | None = None,
        retention: Retention | None = None,
        reports: Reports | None = None,
        patience_seconds: float | None = None,
        on_wait: Callable[[str, float], None] | None = None,
    ) -> None:
        self.totals = Totals()
        self.wake = threading.Event()
        self._store, self._server = store, server
        self.server_url = server.url
        self.pending = pending
        self._largest, self._until_larger = pending.limit, _REQUESTS_BEFORE_LARGER
        self._stop = stop or threading.Event()
        self._retention = retention
        self._reports = reports
        self._on_wait = on_wait or self._log_wait
        self._logged_at = -_REPEAT_SECONDS
        self._retrying = new_retrying(patience_seconds=patience_seconds, on_wait=self._before_pause, stop=self._stop)

    def run(self, every_seconds: float = _LOOK_SECONDS) -> None:
        """Send whatever waits until `stop` is set; looks again when woken and every `every_seconds`.

        Raises:
            ServerUnavailable, ServerRefused, StoreUnavailable: where the patience is limited, and it is at its end.
        """
        try:
            while not self._stop.is_set():
                self.wake.clear()
                while not self._stop.is_set() and self.step():
                    self._after_step()
                self._after_step()
                wait_for(self.wake, every_seconds)
        except (ServerUnavailable, ServerRefused, StoreUnavailable):
            if not self._stop.is_set():
                raise

    def step(self) -> int:
        """Send one request and wait for its confirmation; returns how many rows it held, 0 when none wait.

        Raises:
            ServerUnavailable, ServerRefused, StoreUnavailable: it was retried for too long, or `stop` is set.
        """
        parts = self.pending.next_request()
        if parts:
            self._send(parts)
            self._retrying(self.pending.confirm)
        return sum(map(len, parts))

    def _send(self, parts: list[Part]) -> None:
        settled = 0
        try:
            for sent, answer in send_split(parts, self._post, halves):
                self._settle(sent, answer)
                settled += sum(map(len, sent))
        except SourceRefused as exc:
            # It is about these rows alone: those of other senders go on.
            self._recover()
            self._reject([(row, str(exc)) for part in parts for row in part][settled:])

    def _post(self, parts: Sequence[Part]) -> Result:
        try:
            result: Result = self._retrying(self._server.send, parts)
        except (BodyTooLarge, BodyRefused) as exc:
            self.totals.requests += 1
            size = sum(map(len, parts))
            if isinstance(exc, BodyTooLarge) and size > 1:
                # Its siblings of the same split are too large as well, and say nothing new.
                self.pending.limit = max(1, min(self.pending.limit, size // 2))
                self._until_larger = _REQUESTS_BEFORE_LARGER
            raise
        self.totals.requests += 1
        self._until_larger -= 1
        if self.pending.limit < self._largest and self._until_larger <= 0:
            self.pending.limit = min(self._largest, 2 * self.pending.limit)
            self._until_larger = _REQUESTS_BEFORE_LARGER
        return result

    def _settle(self, parts: Sequence[Part], result: Result | BodyTooLarge | BodyRefused) -> None:
        rows = [row for part in parts for row in part]
        self._recover()
        if isinstance(result, TickpipeError):
            self._reject([(row, str(result)) for row in rows])
            return
        rejected = _rejected(rows, result)
        if rejected:
            self._reject(rejected)
        self.totals.forwarded += len(rows) - len(rejected)

    def _recover(self) -> None:
        if self.totals.trouble:
            log.info("The server takes ticks again.", action="forward_recovered")
        self.totals.trouble = self.totals.cause = ""
        self._logged_at = -_REPEAT_SECONDS

    def _reject(self, rejected: Sequence[tuple[Row, str]]) -> None:
        self._retrying(self.pending.reject, rejected)
        self.totals.rejected += len(rejected)
        row, reason = rejected[0]
        self.totals.last_error = datetime.now(UTC), f"{row.symbol}: {reason}"
        log.warning(
            f"The server refused {len(rejected)} items for good; they are in the table `rejected`. The first: {reason}",
            action="forward_rejected", symbol=row.symbol, ts_ms=row.ts_ms, id=row.id,
        )  # fmt: skip

    def _after_step(self) -> None:
        if self._retention is not None:
            self.totals.deleted += self._retention.delete_due()
        if self._reports is not None:
            self._retrying(self._reports.forward, self._server, self.pending.confirmed_before)

    def _before_pause(self, exc: BaseException, seconds: float) -> None:
        self.totals.retries += 1
        self.totals.fail(str(exc), getattr(exc, "cause", "store"))
        self._on_wait(str(exc), seconds)

    def _log_wait(self, why: str, seconds: float) -> None:
        if time.monotonic() - self._logged_at < _REPEAT_SECONDS:
            return
        self._logged_at = time.monotonic()
        log.warning(f"{why.rstrip('.')}; ticks stay stored, next try in {seconds:.1f} s.", action="forward_waits")


def _rejected(rows: Sequence[Row], result: Result) -> list[tuple[Row, str]]:
    """The rows that the server refused, with the reasons that it gave."""
    if result.errors >= len(rows):
        return [(row, result.reasons.get(i, "refused with the rest of its request")) for i, row in enumerate(rows)]
    return [(rows[i], reason) for i, reason in sorted(result.reasons.items()) if i < len(rows)]
