"""Brings the schema up to date: the numbered files of `sink/sql/migrations`, each once and each in a transaction."""

from importlib.resources import files
from typing import Any, Final

import structlog
from psycopg import AsyncConnection, errors
from psycopg import sql as composing

from marketdata.errors import SchemaTaken
from sink.db.session import open_session, schema_of
from sink.db.statements import SQL

log = structlog.get_logger(__name__)

#: Advisory lock that lets one service at a time look at the schema; any number that nobody else uses ("tick").
_LOCK_KEY: Final = 0x7469636B


def migration_files() -> dict[str, bytes]:
    """The SQL of every migration by file name, in order."""
    found = (entry for entry in files("sink").joinpath("sql", "migrations").iterdir() if entry.name.endswith(".sql"))
    return {entry.name: entry.read_bytes() for entry in sorted(found, key=lambda entry: entry.name)}


async def applied_migrations(connection: AsyncConnection[Any]) -> set[str]:
    """The names of the migrations that the database has."""
    row = await (await connection.execute(SQL["has_migrations"])).fetchone()
    if row is None or not row[0]:
        return set()
    return {name for (name,) in await (await connection.execute(SQL["applied_migrations"])).fetchall()}


async def migrate(conninfo: str) -> list[str]:
    """Apply the migrations that the database does not have; returns their names, none when it is up to date.

    Several services may call it at the same time: all but one wait, and then find nothing to do.

    Raises:
        psycopg.OperationalError: when the database does not answer; the call can be repeated.
        SchemaTaken: when something else in the schema has a name that a migration needs.
    """
    applied = []
    async with await open_session(conninfo, "tickpipe migrations") as connection:
        # A migration may change what a prepared statement answers.
        connection.prepare_threshold = None
        async with connection.transaction():
            await connection.execute(SQL["lock_migrations"], {"key": _LOCK_KEY})
            await _create_schema(connection, schema_of(conninfo))
        for name, sql in migration_files().items():
            if await _apply(connection, name, sql):
                log.info("Applied a migration.", action="migration_applied", migration=name)
                applied.append(name)
    return applied


async def _create_schema(connection: AsyncConnection[Any], schema: str) -> None:
    # Asked first: who may not create schemas can use one that is there.
    row = await (await connection.execute(SQL["has_schema"], {"schema": schema})).fetchone()
    if row is None or not row[0]:
        await connection.execute(composing.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(composing.Identifier(schema)))


async def _apply(connection: AsyncConnection[Any], name: str, sql: bytes) -> bool:
    """Apply a migration unless the database has it; returns whether it was applied."""
    try:
        async with connection.transaction():
            # Behind a pooler no lock outlasts a transaction, so each takes it, and looks again.
            await connection.execute(SQL["lock_migrations"], {"key": _LOCK_KEY})
            if name in await applied_migrations(connection):
                return False
            # Not before the first, so that one that is refused leaves nothing behind.
            await connection.execute(SQL["create_migrations_table"])
            await connection.execute(sql)
            await connection.execute(SQL["record_migration"], {"name": name})
    except (errors.DuplicateTable, errors.DuplicateFunction, errors.DuplicateObject) as exc:
        row = await (await connection.execute(SQL["schema_and_database"])).fetchone()
        schema, database = row or ("", "")
        raise SchemaTaken(
            f"the schema {schema} of the database {database} holds something else by a name that Tickpipe needs "
            f"({exc.diag.message_primary}); let Tickpipe have a schema of its own, TICKPIPE_DATABASE_SCHEMA=tickpipe, "
            "or take over a table market_data of candles with `tickpipe db adopt`"
        ) from exc
    return True
