"""The tables of the database to and from lines of COPY, the same on every edition and version of PostgreSQL.

The schema is not dumped: the migrations make it. So a backup goes from TimescaleDB to plain PostgreSQL and back, and
needs no pg_dump of the server's version.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from psycopg import AsyncConnection, IsolationLevel, sql

from marketdata.errors import TickpipeError
from sink.db.schema import edition, migration_files
from sink.db.session import SQL, repeated_after_deadlock
from tickpipe.backup.archive import (
    ArchiveDamaged,
    ArchiveTooNew,
    ArchiveWriter,
    DatabasePart,
    OnProgress,
    Table,
    table_member,
)  # fmt: skip

Connection = AsyncConnection[Any]

#: Every table of the schema with rows of its own, and the migration that creates it, in the order in which they are
#: restored: while minutes are written, triggers make their hours stale, so what is materialised or stale comes after
#: them.
TABLES: Final = {
    "candle_settings": "0002_timeframes.sql",
    "market_data": "0001_market_data.sql",
    "broker_bars": "0001_market_data.sql",
    "pending_refolds": "0001_market_data.sql",
    "stale_hours": "0003_roll_ups.sql",
    "candle_hours": "0003_roll_ups.sql",
    "candle_days": "0003_roll_ups.sql",
    "sender_counts": "0001_market_data.sql",
    "instruments": "0001_market_data.sql",
    "minute_ledger": "0006_ledger.sql",
    "quote_sessions": "0006_ledger.sql",
}

#: Tables whose `log` column names the log that offsets belong to. It is the first of each line, where it is found
#: without reading the rest.
_WITH_LOG: Final = frozenset({"market_data", "pending_refolds"})

#: The longest row that is restored (bytes).
_MOST_ROW_BYTES: Final = 64 << 20

#: Lines of one COPY of the restore; a trigger sees the rows of one statement at once (bytes).
_COPY_BYTES: Final = 8 << 20


_ORDER: Final = tuple(TABLES)


def tables_of(migrations: Iterable[str]) -> list[str]:
    """The tables that a backup with these migrations has; those of the first migration always."""
    present = {next(iter(migration_files())), *migrations}
    return [table for table, migration in TABLES.items() if migration in present]


class DatabaseNotEmpty(TickpipeError):
    """The database holds candles; take an empty one, or let --replace delete them."""

    is_wrong_use = True


async def begin_snapshot(connection: Connection) -> None:
    """Begin a transaction in which the connection sees the database as it is now."""
    await connection.set_autocommit(False)
    await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    await connection.set_read_only(True)


async def dump(connection: Connection, archive: ArchiveWriter, on_progress: OnProgress) -> DatabasePart:
    """Write every table of the snapshot into the archive."""
    applied = await (await connection.execute(SQL["applied_migrations"])).fetchall()
    tables = [await _dump_table(connection, archive, name, on_progress) for name in TABLES]
    return DatabasePart(await edition(connection), tuple(sorted(name for name, _ in applied)), tuple(tables))


async def dump_bytes(connection: Connection) -> int:
    """The estimated size of the dump (bytes)."""
    total = 0
    for name in TABLES:
        columns = await _columns(connection, name)
        row = await (await connection.execute(SQL["dump_estimate"], {"table": name})).fetchone()
        # A row of COPY's text is about 12 bytes a column.
        total += (row[0] if row else 0) * 12 * len(columns)
    return total


async def _dump_table(connection: Connection, archive: ArchiveWriter, name: str, on_progress: OnProgress) -> Table:
    columns = await _columns(connection, name)
    # COPY of a hypertable itself would be empty; a SELECT reads its chunks.
    statement = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(_names(columns), sql.Identifier(name))
    with archive.member(table_member(name)) as write:
        async with connection.cursor() as cursor:
            async with cursor.copy(statement) as copy:
                async for data in copy:
                    write(bytes(data))
                    on_progress(len(data))
            return Table(name, tuple(columns), cursor.rowcount, columns)


async def require_empty(connection: Connection) -> None:
    """Raise DatabaseNotEmpty when there is any candle."""
    for name in ("market_data", "broker_bars", "candle_hours"):
        query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(name))
        row = await (await connection.execute(query)).fetchone()
        if row is not None and row[0]:
            raise DatabaseNotEmpty(
                f"the database {connection.info.dbname} holds rows in {name}; restore into an empty one, or pass "
                "--replace to delete what it holds"
            )


def require_known_migrations(part: DatabasePart) -> None:
    """Raise ArchiveTooNew when the backup has migrations that this version does not know."""
    if unknown := sorted(set(part.migrations) - set(migration_files())):
        raise ArchiveTooNew(
            f"the backup has migrations that this version does not know ({', '.join(unknown)}); restore it with the "
            "version that wrote it or a later one"
        )


async def check_schema(connection: Connection, part: DatabasePart) -> None:
    """Raise ArchiveTooNew when the backup has columns that neither are of this version nor can be added."""
    for table in part.tables:
        unknown = []
        for column in sorted(set(table.columns) - (await _columns(connection, table.name)).keys()):
            about = {"type": table.types.get(column)}
            row = await (await connection.execute(SQL["is_type"], about)).fetchone()
            if row is None or not row[0]:
                unknown.append(" ".join(filter(None, (column, about["type"]))))
        if unknown:
            raise ArchiveTooNew(
                f"the table {table.name} has no column {', '.join(unknown)} here, and none of its type can be added"
            )


async def _add_columns(connection: Connection, table: Table) -> None:
    # All migrations of the backup are known, so what they do not make, its users had added. `check_schema` has found
    # out that these are types.
    for column in sorted(set(table.columns) - (await _columns(connection, table.name)).keys()):
        statement = sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
            sql.Identifier(table.name), sql.Identifier(column), sql.SQL(table.types[column])
        )
        await connection.execute(statement)


@repeated_after_deadlock
async def load(
    connection: Connection,
    part: DatabasePart,
    pieces: Callable[[str], Iterable[bytes]],
    on_progress: OnProgress,
    *,
    logs: tuple[str, str] | None,
) -> None:
    """Replace what the database holds by the tables, in one transaction: all of it or nothing.

    `pieces` gives a table's bytes; `logs` are the names of the log in the backup and here, when it has a new one.
    """
    async with connection.transaction():
        await connection.execute(SQL["empty_tables"])
        await connection.execute(SQL["empty_settings"])
        for table in sorted(part.tables, key=lambda one: _ORDER.index(one.name)):
            if table.name == "stale_hours":
                await connection.execute(SQL["forget_stale"])
            await _add_columns(connection, table)
            renamed = logs if table.name in _WITH_LOG else None
            await _load_table(connection, table, pieces(table_member(table.name)), on_progress, renamed)


async def _load_table(
    connection: Connection, table: Table, pieces: Iterable[bytes], on_progress: OnProgress, logs: tuple[str, str] | None
) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table.name), _names(table.columns))
    rows = 0
    for lines in whole_lines(pieces, _COPY_BYTES):
        data = lines if logs is None else with_other_log(lines, *logs)
        async with connection.cursor() as cursor:
            async with cursor.copy(statement) as copy:
                await copy.write(data)
            rows += cursor.rowcount
        on_progress(len(lines))
    if rows != table.rows:
        raise ArchiveDamaged(f"{rows:,} rows of {table.name} were written, and the manifest says {table.rows:,}")


def whole_lines(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces that end with a line, each of about `size` bytes. COPY writes a newline in a value as
    `\\n`, so every real one ends a row."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        if len(waiting) >= size:
            end = waiting.rfind(b"\n") + 1
            if end:
                yield bytes(waiting[:end])
                del waiting[:end]
            elif len(waiting) > _MOST_ROW_BYTES:
                raise ArchiveDamaged(f"a row is longer than {_MOST_ROW_BYTES:,} bytes; take an earlier backup")
    if waiting:
        yield bytes(waiting)


def with_other_log(lines: bytes, old: str, new: str) -> bytes:
    """The lines with another name where the first column is the old name of the log; names need no escape."""
    before, after = old.encode() + b"\t", new.encode() + b"\t"
    renamed = lines.replace(b"\n" + before, b"\n" + after)
    return after + renamed[len(before) :] if renamed.startswith(before) else renamed


async def _columns(connection: Connection, table: str) -> dict[str, str]:
    # Types by column, in the order in which they are dumped.
    columns = await (await connection.execute(SQL["table_columns"], {"table": table})).fetchall()
    return dict(sorted(columns, key=lambda column: column[0] != "log") if table in _WITH_LOG else columns)


def _names(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))
