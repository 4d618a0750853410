"""Takes over a table `market_data` that another collector made: its rows become bars of a broker in our own table.

The older table is renamed and stays as it is, so nothing is lost that does not fit, and everything can be undone. Rows
are copied in steps of one statement each; a step and the note of how far it went are one transaction, so an adoption
that was interrupted goes on when it is started again.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection, sql
from psycopg.rows import class_row, namedtuple_row

from marketdata.errors import TickpipeError
from sink.db.schema import migrate
from sink.db.session import SQL, open_session, repeated_after_deadlock

Connection = AsyncConnection[Any]

#: Names of the table before and after. Those of its indexes begin alike, and are changed alike.
TABLE: Final = "market_data"
RENAMED: Final = "market_data_adopted"

#: Blocks of one step: 8 MB, some 90,000 rows, about two seconds.
_STEP_BLOCKS: Final = 1_000

_REQUIRED: Final = ("ts", "symbol", "timeframe", "open", "high", "low", "close")
_MOMENTS: Final = ("timestamp with time zone", "timestamp without time zone", "date")


class NothingToAdopt(TickpipeError):
    """There is no table `market_data` of the older shape, or no adoption to undo; the message says which."""

    is_wrong_use = True


@dataclass(frozen=True)
class Adopted:
    """What becomes, or became, of the rows of the older table."""

    rows: int
    stored: int
    #: Rows of which another has the same symbol, timeframe and time: the one with the most ticks is stored.
    duplicates: int
    #: Rows whose prices are all 0; they are stored as they are.
    zeros: int
    #: Rows that are no candles: no or impossible prices, minutes that do not begin at :00. Not stored.
    unfit: int
    #: Rows of timeframes that were not asked for. Not stored.
    other_timeframes: int


@dataclass(frozen=True)
class _Part:
    """A table in which rows of the older one lie: itself, a partition or a chunk."""

    schema: str
    name: str
    is_whole: bool
    #: None for a part that is copied in one step.
    blocks: int | None

    def relation(self) -> sql.Composed:
        """The part in a FROM clause, without the tables that inherit from it."""
        name = sql.Identifier(self.schema, self.name)
        return sql.SQL("ONLY {}").format(name) if self.is_whole else sql.SQL("{}").format(name)


async def preview(conninfo: str, timeframes: Sequence[str]) -> Adopted:
    """What an adoption would do; changes nothing.

    Raises:
        NothingToAdopt: when there is no table of the older shape.
    """
    async with await open_session(conninfo, "tickpipe adopt") as connection:
        await _require_older(connection)
        rows = await _rows_of(connection, TABLE, sql.Identifier(TABLE), sql.SQL("true"))
        return await _counted(connection, "count_adoptable", rows, {"timeframes": list(timeframes) or None})


async def adopt(
    conninfo: str, source: str, timeframes: Sequence[str], on_progress: Callable[[float], None] = lambda _: None
) -> Adopted:
    """Take the table over, or go on where an adoption was interrupted; `on_progress` is told the share done (0 to 1).

    An adoption that goes on has the source and timeframes that it began with.

    Raises:
        NothingToAdopt: when there is no table of the older shape.
        SchemaTaken: when something else is in the way of the migrations; then nothing has changed.
    """
    async with await open_session(conninfo, "tickpipe adopt") as connection:
        if not await _value(connection, "has_adoption"):
            await _begin(connection, source, timeframes)
        try:
            await migrate(conninfo)
        except TickpipeError:
            await _undo(connection)
            raise
        await connection.execute(SQL["note_own_objects"], {"objects": await _objects(connection)})
        parts = await _parts(connection)
        while (done := await _step(connection, parts)) < 1:
            on_progress(done)
        await _finish(connection)
        return await _adopted(connection)


async def undo(conninfo: str, confirm: Callable[[int], Awaitable[None]]) -> None:
    """Give the older table its name back and drop all that the adoption made.

    `confirm` is told how many candles came since then, which are dropped as well; it raises when that is not wanted.

    Raises:
        NothingToAdopt: when nothing was adopted.
    """
    async with await open_session(conninfo, "tickpipe adopt") as connection:
        if not await _value(connection, "has_adoption"):
            raise NothingToAdopt("nothing was adopted in this schema, so there is nothing to undo")
        if await _value(connection, "own_objects"):
            await confirm(await _value(connection, "count_not_adopted"))
        await _undo(connection)


async def _require_older(connection: Connection) -> None:
    found = dict(await (await connection.execute(SQL["older_columns"], {"table": TABLE})).fetchall())
    row = await (await connection.execute(SQL["schema_and_database"])).fetchone()
    schema, database = row or ("", "")
    place = f"the schema {schema} of the database {database}"
    if not found:
        raise NothingToAdopt(f"{place} has no table {TABLE}; make the tables with `tickpipe db migrate`")
    if "offsets" in found:
        raise NothingToAdopt(f"the table {TABLE} in {place} is Tickpipe's own; there is nothing to adopt")
    missing = [name for name in _REQUIRED if name not in found]
    if not {"volume", "tick_volume"} & found.keys():
        missing.append("volume")
    if missing or found["ts"] not in _MOMENTS:
        wrong = f"has no column {', '.join(missing)}" if missing else f"has a column ts of type {found['ts']}"
        raise NothingToAdopt(
            f"the table {TABLE} in {place} {wrong}; an older table has ts (timestamp), symbol, timeframe, open, high, "
            "low, close and volume. To leave it alone, give Tickpipe a schema of its own: "
            "TICKPIPE_DATABASE_SCHEMA=tickpipe"
        )


@repeated_after_deadlock
async def _begin(connection: Connection, source: str, timeframes: Sequence[str]) -> None:
    await _require_older(connection)
    async with connection.transaction():
        objects = await _objects(connection)
        await _rename(connection, TABLE, RENAMED)
        objects = [RENAMED.join(o.rsplit(TABLE, 1)) if o.endswith(f".{TABLE}") else o for o in objects]
        await connection.execute(SQL["create_adoption"])
        about = {"source": source, "timeframes": list(timeframes) or None, "objects": objects}
        await connection.execute(SQL["begin_adoption"], about)


async def _rename(connection: Connection, name: str, to: str) -> None:
    indexes = await (await connection.execute(SQL["older_indexes"], {"table": name})).fetchall()
    for (index,) in indexes:
        if index.startswith(name):
            renamed = sql.Identifier(to + index.removeprefix(name))
            await connection.execute(sql.SQL("ALTER INDEX {} RENAME TO {}").format(sql.Identifier(index), renamed))
    await connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(to)))


@repeated_after_deadlock
async def _undo(connection: Connection) -> None:
    async with connection.transaction():
        # Unless that was noted, an adoption broke off among the migrations.
        await connection.execute(SQL["note_own_objects"], {"objects": await _objects(connection)})
        own = await _value(connection, "own_objects")
        for kind, _, name in (described.partition(" ") for described in own):
            # Both are as PostgreSQL itself writes them, quoted where that is needed.
            await connection.execute(f"DROP {kind} IF EXISTS {name} CASCADE".encode())
        await connection.execute(b"DROP TABLE IF EXISTS tickpipe_adoption, tickpipe_migrations")
        await _rename(connection, RENAMED, TABLE)


async def _parts(connection: Connection) -> list[_Part]:
    rows = await (await connection.execute(SQL["older_parts"], {"table": RENAMED})).fetchall()
    return [_Part(*row) for row in rows]


@repeated_after_deadlock
async def _step(connection: Connection, parts: Sequence[_Part]) -> float:
    """Copy the next rows; returns the share that is done by now (0 to 1)."""
    async with connection.transaction():
        # Two that adopt at once take turns.
        row = await (await connection.execute(SQL["lock_adoption"])).fetchone()
        number, block, is_done = row or (0, 0, True)
        if is_done or number >= len(parts):
            return 1
        part = parts[number]
        span: sql.Composable = sql.SQL("true")
        following = (number + 1, 0)
        if part.blocks is not None:
            end = block + _STEP_BLOCKS
            span = sql.SQL("o.ctid >= {} AND o.ctid < {}").format(f"({block},0)", f"({end},0)")
            following = (number, end) if end < part.blocks else following
        adoption = await (await connection.execute(SQL["adoption"])).fetchone()
        source, timeframes = adoption[:2] if adoption else ("", None)
        rows = await _rows_of(connection, RENAMED, part.relation(), span)
        counted = await _counted(connection, "adopt_rows", rows, {"source": source, "timeframes": timeframes})
        about = {"part": following[0], "block": following[1], **vars(counted)}
        await connection.execute(SQL["note_adopted"], about)
    done = following[0] + (following[1] / part.blocks if part.blocks else 0)
    return done / len(parts)


@repeated_after_deadlock
async def _finish(connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute(SQL["finish_adoption"])


async def _rows_of(connection: Connection, table: str, relation: sql.Composable, span: sql.Composable) -> sql.Composed:
    cursor = await connection.execute(SQL["older_columns"], {"table": table})
    names = {name for name, _ in await cursor.fetchall()}
    # MetaTrader tells the number of ticks and the traded volume; a `volume` beside tick_volume is the second.
    both = {"volume", "tick_volume"} <= names
    volume = "coalesce(o.tick_volume, o.volume)" if both else f"o.{'volume' if 'volume' in names else 'tick_volume'}"
    real_volume = "nullif(o.volume, o.tick_volume)" if both else "NULL"
    return sql.SQL(SQL["adoptable_rows"].decode()).format(
        volume=sql.SQL(volume),
        real_volume=sql.SQL("o.real_volume" if "real_volume" in names else real_volume),
        spread=sql.SQL("o.spread" if "spread" in names else "NULL"),
        table=relation,
        range=span,
    )


async def _counted(connection: Connection, name: str, rows: sql.Composed, about: dict[str, Any]) -> Adopted:
    statement = sql.SQL(SQL[name].decode()).format(rows=rows)
    async with connection.cursor(row_factory=class_row(Adopted)) as cursor:
        await cursor.execute(statement, about)
        counted = await cursor.fetchone()
    if counted is None:
        raise RuntimeError("unreachable: an aggregate returns a row")
    return counted


async def _adopted(connection: Connection) -> Adopted:
    async with connection.cursor(row_factory=namedtuple_row) as cursor:
        await cursor.execute(SQL["adoption"])
        row = await cursor.fetchone()
    return Adopted(**{name: getattr(row, name) for name in Adopted.__dataclass_fields__})


async def _objects(connection: Connection) -> list[str]:
    return [name for (name,) in await (await connection.execute(SQL["schema_objects"])).fetchall()]


async def _value(connection: Connection, statement: str) -> Any:
    row = await (await connection.execute(SQL[statement])).fetchone()
    return row[0] if row else None
