"""Sends pending rows to the server, one request at a time, each until it is confirmed.

A backlog goes first, in order: it drains at tens of thousands of ticks a second while an EA brings hundreds, so live
ticks wait seconds, and no tick overtakes another of its symbol, which the fold would take for a resend.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from marketdata.errors import SettingsError, TickpipeError
from relay.database import StoreUnavailable
from relay.lanes import Part, Row, halves
from relay.retention import Retention
from relay.server import Server
from relay.store import Store
from runtime.posting import (
    BodyRefused,
    BodyTooLarge,
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

#: Pause between two looks at the database, where another process may have stored rows (seconds).
_LOOK_SECONDS: Final = 1.0

#: That the server is away is logged at most this often (seconds).
_REPEAT_SECONDS: Final = 60.0


@dataclass
class Totals:
    """What a forwarder has done since it began."""

    forwarded: int = 0
    rejected: int = 0
    requests: int = 0
    retries: int = 0
    deleted: int = 0
    #: Whether the last request was answered; None before the first.
    is_up: bool | None = None
    #: Why forwarding stopped; empty while it goes on.
    stopped: str = ""


class Waiting(Protocol):
    """Where the rows come from: the database behind a cursor (relay/pending.py), or a selection."""

    limit: int

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
        patience_seconds: float | None = None,
        on_wait: Callable[[str, float], None] | None = None,
    ) -> None:
        self.totals = Totals()
        self.wake = threading.Event()
        self._store, self._server = store, server
        self.pending = pending
        self._stop = stop or threading.Event()
        self._retention = retention
        self._on_wait = on_wait or self._log_wait
        self._logged_at = -_REPEAT_SECONDS
        self._retrying = new_retrying(patience_seconds=patience_seconds, on_wait=self._before_pause, stop=self._stop)

    def run(self, every_seconds: float = _LOOK_SECONDS) -> None:
        """Send whatever waits until `stop` is set; looks again when woken and every `every_seconds`.

        Raises:
            ServerRefused, SettingsError: nothing more will be sent; ticks stay stored.
        """
        try:
            while not self._stop.is_set():
                self.wake.clear()
                while not self._stop.is_set() and self.step():
                    self._delete_old()
                self._delete_old()
                wait_for(self.wake, every_seconds)
        except (ServerUnavailable, StoreUnavailable):
            if not self._stop.is_set():
                raise
        except (ServerRefused, SettingsError) as exc:
            self.totals.stopped = str(exc)
            raise

    def step(self) -> int:
        """Send one request and wait for its confirmation; returns how many rows it held, 0 when none wait.

        Raises:
            ServerUnavailable, StoreUnavailable: it was retried for too long, or `stop` is set.
            ServerRefused, SettingsError: as `run`.
        """
        parts = self.pending.next_request()
        if parts:
            self._send(parts)
            self._retrying(self.pending.confirm)
        return sum(map(len, parts))

    def _send(self, parts: list[Part]) -> None:
        try:
            for sent, answer in send_split(parts, self._post, halves):
                self._settle(sent, answer)
        except SourceRefused as exc:
            # It is about these rows alone: those of other senders go on.
            self._reject([(row, str(exc)) for part in parts for row in part])
        except ServerRefused:
            self.totals.is_up = False
            raise

    def _post(self, parts: Sequence[Part]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._retrying(self._server.send, parts)
        except (BodyTooLarge, BodyRefused) as exc:
            self.totals.requests += 1
            size = sum(map(len, parts))
            if isinstance(exc, BodyTooLarge) and size > 1:
                self.pending.limit = max(1, min(self.pending.limit, size) // 2)
            raise
        self.totals.requests += 1
        return answer

    def _settle(self, parts: Sequence[Part], answer: dict[str, Any] | BodyTooLarge | BodyRefused) -> None:
        rows = [row for part in parts for row in part]
        if isinstance(answer, TickpipeError):
            self._reject([(row, str(answer)) for row in rows])
            return
        if self.totals.is_up is False:
            log.info("The server takes ticks again.", action="forward_recovered")
        self.totals.is_up = True
        self._logged_at = -_REPEAT_SECONDS
        rejected = _rejected(rows, answer)
        if rejected:
            self._reject(rejected)
        self.totals.forwarded += len(rows) - len(rejected)

    def _reject(self, rejected: Sequence[tuple[Row, str]]) -> None:
        self._retrying(self.pending.reject, rejected)
        self.totals.rejected += len(rejected)
        row, reason = rejected[0]
        log.warning(
            f"The server refused {len(rejected)} items for good; they are in the table `rejected`. The first: {reason}",
            action="forward_rejected", symbol=row.symbol, ts_ms=row.ts_ms, id=row.id,
        )  # fmt: skip

    def _delete_old(self) -> None:
        if self._retention is not None:
            self.totals.deleted += self._retention.delete_due()

    def _before_pause(self, exc: BaseException, seconds: float) -> None:
        self.totals.retries += 1
        if isinstance(exc, ServerUnavailable):
            self.totals.is_up = False
        self._on_wait(str(exc), seconds)

    def _log_wait(self, why: str, seconds: float) -> None:
        if time.monotonic() - self._logged_at < _REPEAT_SECONDS:
            return
        self._logged_at = time.monotonic()
        log.warning(f"{why}; ticks stay stored, next try in {seconds:.1f} s.", action="forward_waits")


def _rejected(rows: Sequence[Row], answer: dict[str, Any]) -> list[tuple[Row, str]]:
    """The rows that an answer refuses, with the reasons that it gives."""
    reasons: dict[int, str] = {}
    for detail in answer.get("details") or ():
        if isinstance(detail, dict) and isinstance(detail.get("index"), int):
            reasons[detail["index"]] = f"{detail.get('field')}: {detail.get('message')}"
    if int(answer.get("errors") or 0) >= len(rows):
        return [(row, reasons.get(i, "refused with the rest of its request")) for i, row in enumerate(rows)]
    return [(rows[i], reason) for i, reason in sorted(reasons.items()) if 0 <= i < len(rows)]
