"""Opens connections to PostgreSQL that state every setting they rely on, whatever the server, database or role says.

Nothing relies on a session for longer than a transaction. Behind a pooler in transaction mode, such as PgBouncer, each
transaction may run in another session, and other clients use that as well:

====================  ================================  =====================================================
of a session          directly                          through a pooler
====================  ================================  =====================================================
settings and limits   set once, on connecting           set by each transaction for itself
prepared statements   psycopg's                         none
cursors               inside a transaction              inside a transaction
advisory locks        inside a transaction, but that    inside a transaction; two sinks may refold the same
                      of `Refolder` spans several       minutes, which changes nothing but their work
LISTEN and NOTIFY     not used                          not used
startup parameters    those of libpq, and `options`     the same; PgBouncer refuses `options`, unless its
                      if the URL has them               `ignore_startup_parameters` names them
====================  ================================  =====================================================

PostgreSQL tells a client on connecting the process id of its session. A pooler makes one up, which gives it away.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Self

import psycopg
from psycopg import AsyncConnection, AsyncCursor, AsyncTransaction, IsolationLevel, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from marketdata.errors import SettingsError
from runtime.settings import Settings

#: A host that vanished silently is noticed after about 15 s, not after the kernel's quarter of an hour.
_CONNECTING: Final[dict[str, str | int | None]] = {
    "application_name": "tickpipe",
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    # The packed rows of COPY are written in it.
    "client_encoding": "UTF8",
}

#: The settings that change what a statement means, reads or answers, or whether what was committed is on disk.
_STATED: Final = {
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "array_nulls": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "idle_session_timeout": "0",
    # PostgreSQL 17 and later.
    "transaction_timeout": "0",
}


@dataclass(frozen=True)
class Limits:
    """How long a statement, the wait for a lock and an idle transaction may take (seconds); 0 is without a limit."""

    statement: float = 0
    lock: float = 0
    idle_in_transaction: float = 0


#: For commands: they read whole tables, wait for each other's migrations and may be idle under a pager.
NO_LIMITS: Final = Limits()

#: For services that write: a locked table becomes a retry with a line in the log, not a silence.
SERVICE_LIMITS: Final = Limits(statement=30, lock=10, idle_in_transaction=60)


#: libpq's own way to name a schema in a URL. It is taken out and stated, for poolers refuse it.
_SCHEMA_OPTION: Final = re.compile(r"-c\s*search_path=(\w+)")


def database_conninfo(settings: Settings, url: str = "") -> str:
    """The connection string of the settings' database, or of `url`, with the settings' schema in its `options`."""
    url = url or settings.database_url.get_secret_value()
    if settings.database_schema == "public":
        return url
    options = conninfo_to_dict(url).get("options") or ""
    return make_conninfo(url, options=f"{options} -c search_path={settings.database_schema}".strip())


def schema_of(conninfo: str) -> str:
    """The schema that the connection string names."""
    named = _SCHEMA_OPTION.findall(str(conninfo_to_dict(conninfo).get("options") or ""))
    return named[-1] if named else "public"


class PoolerUnusable(SettingsError):
    """The pooler does not let a transaction have several statements; set PgBouncer's `pool_mode` to `transaction`."""


class Session(AsyncConnection[Any]):
    """A connection whose every transaction states what it relies on, if a pooler makes that necessary."""

    #: Opens each transaction behind a pooler; None for a session of our own, which `state_session` set up.
    _opening: sql.Composed | None = None

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler gives each transaction a session of its own choice."""
        return self._opening is not None

    async def state_per_transaction(self, opening: sql.Composed) -> None:
        """Open every transaction from now on with these statements."""
        # A prepared statement belongs to the session that prepared it.
        self.prepare_threshold = None
        self.cursor_factory = _StatingCursor
        # Of a transaction that has begun these cannot be stated any more.
        await self.set_isolation_level(IsolationLevel.READ_COMMITTED)
        await self.set_deferrable(False)
        self._opening = opening

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[AsyncTransaction]:
        """As psycopg's; the outermost one behind a pooler begins with the statements that set it up."""
        is_outermost = self.info.transaction_status is TransactionStatus.IDLE
        async with AsyncExitStack() as stack:
            try:
                transaction = await stack.enter_async_context(super().transaction(savepoint_name, force_rollback))
            except psycopg.errors.FeatureNotSupported as exc:
                # The answer of a standby to BEGIN READ WRITE; to a statement that writes it is this.
                raise psycopg.errors.ReadOnlySqlTransaction(str(exc)) from exc
            if is_outermost:
                await self.open_transaction()
            yield transaction

    async def open_transaction(self) -> None:
        """Set up the transaction that has begun, or that psycopg begins with the first statement."""
        if self._opening is not None:
            await AsyncCursor(self).execute(self._opening)


class _StatingCursor(AsyncCursor[Any]):
    """Gives a statement outside of a transaction one of its own, or sets up that which psycopg begins with it."""

    async def execute(self, *args: Any, **kwargs: Any) -> Self:
        async with self._set_up():
            return await super().execute(*args, **kwargs)

    async def executemany(self, *args: Any, **kwargs: Any) -> None:
        async with self._set_up():
            await super().executemany(*args, **kwargs)

    @asynccontextmanager
    async def copy(self, *args: Any, **kwargs: Any) -> AsyncIterator[psycopg.AsyncCopy]:
        async with self._set_up(), super().copy(*args, **kwargs) as copy:
            yield copy

    @asynccontextmanager
    async def _set_up(self) -> AsyncIterator[None]:
        connection = self.connection
        if not isinstance(connection, Session) or connection.info.transaction_status is not TransactionStatus.IDLE:
            yield
        elif connection.autocommit:
            async with connection.transaction():
                yield
        else:
            await connection.open_transaction()
            yield


def is_pooled(connection: AsyncConnection[Any]) -> bool:
    """Whether the next transaction of this connection may run in another session, behind a pooler."""
    return isinstance(connection, Session) and connection.is_pooled


def session_conninfo(conninfo: str, **defaults: str | int | None) -> str:
    """The connection string with `defaults`, such as `application_name`; what the URL says itself has precedence."""
    given = conninfo_to_dict(conninfo)
    if options := _SCHEMA_OPTION.sub("", str(given.pop("options", None) or "")).strip():
        given["options"] = options
    return make_conninfo("", **{**_CONNECTING, **defaults, **given})


async def state_session(connection: Session, limits: Limits, schema: str, **others: str) -> None:
    """Set up a new connection, or its transactions; `others` are settings that only this user has.

    Raises:
        PoolerUnusable: when a pooler has each statement run in another session.
    """
    settings = _STATED | {
        "search_path": schema,
        "statement_timeout": _milliseconds(limits.statement),
        "lock_timeout": _milliseconds(limits.lock),
        "idle_in_transaction_session_timeout": _milliseconds(limits.idle_in_transaction),
    }
    row = await (await connection.execute(SQL["session"])).fetchone()
    if row is None:
        raise RuntimeError("unreachable: a SELECT without FROM returns a row")
    process_id, is_standby = row
    is_behind_pooler = process_id != connection.info.backend_pid
    stating = sql.SQL(SQL["state_session"].decode()).format(
        settings=sql.Literal(Jsonb(settings | others)), is_local=sql.Literal(is_behind_pooler)
    )
    if not is_behind_pooler:
        await connection.execute(stating)
        return
    # Ends the transaction that reading the process id has begun, if it has.
    await connection.commit()
    await connection.state_per_transaction(stating)
    if not is_standby:
        # Whatever the default of the role is; a standby would refuse.
        await connection.set_read_only(False)
    try:
        async with connection.transaction():
            pass
    except psycopg.errors.ProtocolViolation as exc:
        # PgBouncer uses this one code for all of its own errors, and does not translate them.
        if "statement pooling" not in str(exc):
            raise
        raise PoolerUnusable(
            f"the pooler does not let a transaction have several statements ({str(exc).strip()}); set pool_mode of "
            "PgBouncer to transaction or session, or let TICKPIPE_DATABASE_URL name PostgreSQL itself"
        ) from exc


async def open_session(conninfo: str, name: str, limits: Limits = NO_LIMITS, **defaults: str | int | None) -> Session:
    """A connection in autocommit mode; `name` is its application's in `pg_stat_activity`, unless the URL names one.

    Raises:
        psycopg.OperationalError: when the database does not answer.
        PoolerUnusable: when it is a pooler's that has each statement run in another session.
    """
    stated = session_conninfo(conninfo, application_name=name, **defaults)
    connection = await Session.connect(stated, autocommit=True)
    try:
        await state_session(connection, limits, schema_of(conninfo))
    except BaseException:
        await connection.close()
        raise
    return connection


#: Decorates a function that is one transaction of a command, and safe to repeat: PostgreSQL may end it for the sake of
#: another one, such as an ANALYZE of its own, and then asks for the same again. Services have `Database.run`.
repeated_after_deadlock: Final = retry(
    retry=retry_if_exception_type(psycopg.errors.DeadlockDetected),
    # Each attempt has waited for `deadlock_timeout` already, a second by default.
    wait=wait_random(0, 0.5),
    stop=stop_after_attempt(10),
    reraise=True,
)


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


_HEADING: Final = "-- name: "


def parse_statements(text: str) -> dict[str, bytes]:
    """Statements by name; what stands before the first heading of a file is a comment.

    They are bytes because that is how psycopg takes SQL that is no literal of the program.

    Raises:
        ValueError: when two statements share a name.
    """
    statements: dict[str, bytes] = {}
    for block in ("\n" + text).split("\n" + _HEADING)[1:]:
        name, _, body = block.partition("\n")
        if name.strip() in statements:
            raise ValueError(f"two statements are named {name.strip()}")
        statements[name.strip()] = body.strip().removesuffix(";").encode()
    return statements


def _read_statements() -> dict[str, bytes]:
    found = (entry for entry in files("sink").joinpath("sql").iterdir() if entry.name.endswith(".sql"))
    statements: dict[str, bytes] = {}
    for entry in sorted(found, key=lambda entry: entry.name):
        parsed = parse_statements(entry.read_text(encoding="utf-8"))
        if twice := statements.keys() & parsed.keys():
            raise ValueError(f"two statements are named {', '.join(twice)}")
        statements |= parsed
    return {name: _whole(text, statements) for name, text in statements.items()}


def _whole(text: bytes, statements: Mapping[str, bytes]) -> bytes:
    """The text with every statement in it that it names in braces; other names are the caller's to fill in."""
    return re.sub(rb"\{(\w+)\}", lambda found: statements.get(found[1].decode(), found[0]), text)


#: Every statement of `sink/sql/*.sql`.
SQL: Final = _read_statements()
