"""The schema of the database: its migrations, the edition it runs on, its sizes, and the compression of old rows.

Migrations are the numbered files of `sink/sql/migrations`, each applied once and in a transaction of its own.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final, Literal, NamedTuple

import structlog
from psycopg import AsyncConnection, errors
from psycopg import sql as composing

from marketdata.errors import DatabaseForbids, NotMigrated, SchemaTaken
from sink.db.session import SQL, open_session, repeated_after_deadlock, schema_of

log = structlog.get_logger(__name__)

#: Advisory lock that lets one service at a time look at the schema; any number that nobody else uses ("tick").
_MIGRATIONS_LOCK: Final = 0x7469636B


def migration_files() -> dict[str, bytes]:
    """The SQL of every migration by file name, in order."""
    found = (entry for entry in files("sink").joinpath("sql", "migrations").iterdir() if entry.name.endswith(".sql"))
    return {entry.name: entry.read_bytes() for entry in sorted(found, key=lambda entry: entry.name)}


async def applied_migrations(connection: AsyncConnection[Any]) -> dict[str, str | None]:
    """The migrations that the database has, by name, each with the SHA-256 of its file where that is known."""
    row = await (await connection.execute(SQL["has_migrations"])).fetchone()
    if row is None or not row[0]:
        return {}
    return dict(await (await connection.execute(SQL["applied_migrations"])).fetchall())


def other_migrations(applied: Mapping[str, str | None]) -> list[str]:
    """The applied migrations that were others by the same names: they changed until the first release."""
    return [name for name, sql in migration_files().items() if name in applied and applied[name] != _digest(sql)]


def relation_names(kind: Literal["TABLE", "VIEW"]) -> list[str]:
    """The names of the tables or views that migrations create."""
    created = re.compile(rb"^CREATE %s (\w+)" % kind.encode(), re.MULTILINE)
    return [name.decode() for sql in migration_files().values() for name in created.findall(sql)]


async def missing_rights(connection: AsyncConnection[Any], schema: str) -> list[str]:
    """What the role may not do of all that a sink does, as `INSERT on market_data`."""
    about = {
        "schema": schema, "tables": relation_names("TABLE"), "read": [*relation_names("VIEW"), "tickpipe_migrations"],
    }  # fmt: skip
    return [right for (right,) in await (await connection.execute(SQL["missing_privileges"], about)).fetchall()]


async def forbidden(conninfo: str, exc: errors.InsufficientPrivilege) -> DatabaseForbids:
    """The error that names every right that the role lacks, for one of PostgreSQL's, which names none.

    Raises:
        psycopg.OperationalError: when the database does not answer any more.
    """
    async with await open_session(conninfo, "tickpipe rights") as connection:
        missing = await missing_rights(connection, schema_of(conninfo))
        role = connection.info.user
    # A function, say, or row security: there PostgreSQL names all that there is to know.
    lacking = ", ".join(missing) or str(exc.diag.message_primary)
    return DatabaseForbids(
        f"PostgreSQL does not allow the role {role} what a sink does: {lacking}; grant it as the tables' owner or as "
        "a superuser (docs/deploy/database.md)"
    )


def _digest(sql: bytes) -> str:
    return sha256(sql).hexdigest()


async def migrate(conninfo: str) -> list[str]:
    """Apply the migrations that the database does not have; returns their names, none when it is up to date.

    Several services may call it at the same time: all but one wait, and then find nothing to do.

    Raises:
        psycopg.OperationalError: when the database does not answer; the call can be repeated.
        DatabaseForbids: when the role may not even look which migrations there are.
        SchemaTaken: when something else in the schema has a name that a migration needs.
        NotMigrated: when migrations are missing that this role may not apply; the call can be repeated.
    """
    applied = []
    async with await open_session(conninfo, "tickpipe migrations") as connection:
        # A migration may change what a prepared statement answers.
        connection.prepare_threshold = None
        async with connection.transaction():
            await connection.execute(SQL["lock_migrations"], {"key": _MIGRATIONS_LOCK})
            await _create_schema(connection, schema_of(conninfo))
            await _require_sight(connection, conninfo)
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


async def _require_sight(connection: AsyncConnection[Any], conninfo: str) -> None:
    """Check that the role sees which migrations were applied: what it may not see looks as if it were missing."""
    try:
        await connection.execute(SQL["require_usage"], {"schema": schema_of(conninfo)})
        await applied_migrations(connection)
    except errors.InsufficientPrivilege as exc:
        raise await forbidden(conninfo, exc) from exc


@repeated_after_deadlock
async def _apply(connection: AsyncConnection[Any], name: str, sql: bytes) -> bool:
    """Apply a migration unless the database has it; returns whether it was applied."""
    try:
        async with connection.transaction():
            # Behind a pooler no lock outlasts a transaction, so each takes it, and looks again.
            await connection.execute(SQL["lock_migrations"], {"key": _MIGRATIONS_LOCK})
            applied = await applied_migrations(connection)
            if name in applied:
                if applied[name] != _digest(sql):
                    raise SchemaTaken(await _made_by_another_version(connection, other_migrations(applied)))
                return False
            # Not before the first, so that one that is refused leaves nothing behind.
            await connection.execute(SQL["create_migrations_table"])
            await connection.execute(sql)
            await connection.execute(SQL["record_migration"], {"name": name, "sha256": _digest(sql)})
    except errors.InsufficientPrivilege as exc:
        raise NotMigrated(
            f"the role {connection.info.user} may not apply the migration {name} ({exc.diag.message_primary}); run "
            "`tickpipe db migrate` as the owner of the tables, who needs CREATE on their schema"
        ) from exc
    except (errors.DuplicateTable, errors.DuplicateFunction, errors.DuplicateObject) as exc:
        schema, database = await _row(connection, "schema_and_database")
        raise SchemaTaken(
            f"the schema {schema} of the database {database} holds something else by a name that Tickpipe needs "
            f"({exc.diag.message_primary}); let Tickpipe have a schema of its own, TICKPIPE_DATABASE_SCHEMA=tickpipe, "
            "or take over a table market_data of candles with `tickpipe db adopt`"
        ) from exc
    return True


async def _made_by_another_version(connection: AsyncConnection[Any], other: list[str]) -> str:
    schema, database = await _row(connection, "schema_and_database")
    return (
        f"a version of Tickpipe before the first release made the tables in the schema {schema} of the database "
        f"{database} ({', '.join(other)}); let this one have a schema of its own, TICKPIPE_DATABASE_SCHEMA=tickpipe, "
        "and fold the log again (docs/deploy/operations.md)"
    )


#: Advisory lock that lets one of several sinks set policies ("poli").
_POLICIES_LOCK: Final = 0x706F6C69


async def edition(connection: AsyncConnection[Any]) -> str:
    """`timescaledb community 2.x`, `timescaledb apache 2.x` or `postgresql 18`."""
    row = await (await connection.execute(SQL["edition"])).fetchone()
    if row is None:
        raise RuntimeError("unreachable: a SELECT without FROM returns a row")
    postgresql, timescaledb, timescaledb_license = row
    if timescaledb is None:
        return f"postgresql {postgresql}"
    # TimescaleDB: timescaledb.license is `timescale` in the community edition, `apache` in the other.
    kind = "community" if timescaledb_license == "timescale" else "apache"
    return f"timescaledb {kind} {timescaledb}"


class Storage(NamedTuple):
    """What the tables take; chunks and policies are None and empty without TimescaleDB."""

    market_data_bytes: int
    #: Materialised hours and days, and the list of stale ones.
    candle_bytes: int
    broker_bars_bytes: int
    chunks: int | None
    compressed_chunks: int | None
    #: Name, interval and configuration of each job on `market_data`.
    policies: list[tuple[str, str, str]]
    #: Before them M1 to M30, H1 and H4, D1 to MN1 are deleted; None where nothing is.
    minutes_from: datetime | None
    hours_from: datetime | None
    days_from: datetime | None


async def storage(connection: AsyncConnection[Any]) -> Storage:
    """The storage of a migrated database."""
    candles, bars, market_data = await _row(connection, "relation_sizes")
    retention = await _row(connection, "retention")
    if not (await edition(connection)).startswith("timescaledb"):
        return Storage(market_data, candles, bars, None, None, [], *retention)
    (market_data,) = await _row(connection, "hypertable_size")
    chunks, compressed = await _row(connection, "chunks")
    policies = await (await connection.execute(SQL["policies"])).fetchall()
    return Storage(market_data, candles, bars, chunks, compressed, policies, *retention)


async def set_compression(connection: AsyncConnection[Any], after_days: int) -> None:
    """Chunks are compressed when they are so many days old; 0 compresses no more and leaves what is compressed.

    Other editions than TimescaleDB's community edition cannot, nor can a role that does not own the table; that is
    logged.
    """
    if not (await edition(connection)).startswith("timescaledb community"):
        if after_days:
            log.warning(
                "Nothing is compressed: that needs TimescaleDB's community edition.", action="compression_missing"
            )
        return
    try:
        changed = await _change_compression(connection, after_days)
    except errors.InsufficientPrivilege as exc:
        log.warning(
            "Only the owner of the tables may set their compression: run `tickpipe db migrate` as that role.",
            action="compression_refused", after_days=after_days, error=str(exc).strip(),
        )  # fmt: skip
        return
    if changed:
        log.info("The compression of old chunks was set.", action="compression_set", after_days=after_days)


@repeated_after_deadlock
async def _change_compression(connection: AsyncConnection[Any], after_days: int) -> bool:
    """Set the policy unless it is set like this already; returns whether it was not."""
    async with connection.transaction():
        await connection.execute(SQL["lock_policies"], {"key": _POLICIES_LOCK})
        row = await (await connection.execute(SQL["compression_policy"])).fetchone()
        if (row[0] if row else 0) == after_days:
            return False
        await connection.execute(SQL["remove_compression_policy"])
        if after_days:
            (compressible,) = await _row(connection, "is_compressible")
            if not compressible:
                await connection.execute(SQL["make_compressible"])
            await connection.execute(SQL["add_compression_policy"], {"days": after_days})
    return True


async def _row(connection: AsyncConnection[Any], name: str) -> tuple[Any, ...]:
    row = await (await connection.execute(SQL[name])).fetchone()
    if row is None:
        raise RuntimeError("market_data is no table of this database; run `tickpipe db migrate`")
    return tuple(row)
