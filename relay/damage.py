"""Reads what can be read of a damaged file: the rows before and behind the pages that SQLite cannot make sense of."""

import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

#: Where the ids of a table of `AUTOINCREMENT` end, also when its last page is damaged.
_LAST_GIVEN: Final = "SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'ticks'"

#: Ids from the first up to, without, the second.
Ids = tuple[int, int]


def is_damaged(exc: BaseException) -> bool:
    """Whether SQLite found the file damaged. An I/O error is no proof of it: the disk may be away for a moment."""
    return isinstance(exc, sqlite3.Error) and getattr(exc, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT


def id_bounds(connection: sqlite3.Connection) -> Ids:
    """The first and the last id of `ticks`, 0 where there is none; rows of a damaged page may lie outside."""
    bounds = []
    # One query for both would read every row: SQLite looks up a single minimum or maximum only.
    for edge in ("min", "max"):
        try:
            (id_,) = connection.execute(f"SELECT ifnull({edge}(id), 0) FROM ticks").fetchone()  # noqa: S608  # a constant
        except sqlite3.DatabaseError as exc:
            if not is_damaged(exc):
                raise
            id_ = 0
            if edge == "max":
                with suppress(sqlite3.DatabaseError):
                    (id_,) = connection.execute(_LAST_GIVEN).fetchone()
        bounds.append(int(id_))
    return bounds[0], bounds[1]


def read_around(
    connection: sqlite3.Connection, query: str, ids: Ids, values: Mapping[str, object] | None = None
) -> tuple[list[Any], list[Ids]]:
    """What `query` finds for these ids, piece by piece in their order, and the ids that cannot be read.

    The query names its part of the ids `:first` and `:end` (not included), and must stop after `:end - :first` rows: to
    look for one more, SQLite would open the next page, which may be the damaged one.
    """
    found: list[Any] = []
    lost: list[Ids] = []
    to_do = [ids] if ids[0] < ids[1] else []
    while to_do:
        first, end = to_do.pop()
        try:
            found += connection.execute(query, {**(values or {}), "first": first, "end": end}).fetchall()
        except sqlite3.DatabaseError as exc:
            if not is_damaged(exc):
                raise
            if end - first > 1:
                middle = (first + end) // 2
                to_do += [(middle, end), (first, middle)]
            elif lost and lost[-1][1] == first:
                lost[-1] = (lost[-1][0], end)
            else:
                lost.append((first, end))
    return found, lost


def count_rows(connection: sqlite3.Connection, ids: Ids) -> int:
    """How many rows have these ids, without those that cannot be read."""
    query = "SELECT count(*) FROM ticks WHERE id >= :first AND id < :end"
    try:
        return int(connection.execute(query, {"first": ids[0], "end": ids[1]}).fetchone()[0])
    except sqlite3.DatabaseError as exc:
        if not is_damaged(exc):
            raise
    query = "SELECT count(*) FROM (SELECT id FROM ticks WHERE id >= :first AND id < :end LIMIT :end - :first)"
    counted, _ = read_around(connection, query, ids)
    return sum(number for (number,) in counted)
