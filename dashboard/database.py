"""Reads from PostgreSQL: the statements, a pool of read-only sessions, and its errors as answers with a cure."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from typing import Any, Final, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from dashboard.answers import Refusal
from runtime.settings import Settings
from sink.db.connection import Trouble, trouble_of
from sink.db.session import (
    Limits,
    Session,
    database_conninfo,
    parse_statements,
    schema_of,
    session_conninfo,
    state_session,
)

Connection = AsyncConnection[Any]
T = TypeVar("T")

#: Every statement of `dashboard/sql/queries.sql`, by name.
SQL: Final = parse_statements(files("dashboard").joinpath("sql", "queries.sql").read_text(encoding="utf-8"))

#: Connections at most: a page is read in a few milliseconds, and eight at once saturate a small database.
_POOL_SIZE: Final = 8

#: The longest wait for a connection before a request is answered 503 (seconds).
_PATIENCE_SECONDS: Final = 5.0

#: The same for a readiness probe, which has a short timeout itself (seconds).
_PROBE_SECONDS: Final = 1.0

_LIMITS: Final = Limits(statement=15, lock=5, idle_in_transaction=30)

_BUSY: Final = "DATABASE_BUSY"

_UNREACHABLE: Final = (
    "the database does not answer; is it running, and do TICKPIPE_DASHBOARD_DATABASE_URL or TICKPIPE_DATABASE_URL "
    "name it? The log of the dashboard has the details"
)


class Database:
    """A connection pool that opens without waiting, so that the service runs while the database is away."""

    def __init__(self, settings: Settings) -> None:
        conninfo = database_conninfo(settings, database_url(settings))
        self._pool = AsyncConnectionPool(
            session_conninfo(conninfo, application_name="tickpipe dashboard", connect_timeout=5),
            connection_class=Session,
            min_size=1,
            max_size=_POOL_SIZE,
            timeout=_PATIENCE_SECONDS,
            configure=partial(_make_read_only, schema=schema_of(conninfo)),
            check=AsyncConnectionPool.check_connection,
            open=False,
            name="dashboard",
        )
        self._late: asyncio.Task[Any] | None = None
        #: Connections in use.
        self._in_use = 0

    async def open(self) -> None:
        """Begin to connect."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    @asynccontextmanager
    async def reading(self, patience_seconds: float = _PATIENCE_SECONDS) -> AsyncIterator[Connection]:
        """A connection inside a read-only transaction; `patience_seconds` is the wait for the connection.

        Raises:
            Refusal: 503 when the database is away or busy, was not prepared or does not let this role read; 504 when it
                takes too long.
        """
        try:
            async with self._pool.connection(patience_seconds) as connection, connection.transaction():
                self._in_use += 1
                try:
                    yield connection
                finally:
                    self._in_use -= 1
        except PoolTimeout as exc:
            raise (_busy() if self._in_use == _POOL_SIZE else _unreachable()) from exc
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction) as exc:
            raise Refusal(
                503,
                "DATABASE_NOT_PREPARED",
                "the database lacks tables or functions of Tickpipe; run `tickpipe db migrate`",
            ) from exc
        except psycopg.errors.InsufficientPrivilege as exc:
            raise Refusal(
                503,
                "DATABASE_FORBIDS",
                f"the dashboard's database role may not read: {exc}; docs/dashboard.md has the GRANTs",
            ) from exc
        except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
            trouble = trouble_of(exc)
            if trouble is Trouble.TOO_SLOW:
                raise Refusal(
                    504, "TOO_SLOW", "the database took too long; ask for less: a smaller limit or time range"
                ) from exc
            # A standby has ended a query in favour of the primary's changes; asked again it may answer.
            is_in_conflict = isinstance(exc, psycopg.errors.SerializationFailure)
            raise (_busy() if trouble is Trouble.BUSY or is_in_conflict else _unreachable()) from exc

    async def within(self, seconds: float, reading: Coroutine[Any, Any, T]) -> T:
        """The result of `reading`, which works with this database, if it comes in time.

        A frozen host neither answers nor ends a connection, and psycopg waits for the end of a query that it cancels:
        so a late query is abandoned, and until it ends no other one is started.

        Raises:
            Refusal: 503 when it is late, and what `reading` raises.
        """
        if self._late is not None and not self._late.done():
            reading.close()
            raise _unreachable()
        task = asyncio.ensure_future(reading)
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            if not task.done():
                self._late = task
                task.add_done_callback(_retrieve_exception)
                task.cancel()
        if not task.done():
            raise _unreachable()
        return task.result()

    async def answers(self) -> bool:
        """Whether it can be reached; one that is busy can."""
        try:
            await self.within(_PROBE_SECONDS, self._ping())
        except Refusal as exc:
            return exc.code == _BUSY
        return True

    async def _ping(self) -> None:
        # Shorter than the probe, so that a full pool is distinguished from a host that does not answer.
        async with self.reading(_PROBE_SECONDS / 2) as connection:
            await connection.execute(SQL["ping"])


def _retrieve_exception(late: asyncio.Task[Any]) -> None:
    # asyncio would log an exception that nobody retrieves as a bug.
    if not late.cancelled():
        late.exception()


def _unreachable() -> Refusal:
    return Refusal(503, "DATABASE_UNAVAILABLE", _UNREACHABLE, Retry_After="2")


def _busy() -> Refusal:
    return Refusal(503, _BUSY, "the database is busy with others' requests, or locked; ask again", Retry_After="2")


def database_url(settings: Settings) -> str:
    """The dashboard's own URL, or the one of all services."""
    return settings.dashboard_database_url.get_secret_value() or settings.database_url.get_secret_value()


async def _make_read_only(connection: Session, schema: str) -> None:
    # Compiling a plan takes longer than reading a page.
    await state_session(connection, _LIMITS, schema, jit="off")
    await connection.commit()
    # Every transaction begins with BEGIN READ ONLY, whatever the role may do.
    await connection.set_read_only(True)
