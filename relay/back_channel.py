"""What the server wants filled, handed on to the senders that can, and what they report, handed on to the server.

A server that lacks ticks names them in its answers, to those who say that they can fill. The relay says so while one of
its senders does, and gives each the ranges of its own source. What they report by `POST /fills` is stored in `ea.db`
and goes to the server behind the rows that were stored before it; rows never wait for a report.
"""

import sqlite3
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct

from marketdata.contract.fills import MAX_WANTED
from marketdata.contract.http import FILLS_ROUTE, MAX_DETAILS, Unusable, Wanted, agent_header, source_header
from marketdata.errors import TickpipeError
from relay.damage import id_bounds
from relay.item import Facts
from relay.server import Server
from relay.store import Store
from runtime.posting import BodyRefused, BodyTooLarge, NoSuchEndpoint, SourceRefused

log = structlog.get_logger(__name__)

#: A sender that can fill has posted within that time, and ranges are as old as that at most (seconds).
_FRESH_SECONDS: Final = 600.0

#: A report that the server did not take is tried again after 1, 2, 4 … seconds, at most the last; one whose route the
#: server does not have, at once only after the last.
_RETRY_SECONDS: Final = 600.0

#: Reports that wait; with more the oldest go, and the server asks for their ranges again.
_MOST_REPORTS: Final = 10_000

_encode: Final = msgspec.json.Encoder().encode


@dataclass
class FillCounts:
    """What became of ranges since the start; the forwarder's thread alone writes it."""

    #: Ranges that the server named; one that it names again later counts again.
    asked: int = 0
    #: Ranges that it was told to be filled, those that it was told cannot be, and the ticks of the former.
    done: int = 0
    failed: int = 0
    ticks: int = 0

    def note(self, reports: Sequence[Mapping[str, Any]], refused: Container[int]) -> None:
        """Count reports that the server has; `refused` are the indices of those that it does not believe."""
        for index, report in enumerate(reports):
            ticks = report.get("ticks")
            if index in refused or not isinstance(ticks, int):
                self.failed += 1
            else:
                self.done += 1
                self.ticks += ticks


class Wishes:
    """What the server wants of each sender's source, by the name under which the server knows it.

    The local API and the forwarder use it from threads of their own: every step is one assignment.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self.counts = FillCounts()
        self._can_fill_at: dict[str, float] = {}
        self._wanted: dict[str, tuple[float, list[Wanted]]] = {}

    def note_sender(self, name: str) -> None:
        """A sender has said that it can fill."""
        self._can_fill_at[name] = self._monotonic()

    def has_sender(self, name: str) -> bool:
        """Whether one has said so lately."""
        return self._monotonic() - self._can_fill_at.get(name, -_FRESH_SECONDS) < _FRESH_SECONDS

    def take(self, name: str, answer: Mapping[str, Any]) -> None:
        """The newest answer of the server to ticks of a sender: without the field nothing is wanted."""
        try:
            wanted = msgspec.convert(answer.get("wanted", []), list[Wanted])[:MAX_WANTED]
        except msgspec.ValidationError:
            wanted = []
        before = self.of(name)
        self.counts.asked += sum(each not in before for each in wanted)
        self._wanted[name] = (self._monotonic(), wanted)

    def of(self, name: str) -> list[Wanted]:
        """What the server wanted of a sender lately, newest first."""
        at, wanted = self._wanted.get(name, (0.0, []))
        return wanted if self._monotonic() - at < _FRESH_SECONDS else []


class _Body(Struct, gc=False):
    fills: list[dict[str, Any]] = []
    sessions: list[dict[str, Any]] = []


_decode: Final = msgspec.json.Decoder(_Body).decode


def count_reports(raw: bytes) -> int:
    """How many reports a body of `/fills` holds. The server judges each of them.

    Raises:
        Unusable: it holds none.
    """
    body = _read(raw)
    return len(body.fills) + len(body.sessions)


def _read(raw: bytes) -> _Body:
    try:
        body = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Unusable(f"the body is no object with `fills` or `sessions`: {exc}") from None
    if not body.fills and not body.sessions:
        raise Unusable("the body holds neither `fills` nor `sessions`")
    return body


def add_reports(connection: sqlite3.Connection, raw: bytes, facts: Facts) -> None:
    """Store a body of `/fills`, in a job of `Store.run`: it goes behind the rows that are there by now."""
    values = [id_bounds(connection)[1], _encode(facts).decode(), raw.decode()]
    connection.execute("INSERT INTO reports (after_id, facts, body) VALUES (?, ?, ?)", values)
    connection.execute("DELETE FROM reports WHERE id <= (SELECT max(id) FROM reports) - ?", [_MOST_REPORTS])


class Reports:
    """The reports that wait in a store, for its forwarder; `counts` says what became of them, where that is shown."""

    def __init__(
        self, store: Store, counts: FillCounts | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._counts, self._monotonic = store, counts, monotonic
        self._failures = 0
        self._not_before = -1.0

    def forward(self, server: Server, before_id: int) -> int:
        """Send the reports that are due, as every row below `before_id` is confirmed; how many bodies.

        Nothing is raised and nothing waited for: what the server does not take now is tried again by a later call.

        Raises:
            StoreUnavailable: the answer to one is not stored; it is sent again.
        """
        sent = 0
        while self._not_before <= self._monotonic():
            query = "SELECT id, facts, body FROM reports WHERE after_id < ? OR after_id = 0 ORDER BY id LIMIT 1"
            row = self._store.connection.execute(query, [before_id]).fetchone()
            if row is None:
                break
            if not self._send(server, msgspec.json.decode(row[1], type=Facts), row[2]):
                break
            self._delete(row[0])
            sent += 1
        return sent

    def _delete(self, id_: int) -> None:
        self._store.run(lambda connection: connection.execute("DELETE FROM reports WHERE id = ?", [id_]))

    def _send(self, server: Server, facts: Facts, body: str) -> bool:
        """Whether a body need not be sent again."""
        headers = source_header(facts.source) | agent_header(server.user_agent, facts.server, facts.account)
        reports = _Body()
        try:
            reports = _read(body.encode())
            result = server.post(FILLS_ROUTE, body.encode(), headers, len(reports.fills) + len(reports.sessions))
        except (BodyRefused, BodyTooLarge, SourceRefused, Unusable) as exc:
            log.warning(f"The server refuses a report of filled ranges: {exc}", action="report_refused")
            self._count(reports, range(len(reports.fills)))
        except TickpipeError as exc:
            self._failures += 1
            pause = _RETRY_SECONDS if isinstance(exc, NoSuchEndpoint) else min(_RETRY_SECONDS, 2.0**self._failures / 2)
            self._not_before = self._monotonic() + pause
            if self._failures == 1:
                log.warning(f"Reports of filled ranges wait: {exc}", action="report_waits")
            return False
        else:
            if result.errors:
                reasons = "; ".join(list(result.reasons.values())[:MAX_DETAILS])
                log.warning(f"The server refuses {result.errors} reports: {reasons}", action="report_refused")
            self._count(reports, result.reasons)
        self._failures = 0
        return True

    def _count(self, reports: _Body, refused: Container[int]) -> None:
        if self._counts is not None:
            self._counts.note(reports.fills, refused)
