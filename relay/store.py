"""The one thread that writes the relay's database: ticks are on the disk before they are answered.

What a flush of the disk costs is shared by all requests that wait for the same one (group commit): the thread takes
everything that is queued into one transaction.
"""

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from itertools import repeat
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar

import structlog

from relay.counts import Counts, RowCounter
from relay.damage import id_bounds, is_damaged
from relay.database import StoreUnavailable, StoreUnusable, connect, connect_writer, explained, mend, prepare
from relay.item import NewRow, PackedRows
from runtime.health import Guard, Health

log = structlog.get_logger(__name__)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

#: How long a commit waits while another program holds the lock. EAs give up after 5 s; a 503 before that is better.
_BUSY_SECONDS: Final = 2.0

#: Most jobs of one transaction: bounds how long the first of them waits.
_MAX_GROUP: Final = 1_000

#: Rows of several requests that may wait for the writer: with more the disk is too slow, and memory must not fill up.
_MAX_WAITING_ROWS: Final = 500_000

#: A query asks whether it is to end after so many of SQLite's steps; a row takes about ten.
_STEPS_BETWEEN_LOOKS: Final = 100_000

#: A clock that went back by less than this has merely not ticked yet.
_CLOCK_STEP: Final = timedelta(seconds=1)

_INSERT: Final = (
    "INSERT INTO ticks (symbol, ts_ms, timeframe, open, high, low, close, volume, kind, meta, facts,"
    " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

_OLDEST: Final = "SELECT symbol FROM ticks WHERE id < ? ORDER BY id LIMIT ?"
_DELETE: Final = "DELETE FROM ticks WHERE id IN (SELECT id FROM ticks WHERE id < ? ORDER BY id LIMIT ?)"


class _Job(NamedTuple):
    work: Work
    #: A job of the event loop is settled there, together with the others of its group.
    done: "asyncio.Future[Any] | Future[Any]"


class Store:
    """The database behind one writing thread; reading connections belong to whoever reads.

    When that thread fails, whoever waits for it is told, and so is every later caller; `guard` ends the process.
    """

    def __init__(self, path: Path, *, busy_seconds: float = _BUSY_SECONDS, guard: Guard | None = None) -> None:
        self.path = path
        self.on_insert: Callable[[], None] = lambda: None
        self._busy_seconds = busy_seconds
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting_rows = 0
        self._failing = self._is_ending = False
        #: In the transaction in progress, by its first rows: to ask for each request costs a fifth of storing it.
        self._is_place_checked = False
        #: The newest error of the database, also one that is over: when (UTC), and what it was.
        self.last_error: tuple[datetime, str] | None = None
        #: The jobs of the transaction in progress, and the error that ended the writing thread.
        self._group: list[_Job] = []
        self._died: StoreUnavailable | None = None
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._counter = RowCounter()
        #: Transactions and jobs so far; their ratio is what group commit saves.
        self.commits = self.jobs = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite opens a file that may only be read without a word, and for good.
            with suppress(FileNotFoundError), path.open("r+b"):
                pass
            connection = connect_writer(path, busy_seconds)
            prepare(connection)
            self._last_stamp = _newest_stamp(connection)
            self._identity = _identity(path)
            (self._ran_before,) = connection.execute("SELECT ifnull(max(confirmed_at), 0) FROM confirmed").fetchone()
            #: The writing thread's; None after it could not be rolled back, until the next job opens another.
            self._connection: sqlite3.Connection | None = connection
            self._opened_at = time.monotonic()
        except OSError as exc:
            message = f"{path} cannot be written ({exc.strerror}); is the disk write-protected, who owns the file?"
            raise StoreUnavailable(message, 5) from exc
        except sqlite3.OperationalError as exc:
            message = f"{path} cannot be opened ({exc}); is the disk full, or does another program use it?"
            raise StoreUnavailable(message, 5) from exc
        except sqlite3.DatabaseError as exc:
            if is_damaged(exc):
                raise explained(exc) from exc
            raise StoreUnusable(f"{path} is no SQLite database ({exc}); name another file with --db") from exc
        # Without a guard the store is a command's, which learns of a failure from the job that it waits for.
        guard = guard or Guard(Health(), end=lambda: None)
        self._thread = guard.thread("store", self._write, self._fail)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def end_reading(self) -> None:
        """End the queries that are under way, for who waits for their threads."""
        self._is_ending = True

    def close(self) -> None:
        """Commit what is queued and end."""
        self._jobs.put(None)
        self._thread.join()
        for connection in (*self._readers, self._connection):
            if connection is not None:
                connection.close()

    @property
    def connection(self) -> sqlite3.Connection:
        """The calling thread's connection, for reading.

        Raises:
            StoreUnavailable: the file is no longer the one that was opened.
        """
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            self._check_place()
            found = self._local.connection = connect(self.path, self._busy_seconds)
            found.set_progress_handler(lambda: self._is_ending, _STEPS_BETWEEN_LOOKS)
            self._readers.append(found)
        return found

    @property
    def is_failing(self) -> bool:
        """Whether the last transaction could not be written."""
        return self._failing or self._died is not None

    def ran_seconds(self) -> float:
        """How long the relay has run, together with its earlier runs on this file (seconds).

        The PC's clock may be wrong today and right tomorrow; a jump of it must not make rows old.
        """
        return float(self._ran_before) + time.monotonic() - self._opened_at

    async def insert(self, rows: Sequence[NewRow] | PackedRows) -> None:
        """Store the rows of one request; they are on the disk when this returns.

        Raises:
            StoreUnavailable: nothing was stored.
        """
        # A body of more rows than that is taken when it is alone: its sender may not be able to cut it.
        if self._waiting_rows and self._waiting_rows + len(rows) > _MAX_WAITING_ROWS:
            raise StoreUnavailable("the disk does not keep up; send again in a second", 1)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting_rows += len(rows)
        try:
            self._submit(_Job(lambda connection: self.add(connection, rows), done))
            await done
        finally:
            self._waiting_rows -= len(rows)

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work`, done by the writing thread in a transaction that is committed before this returns.

        Raises:
            StoreUnavailable: nothing was stored.
        """
        done: Future[T] = Future()
        self._submit(_Job(work, done))
        return done.result()

    def _submit(self, job: _Job) -> None:
        self._jobs.put(job)
        # The thread may have died, and emptied the queue, just before.
        if self._died is not None:
            self._refuse_waiting(self._died)

    def add(self, connection: sqlite3.Connection, rows: Sequence[NewRow] | PackedRows) -> None:
        """Insert the rows of one request, in a job of `run`."""
        if not self._is_place_checked:
            self._check_place()
            self._is_place_checked = True
        now = datetime.now(UTC)
        # Tells the rows of this request from those of the one before (relay/lanes.py). Windows' clock moves in steps
        # of up to 16 ms, so many requests would share a time; one that was put back is followed.
        if timedelta() <= self._last_stamp - now < _CLOCK_STEP:
            now = self._last_stamp + timedelta(microseconds=1)
        self._last_stamp = now
        stamp = now.replace(tzinfo=None).isoformat(" ", "microseconds")
        connection.executemany(_INSERT, ((*row, stamp) for row in rows))

    def _check_place(self) -> None:
        """Make sure that what is stored now is there at the next start: a file that was deleted ends with this process.

        Raises:
            StoreUnavailable: the file was deleted, or another one put into its place.
        """
        if not self._is_in_place():
            raise StoreUnavailable(
                f"{self.path} was deleted or replaced while the relay runs, so nothing can be stored. Start the relay"
                " again; what it still has is forwarded until then.", 10,
            )  # fmt: skip

    def _is_in_place(self) -> bool:
        return _identity(self.path) == self._identity

    def _write(self) -> None:
        ending = False
        while not ending:
            job = self._jobs.get()
            self._group = []
            while True:
                if job is None:
                    ending = True
                    break
                self._group.append(job)
                if len(self._group) >= _MAX_GROUP:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            if self._group:
                self._commit(self._group)

    def _fail(self, exc: BaseException) -> None:
        # In this order: a job that is queued later finds the reason, and is refused by whoever queued it.
        self._died = StoreUnavailable(f"The writing thread failed ({exc}); the relay is starting again.", 5)
        _settle([job for job in self._group if not job.done.done()], self._died)
        self._refuse_waiting(self._died)

    def _refuse_waiting(self, why: StoreUnavailable) -> None:
        with suppress(queue.Empty):
            while True:
                if (job := self._jobs.get_nowait()) is not None:
                    _settle([job], why)

    def _commit(self, group: Sequence[_Job], *, may_mend: bool = True) -> None:
        self._is_place_checked = False
        try:
            if self._connection is None:
                self._connection = connect_writer(self.path, self._busy_seconds)
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            results = [job.work(connection) for job in group]
            connection.execute("COMMIT")
        except Exception as exc:
            self._roll_back()
            if may_mend and is_damaged(exc) and self._mend():
                self._commit(group, may_mend=False)
                return
            if len(group) > 1 and not isinstance(exc, sqlite3.OperationalError):
                # One job is to blame; the others must not suffer for it.
                for job in group:
                    self._commit([job])
                return
            self._report_failure(exc)
            _settle(group, explained(exc))
            return
        self.commits += 1
        self.jobs += len(group)
        if self._failing and self._is_in_place():
            self._failing = False
            log.info("The database takes ticks again.", action="store_recovered")
        _settle(group, results)
        self.on_insert()

    def mend(self) -> None:
        """Have the relay's own tables read, and those that are damaged begun anew."""
        with suppress(sqlite3.Error), closing(connect_writer(self.path, self._busy_seconds)) as connection:
            mend(connection)

    def _mend(self) -> bool:
        """Whether the damage lay in one of the relay's own tables, which is new now."""
        try:
            self._connection = self._connection or connect_writer(self.path, self._busy_seconds)
            return mend(self._connection)
        except sqlite3.Error:
            return False

    def _roll_back(self) -> None:
        connection = self._connection
        if connection is None or not connection.in_transaction:
            return
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error as exc:
            # SQLite undoes what was not committed when the connection is closed; the next job opens another.
            log.error("A transaction could not be rolled back.", action="store_rollback_failed", error=str(exc))
            self._connection = None
            connection.close()

    def _report_failure(self, exc: Exception) -> None:
        self.last_error = datetime.now(UTC), str(explained(exc))
        if not isinstance(exc, sqlite3.Error | StoreUnavailable):
            log.error("A write failed; this is a bug.", action="store_bug", exc_info=exc)
        elif not self._failing:
            self._failing = True
            log.error(f"{explained(exc)} Until then EAs are asked to send again.", action="store_failing")

    def delete_before(self, before_id: int, limit: int) -> int:
        """Delete the oldest rows below `before_id`, at most `limit`; how many.

        Raises:
            StoreUnavailable: nothing was deleted.
            sqlite3.DatabaseError: a page of these rows is damaged; to delete them could damage more.
        """
        self.connection.execute(_OLDEST, [before_id, limit]).fetchall()

        def delete(connection: sqlite3.Connection) -> int:
            first, _ = id_bounds(connection)
            symbols = Counter(symbol for (symbol,) in connection.execute(_OLDEST, [before_id, limit]))
            connection.execute(_DELETE, [before_id, limit])
            after, _ = id_bounds(connection)
            # Before the commit: who sees fewer rows finds why. Where it fails, the next try says it again.
            self._counter.note_deleted(first, after, symbols)
            return symbols.total()

        return self.run(delete)

    def counts(self) -> Counts:
        """How many rows there are; only what is new is counted, unless another program deleted rows."""
        return self._counter.counts(self.connection)


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another of its name, where one that is open can be deleted: Windows does not do that."""
    if os.name == "nt":
        return None
    with suppress(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None


def _newest_stamp(connection: sqlite3.Connection) -> datetime:
    """When the newest row was stored, by the clock of then."""
    # Another program may have written anything, and the newest page is the first that a power cut damages.
    with suppress(TypeError, ValueError, sqlite3.DatabaseError):
        row = connection.execute("SELECT created_at FROM ticks ORDER BY id DESC LIMIT 1").fetchone()
        return datetime.fromisoformat(row[0]).replace(tzinfo=UTC)
    return datetime.fromtimestamp(0, UTC)


def _settle(group: Sequence[_Job], results: Sequence[Any] | Exception) -> None:
    """Hand each job its result, or all of them an error; those of the event loop in one go: waking it is what costs."""
    on_loop: list[tuple[asyncio.Future[Any], Any]] = []
    for job, result in zip(group, repeat(results) if isinstance(results, Exception) else results, strict=False):
        if isinstance(job.done, asyncio.Future):
            on_loop.append((job.done, result))
        elif isinstance(result, Exception):
            job.done.set_exception(result)
        else:
            job.done.set_result(result)
    if on_loop:
        # The loop may have been closed meanwhile; then nobody waits any more.
        with suppress(RuntimeError):
            on_loop[0][0].get_loop().call_soon_threadsafe(_settle_on_loop, on_loop)


def _settle_on_loop(settled: Sequence[tuple["asyncio.Future[Any]", Any]]) -> None:
    for done, result in settled:
        if done.done():
            continue
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result)
