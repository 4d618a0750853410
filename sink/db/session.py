"""Opens connections to PostgreSQL that state every setting they rely on, whatever the server, database or role says."""

import re
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb

from runtime.settings import Settings
from sink.db.statements import SQL

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


def session_conninfo(conninfo: str, **defaults: str | int | None) -> str:
    """The connection string with `defaults`, such as `application_name`; what the URL says itself has precedence."""
    given = conninfo_to_dict(conninfo)
    if options := _SCHEMA_OPTION.sub("", str(given.pop("options", None) or "")).strip():
        given["options"] = options
    return make_conninfo("", **{**_CONNECTING, **defaults, **given})


async def state_session(connection: AsyncConnection[Any], limits: Limits, schema: str, **others: str) -> None:
    """Set on a new connection all that its statements rely on; `others` are settings that only this user has."""
    settings = _STATED | {
        "search_path": schema,
        "statement_timeout": _milliseconds(limits.statement),
        "lock_timeout": _milliseconds(limits.lock),
        "idle_in_transaction_session_timeout": _milliseconds(limits.idle_in_transaction),
    }
    # First of all, for the role's own limit may be too short for the next statement.
    await connection.execute(SQL["lift_statement_timeout"])
    await connection.execute(SQL["state_session"], {"settings": Jsonb(settings | others)})


async def open_session(
    conninfo: str, name: str, limits: Limits = NO_LIMITS, **defaults: str | int | None
) -> AsyncConnection[Any]:
    """A connection in autocommit mode; `name` is its application's in `pg_stat_activity`, unless the URL names one.

    Raises:
        psycopg.OperationalError: when the database does not answer.
    """
    stated = session_conninfo(conninfo, application_name=name, **defaults)
    connection = await AsyncConnection.connect(stated, autocommit=True)
    try:
        await state_session(connection, limits, schema_of(conninfo))
    except BaseException:
        await connection.close()
        raise
    return connection


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
