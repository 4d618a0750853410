"""How many rows of which symbols the database has, for who looks again and again: only what is new is counted."""

import sqlite3
import threading
from collections import Counter
from typing import Any, Final, NamedTuple

from relay.damage import Ids, id_bounds, is_damaged, read_around

#: The condition that a row is a tick; rows of older programs may say nothing.
_IS_TICK: Final = "ifnull(kind, 'tick') <> 'bar' AND lower(ifnull(timeframe, 'tick')) = 'tick'"

_COUNT: Final = f"""SELECT symbol, count(*), max(CASE WHEN {_IS_TICK} THEN id END)
    FROM {{}} GROUP BY symbol"""  # noqa: S608  # constants
_COUNT_ALL: Final = _COUNT.format("ticks WHERE id >= :first AND id < :end")
_COUNT_AROUND: Final = _COUNT.format(
    "(SELECT id, symbol, kind, timeframe FROM ticks WHERE id >= :first AND id < :end LIMIT :end - :first)"
)

#: Deletions that wait for somebody who looks at the counts; beyond it all are counted again (entries).
_MAX_DELETIONS: Final = 10_000


class Counts(NamedTuple):
    """How many rows there are, by symbol."""

    first_id: int
    last_id: int
    by_symbol: "Counter[str]"
    #: The id of each symbol's newest tick.
    newest: dict[str, int]


class RowCounter:
    """Counts the rows of one database; any thread may ask."""

    def __init__(self) -> None:
        self._counts = Counts(0, 0, Counter(), {})
        #: What was deleted since: by the id that was the first, the one that is the first now, and symbols.
        self._deleted: dict[int, tuple[int, Counter[str]]] = {}
        self._counts_lock = threading.Lock()
        self._deleted_lock = threading.Lock()

    def note_deleted(self, first: int, after: int, symbols: "Counter[str]") -> None:
        """The oldest rows are deleted by us: `first` was the first id, `after` is the first then."""
        with self._deleted_lock:
            self._deleted[first] = (after, symbols)
            if len(self._deleted) > _MAX_DELETIONS:
                self._deleted.clear()

    def counts(self, connection: sqlite3.Connection) -> Counts:
        """How many rows there are; all are counted again when another program deleted rows."""
        with self._counts_lock:
            known = self._counts
            connection.execute("BEGIN")
            try:
                first, last = id_bounds(connection)
                if first != known.first_id:
                    known = self._without_deleted(known, first)
                by_symbol, newest = known.by_symbol, known.newest
                if last > known.last_id:
                    by_symbol, newest = Counter(by_symbol), dict(newest)
                    for symbol, number, newest_id in _counted(connection, (known.last_id + 1, last + 1)):
                        by_symbol[symbol] += number
                        if newest_id is not None:
                            newest[symbol] = max(newest_id, newest.get(symbol, 0))
            finally:
                # It only read, so there is nothing that could be lost by it.
                connection.rollback()
            self._counts = Counts(first, last, by_symbol, newest)
            return self._counts

    def _without_deleted(self, known: Counts, first: int) -> Counts:
        """What is known without what we have deleted since, up to the row `first`; nothing if it was not us."""
        left, at = Counter(known.by_symbol), known.first_id
        while at != first:
            with self._deleted_lock:
                at, symbols = self._deleted.pop(at, (0, Counter()))
            if not known.first_id < at <= known.last_id:
                return Counts(first, 0, Counter(), {})
            left -= symbols
        newest = {symbol: id_ for symbol, id_ in known.newest.items() if id_ >= first}
        return Counts(first, known.last_id, left, newest)


def _counted(connection: sqlite3.Connection, ids: Ids) -> list[Any]:
    """Symbols with how many rows they have of these ids, and their newest tick; a damaged page is left out."""
    try:
        return connection.execute(_COUNT_ALL, {"first": ids[0], "end": ids[1]}).fetchall()
    except sqlite3.DatabaseError as exc:
        if not is_damaged(exc):
            raise
    counted, _ = read_around(connection, _COUNT_AROUND, ids)
    return counted
