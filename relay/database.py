"""The file `ea.db`: its errors, its tables, and how a file of an older program is opened without losing a row.

::

    TickpipeError
    ├── StoreUnavailable    the database cannot be written now: full disk, lock (retriable)
    └── StoreUnusable       the file is no database of ticks

Errors of the server that ticks are forwarded to are in runtime/posting.py.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final

import structlog

from marketdata.contract.body import text_of
from marketdata.errors import TickpipeError
from relay.damage import is_damaged

log = structlog.get_logger(__name__)

# AUTOINCREMENT: an id is never given twice, not even after old rows were deleted; the cursor relies on it.
_TICKS: Final = """
CREATE TABLE {name} (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    symbol TEXT NOT NULL,
    ts_ms INTEGER NOT NULL,
    timeframe TEXT,
    open REAL, high REAL, low REAL, close REAL, volume REAL,
    kind TEXT,
    meta TEXT,
    created_at TEXT DEFAULT CURRENT_TIMESTAMP,
    facts TEXT
)"""

_OTHERS: Final = {
    # The lane '' stands for every lane that has no row of its own: nothing before next_id waits there.
    "forward_cursor": """CREATE TABLE IF NOT EXISTS forward_cursor (
        name TEXT NOT NULL, lane TEXT NOT NULL, next_id INTEGER NOT NULL, waiting INTEGER NOT NULL,
        PRIMARY KEY (name, lane)) WITHOUT ROWID""",
    # "Every row before next_id was confirmed by then" (seconds of `Store.ran_seconds`); retention counts from there.
    "confirmed": """CREATE TABLE IF NOT EXISTS confirmed (
        name TEXT NOT NULL, next_id INTEGER NOT NULL, confirmed_at REAL NOT NULL,
        PRIMARY KEY (name, next_id)) WITHOUT ROWID""",
    "rejected": """CREATE TABLE IF NOT EXISTS rejected (
        id INTEGER PRIMARY KEY, symbol TEXT NOT NULL, ts_ms INTEGER NOT NULL, reason TEXT NOT NULL,
        meta TEXT, rejected_at TEXT NOT NULL)""",
    # Bodies of POST /fills: each goes to the server once every row up to `after_id` is confirmed.
    "reports": """CREATE TABLE IF NOT EXISTS reports (
        id INTEGER PRIMARY KEY AUTOINCREMENT, after_id INTEGER NOT NULL, facts TEXT NOT NULL, body TEXT NOT NULL)""",
}

#: How far each symbol of the terminal was taken; whoever collects makes them.
_COLLECTORS: Final = ("collected", "collected_minutes")

_REBUILT: Final = "ticks_rebuilt"

#: SQLite's `application_id` of a file that the relay created ("tick"). Any other file was there before.
_CREATED_HERE: Final = 0x7469636B

#: The columns after `id`, and their values in rows of a file that lacks them.
_COLUMNS: Final = {
    "symbol": None, "ts_ms": None, "timeframe": "'tick'", "open": "NULL", "high": "NULL", "low": "NULL",
    "close": "NULL", "volume": "0", "kind": "'tick'", "meta": "NULL", "created_at": "NULL",
    "facts": "NULL",
}  # fmt: skip


#: How long to wait for a relay that is ending: the task may start the next one meanwhile (seconds).
_TAKEOVER_SECONDS: Final = 5.0


class StoreUnavailable(TickpipeError):
    """The database cannot be written now; nothing was stored, send again."""

    retriable = True

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class StoreUnusable(TickpipeError):
    """The file is no database of ticks; name another with --db."""

    is_wrong_use = True


def connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """A connection for reading, which any thread may use; `busy_seconds` is the wait for another program's lock."""
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    # Another program may have written what is no UTF-8; one such row must not end the reading of all.
    connection.text_factory = text_of
    return connection


def connect_writer(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """A connection whose commits are on the disk when they return.

    In WAL mode `synchronous=NORMAL` does not flush the log at a commit, so a power cut may take back what was answered.
    FULL flushes it at each commit.
    """
    # For its owner alone, as its rows tell who trades what; what stands in the way SQLite says itself.
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = connect(path, busy_seconds)
    connection.execute("PRAGMA journal_mode = WAL")
    if is_created_here(connection):
        for side in ("", "-wal", "-shm"):
            with suppress(OSError):
                os.chmod(f"{path}{side}", 0o600)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def storing_alone(path: Path) -> Iterator[None]:
    """Keeps a second `serve` or `collect` from the same file: two collectors would each store every tick.

    Raises:
        StoreUnavailable: another one stores in it.
    """
    with _alone(path.resolve(), "storing", f"Another relay stores ticks in {path} already"):
        yield


@contextmanager
def forwarding_alone(path: Path) -> Iterator[None]:
    """Keeps other processes from forwarding the same file: they would share one cursor, and each send all rows.

    Raises:
        StoreUnavailable: another one forwards it.
    """
    with _alone(path.resolve(), "forwarding", f"Another relay forwards {path} already"):
        yield


@contextmanager
def _alone(path: Path, use: str, message: str) -> Iterator[None]:
    """The lock is SQLite's own on an empty file beside it, which the system gives up when a process dies.

    The path is the file's own, not that of a link to it: one file has one lock.
    """
    lock = sqlite3.connect(f"{path}-{use}", timeout=_TAKEOVER_SECONDS, isolation_level=None)
    try:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise explained(exc) from exc
            raise StoreUnavailable(f"{message}; end that one, or name another file with --db.", 5) from exc
        yield
    finally:
        lock.close()


def explained(exc: Exception) -> Exception:
    """The error for whoever waits, with its cure."""
    if not isinstance(exc, sqlite3.Error):
        return exc
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreUnavailable("The disk is full, nothing can be stored; free some space.", 10)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreUnavailable("Another program holds the lock of the database; close it.", 1)
    if code == sqlite3.SQLITE_CORRUPT:
        return StoreUnavailable(
            f"The file of ticks is damaged ({exc}). End the relay, move the file and those beside it away, and start"
            " again with a new one; `sqlite3 OLD .recover` reads what is left of it, `relay export` sends that.", 10,
        )  # fmt: skip
    return StoreUnavailable(f"The database cannot be written ({exc}); check the disk.", 10)


def prepare(connection: sqlite3.Connection) -> None:
    """Create what is missing; rebuild a table `ticks` that would drop ticks, and `mend`. A second call changes nothing.

    Older files have UNIQUE (symbol, ts_ms), which stores one tick a second, and lack columns. The rebuild is one
    transaction: ids stay, and whatever interrupts it leaves the file as it was. It needs as much free disk again.
    A file that holds nothing yet is stamped as created here, which decides how long its rows are retained.

    Raises:
        StoreUnusable: when the file has another table `ticks`.
    """
    mend(connection)
    with _transaction(connection):
        columns = {str(row[1]): str(row[2]) for row in connection.execute("PRAGMA table_info(ticks)")}
        if not columns:
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                connection.execute(f"PRAGMA application_id = {_CREATED_HERE}")
            connection.execute(_TICKS.format(name="ticks"))
        elif why := _why_rebuild(connection, columns):
            _rebuild(connection, columns, why)
        elif "facts" not in columns:
            connection.execute("ALTER TABLE ticks ADD COLUMN facts TEXT")
        for statement in _OTHERS.values():
            connection.execute(statement)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def mend(connection: sqlite3.Connection) -> bool:
    """Begin the relay's own tables anew where they are damaged, for rows would wait for ever; whether one was.

    What they held is known elsewhere: rows are sent again, which counts no tick twice, and the server asks again for
    ranges of which it has no report, or that were not collected. The damaged ones are renamed, which touches none of
    their pages.
    """
    known = {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    # Before the transaction: one in which SQLite has met damage can write nothing any more.
    damaged = [name for name in (*_OTHERS, *_COLLECTORS) if name in known and not _is_readable(connection, name)]
    if not damaged:
        return False
    with _transaction(connection):
        for name in damaged:
            aside = next(found for n in count(1) if (found := f"{name}_damaged_{n}") not in known)
            connection.execute(f"ALTER TABLE {name} RENAME TO {aside}")
            if name in _OTHERS:
                connection.execute(_OTHERS[name])
            log.error(
                f"The table {name} of the file is damaged. It is renamed to {aside}, and begun anew.",
                action="store_mended",
            )
    return True


def _is_readable(connection: sqlite3.Connection, name: str) -> bool:
    try:
        for _ in connection.execute(f"SELECT * FROM {name}"):  # noqa: S608  # one of _OTHERS
            pass
    except sqlite3.DatabaseError as exc:
        if not is_damaged(exc):
            raise
        return False
    return True


def is_created_here(connection: sqlite3.Connection) -> bool:
    """Whether the relay created the file; False for an archive that was there before its first start."""
    return bool(connection.execute("PRAGMA application_id").fetchone()[0] == _CREATED_HERE)


def _why_rebuild(connection: sqlite3.Connection, columns: dict[str, str]) -> str | None:
    missing = {"symbol", "ts_ms"} - columns.keys()
    if missing:
        raise StoreUnusable(f"the table `ticks` has no column {' and '.join(sorted(missing))}; name another file")
    for row in connection.execute("PRAGMA index_list(ticks)").fetchall():
        if row[2] and row[3] != "pk":
            return "it allows one tick for each symbol and time"
    lacking = [name for name in ("id", *_COLUMNS) if name not in columns and name != "facts"]
    if lacking:
        return f"it lacks {', '.join(lacking)}"
    (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'ticks'").fetchone()
    return None if "AUTOINCREMENT" in sql.upper() else "it gives ids of deleted rows again"


def _rebuild(connection: sqlite3.Connection, columns: dict[str, str], why: str) -> None:
    log.info(f"The table of ticks is rebuilt: {why}. No row is lost.", action="store_rebuild")
    connection.execute(_TICKS.format(name=_REBUILT))
    # Column names come from _COLUMNS, not from the file. `id` is the key only where the table says so.
    has_key = connection.execute("SELECT count(*) FROM pragma_table_info('ticks') WHERE name = 'id' AND pk").fetchone()
    source = ", ".join(name if name in columns else str(default) for name, default in _COLUMNS.items())
    connection.execute(
        f"INSERT INTO {_REBUILT} (id, {', '.join(_COLUMNS)})"  # noqa: S608  # see above
        f" SELECT {'id' if has_key[0] else 'rowid'}, {source} FROM ticks ORDER BY 1"
    )
    (before,) = connection.execute("SELECT count(*) FROM ticks").fetchone()
    (after,) = connection.execute(f"SELECT count(*) FROM {_REBUILT}").fetchone()  # noqa: S608  # a constant
    if before != after:
        raise StoreUnusable(f"only {after} of {before} rows could be copied; the file was left as it is")
    # The older program's own indexes serve its queries; only the one that drops ticks goes.
    indexes = [
        row[0]
        for row in connection.execute(
            "SELECT m.sql FROM sqlite_master m JOIN pragma_index_list('ticks') i ON i.name = m.name"
            ' WHERE m.sql IS NOT NULL AND NOT i."unique"'
        )
    ]
    connection.execute("DROP TABLE ticks")
    connection.execute(f"ALTER TABLE {_REBUILT} RENAME TO ticks")
    for sql in indexes:
        connection.execute(sql)
    log.info(f"The table of ticks is rebuilt, with all {after:,} rows.", action="store_rebuilt", rows=after)
