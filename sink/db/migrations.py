"""Brings the schema up to date: the numbered files of `sink/sql/migrations`, each once and each in a transaction."""

from importlib.resources import files
from typing import Any, Final

import structlog
from psycopg import AsyncConnection

from sink.db.session import open_session
from sink.db.statements import SQL

log = structlog.get_logger(__name__)

#: Advisory lock that lets one service at a time look at the schema; any number that nobody else uses ("tick").
_LOCK_KEY: Final = 0x7469636B


def migration_files() -> dict[str, bytes]:
    """The SQL of every migration by file name, in order."""
    found = (entry for entry in files("sink").joinpath("sql", "migrations").iterdir() if entry.name.endswith(".sql"))
    return {entry.name: entry.read_bytes() for entry in sorted(found, key=lambda entry: entry.name)}


async def migrate(conninfo: str) -> list[str]:
    """Apply the migrations that the database does not have; returns their names, none when it is up to date.

    Several services may call it at the same time: all but one wait, and then find nothing to do.

    Raises:
        psycopg.OperationalError: when the database does not answer; the call can be repeated.
    """
    applied = []
    async with await open_session(conninfo, "tickpipe migrations") as connection:
        # A migration may change what a prepared statement answers.
        connection.prepare_threshold = None
        async with connection.transaction():
            await connection.execute(SQL["lock_migrations"], {"key": _LOCK_KEY})
            await connection.execute(SQL["create_schema_migrations"])
        for name, sql in migration_files().items():
            if await _apply(connection, name, sql):
                log.info("Applied a migration.", action="migration_applied", migration=name)
                applied.append(name)
    return applied


async def _apply(connection: AsyncConnection[Any], name: str, sql: bytes) -> bool:
    """Apply a migration unless the database has it; returns whether it was applied."""
    async with connection.transaction():
        # Behind a pooler no lock outlasts a transaction, so each takes it, and looks again.
        await connection.execute(SQL["lock_migrations"], {"key": _LOCK_KEY})
        rows = await (await connection.execute(SQL["applied_migrations"])).fetchall()
        if (name,) in rows:
            return False
        await connection.execute(sql)
        await connection.execute(SQL["record_migration"], {"name": name})
    return True
