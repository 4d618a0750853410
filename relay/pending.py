"""The rows that wait to be sent, page by page, and the cursor that survives a crash.

The cursor says for each lane which row is next; all lanes that are not behind share the entry ''. It is written after
each confirmed request, so a crash sends at most the last request again, which the fold recognises.
"""

import math
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog

from marketdata.contract.bar import read_bar
from marketdata.contract.tick import ReadTick, read_tick
from marketdata.errors import InvalidItem
from marketdata.wire import record_key
from relay.damage import Ids, count_rows, id_bounds, is_damaged, read_around
from relay.item import BAR, TICK, Facts, has_deals
from relay.lanes import Lanes, Origin, Part, Row
from relay.store import Store

log = structlog.get_logger(__name__)

#: The cursor of `serve` and `forward`.
FORWARD: Final = "forward"

#: How often it is stored which rows are confirmed by now, from which retention counts (seconds).
_CHECKPOINT_SECONDS: Final = 60.0

#: Stored of one item that was refused, at most (characters), as on the server.
STORED_CHARACTERS: Final = 64 * 1024

#: Columns of a RawRow.
COLUMNS: Final = "id, symbol, ts_ms, timeframe, open, high, low, close, volume, kind, meta, created_at, facts"


#: A row of the table as SQLite returns it; another program may have put anything into any column.
RawRow = tuple[int, Any, Any, Any, Any, Any, Any, Any, Any, Any, Any, Any, Any]

_TEXT_OR_NULL: Final = (str, type(None))
_NUMBER_OR_NULL: Final = (int, float, type(None))

_decode_facts: Final = msgspec.json.Decoder(Facts).decode
_encode: Final = msgspec.json.Encoder().encode


def rows_of(store: Store, raws: Iterable[RawRow], ticks_path: str, bars_path: str) -> Iterator[Row]:
    """Rows of the table, ready to be sent; one that nobody can read goes into the table `rejected`."""
    unusable = []
    for raw in raws:
        try:
            yield row_of(raw, ticks_path, bars_path)
        except InvalidItem as exc:
            symbol, ts_ms, meta = str(raw[1]), raw[2] if isinstance(raw[2], int) else 0, raw[10]
            unusable.append((raw[0], symbol, ts_ms, exc.message, None if meta is None else str(meta)))
    if unusable:
        log.warning(
            f"{len(unusable)} rows of the file are no ticks; they are in the table `rejected`.",
            action="row_unusable", id=unusable[0][0],
        )  # fmt: skip
        _insert_rejected(store, unusable)


def row_of(raw: RawRow, ticks_path: str, bars_path: str) -> Row:
    """A row of the table, ready to be sent: as it came when the original is known, else as the exporter sends it.

    Raises:
        InvalidItem: when a column holds what no program of this file's kind writes.
    """
    id_, symbol, ts_ms, timeframe, open_, high, low, close, volume, kind, meta, created_at, known = raw
    if not (
        isinstance(symbol, str)
        and isinstance(ts_ms, int)
        and isinstance(meta, _TEXT_OR_NULL)
        and isinstance(timeframe, _TEXT_OR_NULL)
        and isinstance(close, _NUMBER_OR_NULL)
    ):
        raise InvalidItem("", "a column holds another type than it should")
    is_bar = kind == BAR or (timeframe or TICK).lower() != TICK
    facts = _facts_in(known) if known else _facts_of_original(meta, symbol, is_bar=is_bar)
    if facts is not None and meta is not None:
        item = meta.encode()
    else:
        facts = Facts(coarse=ts_ms % 1000 == 0, has_deals=not is_bar and bool(close))
        exported = {
            "symbol": symbol, "ts": ts_ms, "timeframe": timeframe or TICK, "open": open_, "high": high, "low": low,
            "close": close, "volume": volume, "kind": kind or TICK,
        }  # fmt: skip
        item = _encode(exported | ({"meta": original} if (original := _object_in(meta)) else {}))
    path = bars_path if is_bar else ticks_path
    origin = Origin(path, facts.source, facts.utc_offset_seconds, facts.server, facts.account, facts.is_fill)
    lane = record_key(origin.sender, symbol, str(timeframe) if is_bar else "").decode()
    return Row(
        id_, lane, origin, symbol, ts_ms, created_at, facts.coarse, item, is_bar, facts.has_deals,
        is_archived=not known,
    )  # fmt: skip


def _facts_in(known: str) -> Facts:
    try:
        return _decode_facts(known)
    except (msgspec.MsgspecError, TypeError) as exc:
        raise InvalidItem("", "the column `facts` holds what the relay never writes") from exc


def _facts_of_original(meta: str | None, symbol: str, *, is_bar: bool) -> Facts | None:
    """What an older program's row says of its original item; None when `meta` is none."""
    try:
        original = msgspec.json.decode(meta) if meta else None
        read = read_bar(original) if is_bar else read_tick(original)
    except (InvalidItem, msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if read.symbol != symbol:
        return None
    return Facts(coarse=read.time.coarse, has_deals=isinstance(read, ReadTick) and has_deals(read))


def _object_in(meta: str | None) -> msgspec.Raw | None:
    try:
        msgspec.json.decode(meta or "", type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return msgspec.Raw((meta or "").encode())


class Pages:
    """Rows from `next_id` on, in the order in which they go; nothing is remembered of what was sent."""

    def __init__(
        self, store: Store, *, limit: int, page: int | None = None, next_id: int = 0, where: str = "1",
        values: Mapping[str, object] | None = None, ticks_path: str = "/ingest/tick", bars_path: str = "/ingest",
    ) -> None:  # fmt: skip
        """`limit` rows a request and `page` rows a reading; `where` is a constant condition on their `values`."""
        self.limit = limit
        self._store, self._page = store, page or limit
        self._paths = (ticks_path, bars_path)
        self._lanes = Lanes()
        #: Everything before this was sent or waits in the lanes.
        self._next_id = next_id
        #: Every row below this is confirmed.
        self.confirmed_before = next_id
        # `where` is this program's own, its values are bound.
        self._query = f"SELECT {COLUMNS} FROM ticks WHERE id >= :next AND ({where}) ORDER BY id LIMIT :page"  # noqa: S608
        self._around = (
            f"SELECT {COLUMNS} FROM ticks WHERE id >= :first AND id < :end AND ({where})"  # noqa: S608  # as above
            " ORDER BY id LIMIT :end - :first"
        )
        self._values = dict(values or {})

    def next_request(self) -> list[Part]:
        """What goes next; empty when nothing waits."""
        must_read = self._lanes.waiting < self.limit
        while True:
            at_end = must_read and self._read_page()
            parts = self._lanes.take(self.limit, at_end=at_end)
            if parts or at_end:
                return parts
            # Nothing but beginnings of requests; the next page has more of them.
            must_read = True

    def _read_page(self) -> bool:
        """Whether the database holds nothing behind what was read."""
        values = {**self._values, "next": self._next_id, "page": self._page}
        try:
            page = self._store.connection.execute(self._query, values).fetchall()
        except sqlite3.DatabaseError as exc:
            if not is_damaged(exc):
                raise
            return self._read_damaged()
        self._lanes.add(rows_of(self._store, page, *self._paths))
        if page:
            self._next_id = page[-1][0] + 1
        return len(page) < self._page

    def _read_damaged(self) -> bool:
        """As `_read_page`, where a page of the file is damaged: what can be read of the next ids."""
        after_last = id_bounds(self._store.connection)[1] + 1
        end = min(self._next_id + self._page, after_last)
        self._lanes.add(self._readable((self._next_id, end)))
        self._next_id = max(self._next_id, end)
        return end == after_last

    def _readable(self, ids: Ids) -> Iterator[Row]:
        """The rows of these ids; those that cannot be read are named in the log and in the table `rejected`."""
        raws, lost = read_around(self._store.connection, self._around, ids, self._values)
        _report_lost(self._store, lost)
        return rows_of(self._store, raws, *self._paths)

    def confirm(self) -> None:
        """Note that everything handed out so far is confirmed."""

    def reject(self, rejected: Sequence[tuple[Row, str]]) -> None:
        """Store rows that the server will never take in the table `rejected`, with the reason."""
        _insert_rejected(self._store, [(r.id, r.symbol, r.ts_ms, reason, r.item.decode()) for r, reason in rejected])


class Pending(Pages):
    """The rows that one receiver has not confirmed; a cursor in the database says which."""

    def __init__(self, store: Store, name: str = FORWARD, **options: Any) -> None:
        super().__init__(store, **options)
        self._name = name
        self._checkpoint_at = -math.inf
        cursor = _cursor(store.connection, name)
        self._next_id, _ = cursor.pop("", (0, 0))
        self.confirmed_before = min((next_id for next_id, _ in cursor.values()), default=self._next_id)
        if cursor:
            self._load(cursor)

    def _load(self, cursor: dict[str, tuple[int, int]]) -> None:
        """Read again what had been read and not sent."""
        rows = self._readable((min(next_id for next_id, _ in cursor.values()), self._next_id))
        self._lanes.add(row for row in rows if row.lane in cursor and row.id >= cursor[row.lane][0])

    def confirm(self) -> None:
        """Store that everything handed out so far is confirmed.

        Raises:
            StoreUnavailable: it is not stored; confirm again.
        """
        lanes = self._lanes.heads()
        entries = [(self._name, lane, next_id, waiting) for lane, (next_id, waiting) in lanes.items()]
        entries.append((self._name, "", self._next_id, 0))
        low = min(next_id for _, _, next_id, _ in entries)
        now = self._store.ran_seconds()
        is_due = now - self._checkpoint_at > _CHECKPOINT_SECONDS

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM forward_cursor WHERE name = ?", [self._name])
            connection.executemany("INSERT INTO forward_cursor VALUES (?, ?, ?, ?)", entries)
            if is_due:
                connection.execute("INSERT OR IGNORE INTO confirmed VALUES (?, ?, ?)", [self._name, low, now])

        self._store.run(write)
        self.confirmed_before = low
        if is_due:
            self._checkpoint_at = now


def _insert_rejected(store: Store, entries: Sequence[tuple[int, str, int, str, str | None]]) -> None:
    now = datetime.now(UTC).isoformat(" ", "seconds")
    statement = "INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?, ?, ?)"
    store.run(lambda connection: connection.executemany(statement, [(*entry, now) for entry in entries]))


def _report_lost(store: Store, lost: Sequence[Ids]) -> None:
    for first, end in lost:
        named = f"{first}" if end - first == 1 else f"{first} to {end - 1}"
        reason = (
            f"The rows {named} cannot be read: a page of {store.path} is damaged. `sqlite3 FILE .recover` on a copy may"
            " get some of them; all others are forwarded."
        )
        store.last_error = datetime.now(UTC), reason
        log.error(reason, action="rows_damaged", id=first, rows=end - first)
        _insert_rejected(store, [(first, "", 0, reason, None)])


def store_refused(store: Store, refused: Sequence[tuple[str, str]]) -> None:
    """Store what was refused on arrival, text and reason, in the table `rejected`; no row has an id below 0.

    Raises:
        StoreUnavailable: nothing was stored.
    """
    statement = "INSERT INTO rejected SELECT min(0, ifnull((SELECT min(id) FROM rejected), 0)) - 1, '', 0, ?, ?, ?"
    now = datetime.now(UTC).isoformat(" ", "seconds")
    entries = [(reason, text[:STORED_CHARACTERS], now) for text, reason in refused]
    store.run(lambda connection: connection.executemany(statement, entries))


def restart(store: Store, name: str) -> None:
    """Delete the cursor `name`."""
    store.run(lambda connection: connection.execute("DELETE FROM forward_cursor WHERE name = ?", [name]))


def count_pending(connection: sqlite3.Connection, name: str = FORWARD) -> int:
    """How many rows wait to be confirmed."""
    cursor = _cursor(connection, name)
    next_id, _ = cursor.pop("", (0, 0))
    behind = count_rows(connection, (next_id, id_bounds(connection)[1] + 1))
    return behind + sum(waiting for _, waiting in cursor.values())


class Backlog:
    """The rows that wait to be confirmed, for who looks again and again from several threads."""

    def __init__(self, store: Store, name: str = FORWARD) -> None:
        self._store, self._name = store, name
        self._lock = threading.Lock()
        self._next_id, self._first_id, self._last_id, self._behind = 0, 0, 0, 0

    def rows(self) -> int:
        """How many wait. Only what came, and what was sent, since the last look is counted."""
        connection = self._store.connection
        with self._lock:
            cursor = _cursor(connection, self._name)
            next_id, _ = cursor.pop("", (0, 0))
            first_id, last_id = id_bounds(connection)
            is_whole = self._next_id <= next_id and self._last_id <= last_id
            if is_whole and first_id <= max(self._next_id, self._first_id):
                sent = count_rows(connection, (self._next_id, min(next_id, self._last_id + 1)))
                came = count_rows(connection, (max(next_id, self._last_id + 1), last_id + 1))
                self._behind += came - sent
            else:
                # The first look; or everything is sent again, or what was sent is deleted already.
                self._behind = count_rows(connection, (next_id, last_id + 1))
            self._next_id, self._first_id, self._last_id = next_id, first_id, last_id
            return self._behind + sum(waiting for _, waiting in cursor.values())

    def oldest_seconds(self) -> float:
        """How long the oldest of them has waited, by the PC's clock; 0 when none does, or nobody knows."""
        connection = self._store.connection
        first_id = min((next_id for next_id, _ in _cursor(connection, self._name).values()), default=0)
        query = "SELECT created_at FROM ticks WHERE id >= ? ORDER BY id LIMIT 1"
        # None, or another program wrote it, or it lies on a damaged page that the forwarder is about to pass.
        with suppress(TypeError, ValueError, sqlite3.DatabaseError):
            row = connection.execute(query, [first_id]).fetchone()
            stored = datetime.fromisoformat(row[0]).replace(tzinfo=UTC)
            return max(0.0, (datetime.now(UTC) - stored).total_seconds())
        return 0.0


def _cursor(connection: sqlite3.Connection, name: str) -> dict[str, tuple[int, int]]:
    query = "SELECT lane, next_id, waiting FROM forward_cursor WHERE name = ?"
    return {lane: (next_id, waiting) for lane, next_id, waiting in connection.execute(query, [name])}
